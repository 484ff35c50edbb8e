"""The files that a service's output is kept in: their names, the index of times, safe opening, rotation.

Below /var/log/lcinit each service has a directory. `current` has its bytes as they came, `current.times` says when: a
record of 16 bytes, little-endian, for each chunk: its offset in `current`, and nanoseconds since 1970 (CLOCK_REALTIME).
Older files are called `@SECONDS.NANOSECONDS`, after the moment when they were closed, each with its `.times`.

A rotation renames the index first and the file second, and makes both anew in that order. So whoever has opened
`current`, then its index, and then finds that `current` is still the same file, has the two that belong together.

Whatever is found there is judged before it is written to: it may have been planted.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from lcinit.linux.files import open_in_root

DIRECTORY = "/var/log/lcinit"
CURRENT = "current"
TIMES = ".times"
RECORD = struct.Struct("<QQ")
LATEST = 10**19  # nanoseconds: names have ten digits of seconds, which is until 2286

_PARENT, _OWN = os.path.split(DIRECTORY)
_DIRECTORY_MODE, _FILE_MODE = 0o750, 0o640
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_RESOLUTION = 1_000_000  # nanoseconds between two records, at least


def name_of(closed: int) -> str:
    """The name of a file that was closed then, in nanoseconds since 1970."""
    return f"@{closed // 10**9:010d}.{closed % 10**9:09d}"


def closing_time(name: str) -> int | None:
    """When a file of this name was closed; None for any other name."""
    if len(name) != 21 or name[0] != "@" or name[11] != ".":
        return None
    digits = name[1:11] + name[12:]
    return int(digits) if digits.isascii() and digits.isdigit() else None


def older_names(directory: int) -> list[str]:
    """The files that were closed, oldest first."""
    return sorted(name for name in os.listdir(directory) if closing_time(name) is not None)


def closed_index(names: set[str]) -> set[str]:
    """The closed files that have an index."""
    return {name[: -len(TIMES)] for name in names if name.endswith(TIMES) and closing_time(name[: -len(TIMES)])}


def open_directory(name: str) -> int:
    """The directory of a service, made where it is missing. Raises OSError.

    The way to /var/log may go over links; below it, where a log's group may be let in, there must be none.
    """
    directory = _open_parent()
    for part in (_OWN, name):
        above = directory
        try:
            directory = _enter(above, part)
        finally:
            os.close(above)
    return directory


def _open_parent() -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(_PARENT, flags)
    except FileNotFoundError:
        os.makedirs(_PARENT, 0o755, exist_ok=True)
        return os.open(_PARENT, flags)


def _enter(above: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        directory = open_in_root(above, name, flags)
    except FileNotFoundError:
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=above)
        directory = open_in_root(above, name, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f"{name} is a symbolic link, and below {_PARENT} none is followed") from None
        raise
    if os.fstat(directory).st_uid != os.geteuid():
        os.close(directory)
        raise PermissionError(errno.EPERM, "its directory belongs to somebody else")
    return directory


def _is_ours(found: os.stat_result) -> bool:
    """A plain file that nobody has under another name."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()


def _open_file(directory: int, name: str) -> int:
    """Open it, made where it is missing. What is no file of ours is put aside under another name."""
    flags = os.O_RDWR | _OPEN
    for _ in range(3):
        try:
            return os.open(name, flags | os.O_CREAT | os.O_EXCL, _FILE_MODE, dir_fd=directory)
        except FileExistsError:
            pass
        try:
            # looked at before it is opened: opening a device can be an act
            if _is_ours(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                fd = os.open(name, flags, dir_fd=directory)
                if _is_ours(os.fstat(fd)):
                    return fd
                os.close(fd)
            os.rename(name, f"{name}.odd", src_dir_fd=directory, dst_dir_fd=directory)
        except FileNotFoundError:
            pass
    raise PermissionError(errno.EPERM, f"{name} is no file of lcinit's")


class LogFile:
    """`current` of one service, open for writing. Methods raise OSError. Times are nanoseconds since 1970."""

    __slots__ = ("_described", "_directory", "_indexed", "_recorded", "_times", "began", "fd", "max_files", "size")

    def __init__(self, name: str, max_files: int) -> None:
        self.max_files = max_files
        self.fd = self._times = -1
        self.size = 0
        self.began: int | None = None  # when its first byte came
        self._recorded = self._indexed = 0
        self._described = -1  # the offset in the last record, if this has written one
        self._directory = open_directory(name)
        try:
            self._finish_rotation()
            self._open()
        except OSError:
            self.close()
            raise

    def _open(self) -> None:
        self._times = _open_file(self._directory, CURRENT + TIMES)
        self.fd = _open_file(self._directory, CURRENT)
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        first = os.pread(self._times, RECORD.size, 0) if self.size else b""
        self.began = RECORD.unpack(first)[1] if len(first) == RECORD.size else None
        self._cut_index()

    def _cut_index(self) -> None:
        """Forget records of bytes that there are not, and a torn one."""
        count = os.fstat(self._times).st_size // RECORD.size
        while count and RECORD.unpack(os.pread(self._times, RECORD.size, (count - 1) * RECORD.size))[0] > self.size:
            count -= 1
        if not self.size:
            count, self.began = 0, None
        self._recorded, self._described = 0, -1
        self._indexed = count * RECORD.size
        os.ftruncate(self._times, self._indexed)
        os.lseek(self._times, self._indexed, os.SEEK_SET)

    def _finish_rotation(self) -> None:
        """Of one that was interrupted the index has its new name, and the file has not."""
        names = set(os.listdir(self._directory))
        closed = {name for name in names if closing_time(name) is not None}
        for name in sorted(closed_index(names) - closed, reverse=True):
            if {CURRENT, CURRENT + TIMES} & names == {CURRENT} and all(name > other for other in closed):
                self._rename(CURRENT, name)
                return
            self._remove(name + TIMES)

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def close(self) -> None:
        """Close what is open."""
        for fd in (self.fd, self._times, self._directory):
            if fd >= 0:
                os.close(fd)
        self.fd = self._times = self._directory = -1

    def look(self) -> bool:
        """See whether somebody has cut the file short, or written to it; false when it was removed."""
        found = os.fstat(self.fd)
        if not found.st_nlink:
            return False
        if found.st_size != self.size:
            self.size = os.lseek(self.fd, 0, os.SEEK_END)
            self._cut_index()
        return True

    def record(self, now: int) -> None:
        """What is written next came now."""
        if self.began is None:
            self.began = now
        if not self._recorded <= now < self._recorded + _RESOLUTION:
            if self._described == self.size:  # what was to come then has not come
                os.pwrite(self._times, RECORD.pack(self.size, now), self._indexed - RECORD.size)
            else:
                self._indexed += os.write(self._times, RECORD.pack(self.size, now))
            self._recorded, self._described = now, self.size

    def fullness(self) -> int:
        """What counts as its size: the index is the larger one where a service writes its lines byte by byte."""
        return max(self.size, self._indexed)

    def ends_a_line(self) -> bool:
        """Whether what is written next begins a line."""
        return not self.size or os.pread(self.fd, 1, self.size - 1) == b"\n"

    def write(self, data: bytes) -> None:
        """Append all of it."""
        while data:
            written = os.write(self.fd, data)
            self.size += written
            data = data[written:]

    def rotate(self, now: int) -> None:
        """Close the file under its new name, remove what is too old, and begin anew."""
        names = older_names(self._directory)
        latest = closing_time(names[-1]) if names else None
        name = name_of(min(max(now, 0 if latest is None else latest + 1), LATEST - 1))
        self._rename(CURRENT + TIMES, name + TIMES)
        self._rename(CURRENT, name)
        names.append(name)
        for old in names[: max(0, len(names) - self.max_files)]:
            for each in (old, old + TIMES):
                self._remove(each)
        os.close(self.fd)
        os.close(self._times)
        self.fd = self._times = -1
        self._open()

    def _remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._directory)
        except FileNotFoundError:
            pass
