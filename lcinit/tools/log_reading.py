"""Reading back what one service has written: its files as one stream of lines, from any place in it, and as they grow.

The files are the guest's, who may plant anything in their place: below the handle of its root no link is followed,
only plain files are read, and what they hold is taken for bytes. See service.log_files for what is in them.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from lcinit.linux.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, open_in_root, openat2
from lcinit.service.log_files import CURRENT, DIRECTORY, RECORD, TIMES, closing_time, older_names
from lcinit.service.log_lines import LONGEST, whole_characters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = tuple[int, bytes, bool]  # nanoseconds since 1970, text, whether it is only a piece of a line
    Place = tuple[int, int]  # number of a file, oldest first, and offset in it

BLOCK = 64 * 1024
_ATTEMPTS = 5
_PAUSE = 0.005  # seconds: a rotation is three calls


class Part:
    """One file, and what its index says of it. Close it."""

    def __init__(self, fd: int, times: int, otherwise: int) -> None:
        """`times` may be -1. Bytes that the index does not tell of have the time `otherwise`."""
        self.fd = fd
        self._times = times
        self._otherwise = otherwise
        self._records: Iterator[tuple[int, int]] = iter(())
        self._number = 0  # of the first record that is not among those
        self._exhausted = False  # there were no more of them when the last block was read
        self._now = otherwise
        self._next: tuple[int, int] | None = None

    @property
    def has_index(self) -> bool:
        """Whether there is one."""
        return self._times >= 0

    def close(self) -> None:
        """Close both files."""
        for fd in (self.fd, self._times):
            if fd >= 0:
                os.close(fd)
        self.fd = self._times = -1

    def size(self) -> int:
        """Its bytes, now."""
        return os.fstat(self.fd).st_size

    def read(self, offset: int, most: int = BLOCK) -> bytes:
        """Bytes from there on; b"" at its end, for now."""
        self._exhausted = False
        return os.pread(self.fd, most, offset)

    def seek(self, offset: int) -> None:
        """Tell times from this offset on."""
        self._number = max(0, self._first(0, offset + 1) - 1)
        self._records, self._next, self._now = iter(()), None, self._otherwise

    def time_at(self, offset: int) -> int:
        """When the byte there came. Offsets do not go back, but by `seek`."""
        while not self._exhausted and (self._next is None or self._next[0] <= offset):
            if self._next is not None:
                self._now = self._next[1]
            self._next = self._next_record()
            self._exhausted = self._next is None
        return self._now

    def offset_since(self, since: int) -> int | None:
        """The offset of the first chunk that came then or later; None where all came before."""
        data = self._read_records(self._first(1, since), 1)
        if data:
            offset: int = RECORD.unpack(data)[0]
            return offset
        return 0 if not self._count() and self._otherwise >= since else None

    def _next_record(self) -> tuple[int, int] | None:
        for offset, moment in self._records:
            return offset, moment
        data = self._read_records(self._number, BLOCK // RECORD.size)
        self._number += len(data) // RECORD.size
        self._records = RECORD.iter_unpack(data)
        return next(self._records, None)

    def _read_records(self, number: int, count: int) -> bytes:
        if self._times < 0:
            return b""
        data = os.pread(self._times, count * RECORD.size, number * RECORD.size)
        return data[: len(data) // RECORD.size * RECORD.size]

    def _count(self) -> int:
        return 0 if self._times < 0 else os.fstat(self._times).st_size // RECORD.size

    def _first(self, field: int, least: int) -> int:
        """The number of the first record whose offset (field 0) or time (1) is so large; their number: none."""
        low, high = 0, self._count()
        while low < high:
            middle = (low + high) // 2
            data = self._read_records(middle, 1)
            if data and RECORD.unpack(data)[field] < least:
                low = middle + 1
            else:
                high = middle
        return low


class Lines:
    """Splits what files hold that follow each other. A line's time is that of its beginning."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._time = 0

    def feed(self, part: Part, offset: int, block: bytes) -> Iterator[Line]:
        """The lines that end in this block, which stands at `offset`, and pieces of one that is too long."""
        *complete, rest = block.split(b"\n")
        for line in complete:
            yield from self._add(part, offset, line)
            yield self._time, bytes(self._begun), False
            self._begun.clear()
            offset += len(line) + 1
        if rest:
            yield from self._add(part, offset, rest)

    def _add(self, part: Part, offset: int, text: bytes) -> Iterator[Line]:
        if not self._begun:
            self._time = part.time_at(offset)
        self._begun += text
        while len(self._begun) > LONGEST:
            end = whole_characters(self._begun, LONGEST)
            yield self._time, bytes(self._begun[:end]), True
            del self._begun[:end]

    def rest(self) -> Iterator[Line]:
        """A line that has no end."""
        if self._begun:
            yield self._time, bytes(self._begun), False
            self._begun.clear()


class ServiceLog:
    """The files of one service as they are when this is made. `root` is a handle of the guest's root.

    Raises OSError; FileNotFoundError where the service has never logged to a file.
    """

    def __init__(self, root: int, name: str) -> None:
        self.name = name
        self.odd: list[str] = []  # what is no plain file, and was not read
        self._lines = Lines()
        self._directory = _open_directory(root, name)
        self._current = self._open_current()
        names = older_names(self._directory)
        if names and self._is(names[-1], self._current):
            names.pop()  # it was closed a moment ago: what came after it is no part of this
        self._older = names
        self._last_closed = names[-1] if names else ""
        self._offset = 0 if self._current is None else self._current.size()

    def close(self) -> None:
        """Close what is open."""
        if self._current is not None:
            self._current.close()
            self._current = None
        os.close(self._directory)

    # what there is

    def begin(self) -> Place:
        """The first line."""
        return 0, 0

    def end(self) -> Place:
        """After the last."""
        return len(self._older), self._offset

    def last(self, count: int) -> Place:
        """The last so many lines. Reads no more than these."""
        wanted = count
        at_end = True
        for number in range(len(self._older), -1, -1) if count else ():
            with _Opened(self, number) as part:
                offset = self._size(number, part)
                while part is not None and offset > 0:
                    data = part.read(max(0, offset - BLOCK), min(BLOCK, offset))
                    end = len(data) - (at_end and data.endswith(b"\n"))
                    at_end = False
                    here = data.count(b"\n", 0, end)
                    if here >= wanted:
                        for _ in range(wanted):
                            end = data.rfind(b"\n", 0, end)
                        return number, max(0, offset - BLOCK) + end + 1
                    wanted -= here
                    offset -= BLOCK
        return self.begin() if count else self.end()

    def since(self, moment: int) -> Place:
        """The first line that came then or later, in nanoseconds since 1970."""
        for number in range(len(self._older) + 1):
            if number < len(self._older) and (closing_time(self._older[number]) or 0) < moment:
                continue
            with _Opened(self, number) as part:
                offset = None if part is None else part.offset_since(moment)
                if part is not None and offset is not None:
                    return number, _line_start(part, min(offset, self._size(number, part)))
        return self.end()

    def lines(self, start: Place, *, follows: bool = False) -> Iterator[Line]:
        """From there to the end. With `follows` a last line that has no end is left for `news`."""
        offset = start[1]
        for number in range(start[0], len(self._older) + 1):
            with _Opened(self, number) as part:
                if part is not None:
                    yield from self._read(part, offset, self._size(number, part))
            offset = 0
        if not follows:
            yield from self._lines.rest()

    def _read(self, part: Part, offset: int, end: int) -> Iterator[Line]:
        part.seek(offset)
        while offset < end and (block := part.read(offset, min(BLOCK, end - offset))):
            yield from self._lines.feed(part, offset, block)
            offset += len(block)

    def _size(self, number: int, part: Part | None) -> int:
        if part is None:
            return 0
        return self._offset if number == len(self._older) else part.size()

    def part(self, number: int) -> Part | None:
        """A file by its number; None where it was removed meanwhile."""
        return self._current if number == len(self._older) else self._open(self._older[number])

    def is_current(self, number: int) -> bool:
        """Whether this is the one that is open all the time."""
        return number == len(self._older)

    # what comes

    def news(self) -> Iterator[Line]:
        """The lines that have come since all was read that there was, or since this was asked last."""
        old = self._current
        if old is not None:
            yield from self._drain(old)
            if self._is(CURRENT, old):
                if old.size() < self._offset:  # somebody has emptied it
                    self._offset = 0
                    old.seek(0)
                    yield from self._drain(old)
                return
            yield from self._drain(old)  # nothing is written to it any more
        new = self._open_current()
        if new is None:
            return
        for name in older_names(self._directory):
            if name <= self._last_closed or self._is(name, new):
                continue
            between = None if self._is(name, old) else self._open(name)
            if between is not None:
                yield from self._read(between, 0, between.size())
                between.close()
            self._last_closed = name
        if old is not None:
            old.close()
        self._current, self._offset = new, 0
        yield from self._drain(new)

    def _drain(self, part: Part) -> Iterator[Line]:
        end = part.size()  # and not what comes meanwhile: others have news, too
        while self._offset < end and (block := part.read(self._offset, min(BLOCK, end - self._offset))):
            yield from self._lines.feed(part, self._offset, block)
            self._offset += len(block)

    # files

    def _is(self, name: str, part: Part | None) -> bool:
        try:
            found = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return part is not None and os.path.samestat(os.fstat(part.fd), found)

    def _open_current(self) -> Part | None:
        """`current` and the index that belongs to it, whatever the logger does meanwhile; None where there is none."""
        for attempt in range(_ATTEMPTS):
            part = self._open(CURRENT)
            if part is not None:
                if self._is(CURRENT, part) and (part.has_index or attempt == _ATTEMPTS - 1):
                    return part
                part.close()
            time.sleep(_PAUSE)
        return None

    def _open(self, name: str) -> Part | None:
        fd = self._open_plain(name)
        if fd < 0:
            return None
        return Part(fd, self._open_plain(name + TIMES), closing_time(name) or os.fstat(fd).st_mtime_ns)

    def _open_plain(self, name: str) -> int:
        """A file for reading; -1 where there is none, or something that could hold the reader up or lead it away."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            if stat.S_ISREG(os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_mode):
                fd = os.open(name, flags, dir_fd=self._directory)
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    return fd
                os.close(fd)
        except FileNotFoundError:
            return -1
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        if name not in self.odd:
            self.odd.append(name)
        return -1


class _Opened:
    """A file of a log by its number, closed again unless it is `current`."""

    def __init__(self, service_log: ServiceLog, number: int) -> None:
        self._part = service_log.part(number)
        self._keep = service_log.is_current(number)

    def __enter__(self) -> Part | None:
        return self._part

    def __exit__(self, *_exception: object) -> None:
        if self._part is not None and not self._keep:
            self._part.close()


def _line_start(part: Part, offset: int) -> int:
    """Where the next line begins, at `offset` or after it."""
    if offset == 0 or part.read(offset - 1, 1) == b"\n":
        return offset
    while block := part.read(offset):
        end = block.find(b"\n")
        if end >= 0:
            return offset + end + 1
        offset += len(block)
    return offset


def _open_directory(root: int, name: str) -> int:
    """The way to /var/log may go over links, none of which leads out of the root; below it there are none."""
    parent, own = os.path.split(DIRECTORY)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    above = openat2(root, parent, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    try:
        return open_in_root(above, f"{own}/{name}", os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(above)
