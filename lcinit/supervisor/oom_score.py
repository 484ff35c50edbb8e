"""A program's oom_score_adj (proc_pid_oom_score_adj(5)), which its parent has for the moment of the fork.

The file belongs to whoever owns the memory of a process that is not dumpable: outside of a guest's user namespace
that is the root of the machine, and the guest's root may not open its own. So the parent keeps it open from before;
a child inherits the value, and writing needs no more than that the value be no lower than the parent's own.
"""

from __future__ import annotations

import os

from lcinit.linux.files import PROC_SUPER_MAGIC, check_statfs_type
from lcinit.supervisor.userns import any_procfs

_FILE = "/proc/self/oom_score_adj"


class _Own:
    """This process' own file; -1 while it is not open."""

    def __init__(self) -> None:
        self.file = -1
        self.pid = 0


_own = _Own()


def hold() -> int:
    """Open it, for as long as this process lives: the descriptor. Raises OSError."""
    if _own.pid != os.getpid():  # a fork's would still be its parent's
        file = _open()
        try:
            check_statfs_type(file, PROC_SUPER_MAGIC, _FILE)
        except BaseException:
            os.close(file)
            raise
        _own.file, _own.pid = file, os.getpid()
    return _own.file


def _open() -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(_FILE, flags)
    except FileNotFoundError:
        procfs = any_procfs()  # a machine's first process has no /proc yet
    try:
        return os.open("self/oom_score_adj", flags, dir_fd=procfs)
    finally:
        os.close(procfs)


def own() -> int:
    """What this process has. Raises OSError."""
    return int(os.pread(hold(), 16, 0))


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
