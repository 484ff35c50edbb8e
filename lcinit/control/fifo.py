"""The initctl FIFO in a directory that somebody else may write: made, watched and made again.

The directory is the guest's /dev, so whatever stands at the name may have been put there by the guest at any moment.
Nothing is ever opened for reading or writing that is not the FIFO made here: it is identified by its inode while it is
held by an O_PATH handle (open(2)), and opened through that handle.
"""

from __future__ import annotations

import fcntl
import os
import stat

MODE = 0o600
_WATCHED = fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME


class GuardedFifo:
    """A FIFO `name` in the directory behind the handle `directory`, mode 0600, owned by `owner` (uid, gid; outer ids).

    `fd` is its non-blocking end, -1 while there is none. It is opened for reading and writing, so that no writer's
    close is an end of file.
    """

    def __init__(self, directory: int, owner: tuple[int, int], name: str = "initctl") -> None:
        self.fd = -1
        self.remade = 0
        self._directory = directory
        self._owner = owner
        self._name = name
        self._watch = -1

    def ensure(self) -> bool:
        """Make the FIFO unless ours still stands at its name; true when `fd` is a new one.

        Raises OSError when it cannot be made (a directory with something in it, no space, an opponent who was
        faster); `fd` is -1 then, and the call may be repeated.
        """
        if self.fd >= 0:
            ours = os.fstat(self.fd)
            try:
                there = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    return False
            self.close()
        self._clear()
        os.mkfifo(self._name, MODE, dir_fd=self._directory)
        self.fd = self._open_made()
        self.remade += 1
        return True

    def watch(self) -> bool:
        """Have the kernel send one SIGIO when an entry of the directory is made, removed or renamed (fcntl(2)).

        One notice a call: the caller decides how often it wants to know. False where the kernel cannot.
        """
        try:
            if self._watch < 0:
                self._watch = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
            fcntl.fcntl(self._watch, fcntl.F_NOTIFY, _WATCHED)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the FIFO and leave what stands at its name alone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Close the FIFO and take it away, if it is still ours that stands at its name."""
        if self.fd < 0:
            return
        ours = os.fstat(self.fd)
        self.close()
        try:
            there = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                os.unlink(self._name, dir_fd=self._directory)
        except FileNotFoundError:
            pass

    def _clear(self) -> None:
        """Remove whatever stands at the name: an entry, never what it points at."""
        try:
            os.unlink(self._name, dir_fd=self._directory)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(self._name, dir_fd=self._directory)

    def _open_made(self) -> int:
        handle = os.open(self._name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            found = os.fstat(handle)
            # what the guest can make belongs to one of its own ids, or has a second name
            if not stat.S_ISFIFO(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
                raise OSError(f"{self._name} was replaced while it was made")
            fd = os.open(f"/proc/self/fd/{handle}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(handle)
        try:
            os.fchmod(fd, MODE)
            os.fchown(fd, *self._owner)
        except OSError:
            os.close(fd)
            raise
        return fd
