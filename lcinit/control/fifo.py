"""The initctl FIFO in a directory that somebody else may write: made, watched and made again.

The directory may be the guest's /dev, so whatever stands at the name may have been put there by the guest at any
moment. Nothing is ever opened for reading or writing that is not the FIFO made here: it is identified by its inode
while it is held by an O_PATH handle (open(2)), and opened through that handle.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

MODE = 0o600
_WATCHED = fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME


class _GuardedName:
    """A name in the directory behind the handle `directory`."""

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._watch = -1

    @property
    def watched(self) -> int:
        """The descriptor of the directory that is watched; -1 for none."""
        return self._watch

    def watch_by(self, fd: int) -> None:
        """Watch by this descriptor of the directory, which is this object's from then on. Another process may have
        watched by it before: the notices are this one's now.
        """
        self.unwatch()
        self._watch = fd
        try:
            fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        except OSError:
            return  # a handle that nothing can be watched by
        self.watch()

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

    def unwatch(self) -> None:
        """End the watch: closing its descriptor does that."""
        if self._watch >= 0:
            os.close(self._watch)
            self._watch = -1

    def _clear(self) -> None:
        """Remove whatever stands at the name: an entry, never what it points at."""
        try:
            os.unlink(self._name, dir_fd=self._directory)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(self._name, dir_fd=self._directory)


class GuardedFifo(_GuardedName):
    """A FIFO `name` in the directory behind the handle `directory`, mode 0600, owned by `owner` (uid, gid; outer ids).

    `fd` is its non-blocking end, -1 while there is none. It is opened for reading and writing, so that no writer's
    close is an end of file.
    """

    def __init__(self, directory: int, owner: tuple[int, int], name: str = "initctl") -> None:
        super().__init__(directory, name)
        self.fd = -1
        self.remade = 0
        self._owner = owner

    def stands(self) -> bool:
        """Whether the FIFO that `fd` reads is the one at its name. OSError when the directory cannot be read."""
        return self.fd >= 0 and self._is_at_name(self.fd)

    def adopt(self, fd: int) -> bool:
        """Read the FIFO behind `fd`, an earlier lcinit's, if it stands at the name; true then. OSError as above."""
        if not self._is_at_name(fd):
            return False
        self.close()
        self.fd = fd
        return True

    def ensure(self) -> bool:
        """Make the FIFO unless ours still stands at its name; true when `fd` is a new one.

        Raises OSError when it cannot be made (a directory with something in it, no space, an opponent who was
        faster); `fd` is -1 then, and the call may be repeated.
        """
        if self.stands():
            return False
        self.close()
        self._clear()
        os.mkfifo(self._name, MODE, dir_fd=self._directory)
        try:
            self.fd = self._open_made()
        except OSError:
            self._clear()  # nobody reads it: its writers would wait
            raise
        self.remade += 1
        return True

    def close(self) -> None:
        """Close the FIFO and leave what stands at its name alone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Close the FIFO and take it away, if it is still ours that stands at its name."""
        ours = self.stands()
        self.close()
        if ours:
            self._clear()

    def _is_at_name(self, fd: int) -> bool:
        try:
            there = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

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


class GuardedLink(_GuardedName):
    """A symbolic link `name` to `target` in the directory behind the handle `directory`."""

    def __init__(self, directory: int, target: str, name: str = "initctl") -> None:
        super().__init__(directory, name)
        self.target = target

    def stands(self) -> bool:
        """Whether such a link is there. OSError when the directory cannot be read."""
        try:
            return os.readlink(self._name, dir_fd=self._directory) == self.target
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # nothing, or something that is no link (readlink(2))
                return False
            raise

    def ensure(self) -> bool:
        """Make the link unless it is there; true when it was made. Raises OSError as GuardedFifo.ensure does."""
        if self.stands():
            return False
        self._clear()
        os.symlink(self.target, self._name, dir_fd=self._directory)
        return True

    def remove(self) -> None:
        """Take the link away, if it is still ours."""
        if self.stands():
            self._clear()
