"""The streams of a command in a guest: a terminal of the guest's own devpts, or pipes that belong to its user.

None of the caller's descriptors is lent: through one of a file the guest could open that file anew (proc(5),
/proc/PID/fd), and through one of a terminal it could type there (ioctl_tty(2), TIOCSTI, TIOCLINUX).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from lcinit.errors import SystemFailure
from lcinit.linux import files, process

_PTMX = os.makedev(5, 2)  # Documentation/admin-guide/devices.txt of the kernel


class Outer:
    """The caller's ends: of a terminal its master, of pipes the writing end of stdin and the reading ends."""

    names = ("master", "stdin", "stdout", "stderr")

    def __init__(self) -> None:
        self.master = self.stdin = self.stdout = self.stderr = -1

    @classmethod
    def of(cls, word: bytes, descriptors: list[int]) -> Outer:
        """The ends that came with a message whose text names them."""
        outer = cls()
        for name, fd in zip(word.decode("ascii").split(), descriptors, strict=True):
            setattr(outer, name, fd)
        return outer

    def _held(self) -> list[str]:
        return [name for name in self.names if getattr(self, name) >= 0]

    def word(self) -> bytes:
        """The names of those there are."""
        return " ".join(self._held()).encode("ascii")

    def descriptors(self) -> list[int]:
        """Their descriptors, in the same order."""
        return [getattr(self, name) for name in self._held()]

    def close_one(self, name: str) -> None:
        """Close one of them, if it is open."""
        fd = getattr(self, name)
        setattr(self, name, -1)
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Close all of them."""
        for name in self.names:
            self.close_one(name)


class Streams:
    """Both ends, in the process that makes them. `terminal` says whether there is one."""

    def __init__(self, terminal: bool, separate_errors: bool) -> None:
        self.terminal = terminal
        self.outer = Outer()
        self._inner = [-1, -1, -1]
        self._separate_errors = separate_errors

    def open_terminal(self, root: int, uid: int) -> None:
        """With a terminal: make it in the devpts of the guest root of this handle, and let `uid` own it.

        It has to be done as the guest's root: who opens ptmx owns the new terminal. SystemFailure without a devpts.
        """
        if not self.terminal:
            return
        try:
            self.outer.master, slave = process.open_pty(_open_ptmx(root))
            os.fchown(slave, uid, -1)
        except OSError as error:
            hint = "redirect standard input or output, so that it needs none"
            if error.errno == errno.ENOSPC:
                hint = "all of them are in use; see /proc/sys/kernel/pty"
            raise SystemFailure.from_os_error("make a terminal in the guest", error, hint=hint) from error
        self._inner = [slave, slave, -1 if self._separate_errors else slave]

    def open_pipes(self) -> None:
        """Make the rest pipes. They belong to whom the process is by now, who may open them anew (`/dev/stdout`)."""
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            if self._inner[number] >= 0:
                continue
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self._inner[number], outer = (reader, writer) if number == 0 else (writer, reader)
            setattr(self.outer, name, outer)

    def place(self) -> None:
        """Make the inner ends the standard streams of this process."""
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in self._inner]
        for fd in set(self._inner):
            os.close(fd)
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
            os.close(fd)


def _open_ptmx(root: int) -> int:
    """The multiplexer inside the guest's devpts. Only a devpts holds one; in anything else there is a trap."""
    directory = files.open_in_root(root, "dev/pts", os.O_PATH | os.O_DIRECTORY)
    try:
        files.check_statfs_type(directory, files.DEVPTS_SUPER_MAGIC, "/dev/pts")
        resolve = files.RESOLVE_BENEATH | files.RESOLVE_NO_XDEV | files.RESOLVE_NO_SYMLINKS
        ptmx = files.openat2(directory, "ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, 0, resolve)
    finally:
        os.close(directory)
    status = os.fstat(ptmx)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX:
        os.close(ptmx)
        raise OSError(errno.ENXIO, "it is no terminal multiplexer", "/dev/pts/ptmx")
    return ptmx
