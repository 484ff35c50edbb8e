"""A program's oom_score_adj (proc_pid_oom_score_adj(5)), which its parent has for the moment of the fork.

The file belongs to whoever owns the memory of a process that is not dumpable: outside of a guest's user namespace
that is the root of the machine, and the guest's root may not open its own. So the parent keeps it open from before;
a child inherits the value, and writing needs no more than that the value be no lower than the parent's own.
"""

from __future__ import annotations

import errno
import os

from lcinit.linux.files import PROC_SUPER_MAGIC, check_statfs_type

SPARED = -900

_FILE = "self/oom_score_adj"


class _Own:
    """This process' own file; -1 while it is not open."""

    def __init__(self) -> None:
        self.file = -1
        self.pid = 0


_own = _Own()


def hold(procfs: int) -> int:
    """Open it in a procfs by its handle, for as long as this process lives: the descriptor. Raises OSError."""
    if _own.pid != os.getpid():  # a fork's would still be its parent's
        file = os.open(_FILE, os.O_RDWR | os.O_CLOEXEC, dir_fd=procfs)
        try:
            check_statfs_type(file, PROC_SUPER_MAGIC, _FILE)
        except BaseException:
            os.close(file)
            raise
        _own.file, _own.pid = file, os.getpid()
    return _own.file


def own() -> int:
    """What this process has, which holds its file. Raises OSError."""
    if _own.pid != os.getpid():
        raise OSError(errno.EBADF, "the file is not held")
    return int(os.pread(_own.file, 16, 0))


def spare() -> None:
    """Have this process killed last when memory runs out, but for those that cannot be killed at all. Raises OSError:
    that takes CAP_SYS_RESOURCE in the machine's first user namespace.
    """
    if own() > SPARED:
        os.write(_own.file, b"%d" % SPARED)


def moved(file: int) -> None:
    """The descriptor is this one from now on."""
    _own.file = file


class Loan:
    """This process has a value until the end of the loan, and a child that it forks meanwhile is born with it.

    None: its own, and nothing is done. `failure` is why it has another one than was wanted.
    """

    def __init__(self, value: int | None) -> None:
        self.failure: OSError | None = None
        self._before: int | None = None
        if value is None:
            return
        try:
            before = own()
            if before != value:
                os.write(_own.file, b"%d" % value)
                self._before = before
        except OSError as error:
            self.failure = error

    def end(self) -> None:
        """Have what it had before."""
        if self._before is not None:
            os.write(_own.file, b"%d" % self._before)
