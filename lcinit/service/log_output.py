"""What one service writes, on its way from the pipe into the file, onto the console, or nowhere."""

from __future__ import annotations

import errno
import os
import time

from lcinit.service.log_console import notice
from lcinit.service.log_files import LogFile
from lcinit.service.log_lines import LONGEST, LineLimit, LineSplitter, counted, json_line, text_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.config.service_values import ServiceLog
    from lcinit.service.log_console import Console
    from lcinit.service.log_source import Source

PIECE = 1 << 20  # bytes that are moved unseen at once
RETRY = 1.0  # seconds between two attempts to write a file that cannot be written


class Output:
    """One pipe. `due` is when something is to be done although nothing comes. Times are those of time.monotonic().

    `close_files` closes the files of other outputs, which open them again when they need them; false: none was open.
    """

    __slots__ = (
        *("_close_files", "_console", "_dropped", "_expires", "_failing", "_file", "_limit", "_lines", "_retry"),
        *("_settings", "due", "name", "source"),
    )

    def __init__(
        self, name: str, settings: ServiceLog, source: Source, console: Console, close_files: Callable[[], bool]
    ) -> None:
        self.name = name
        self.source = source
        self.due: float | None = None
        self._console = console
        self._close_files = close_files
        self._file: LogFile | None = None
        self._failing = ""  # what keeps the file from being written
        self._retry = 0.0
        self._dropped = (0, 0)  # lines and bytes, because of that
        self._expires: float | None = None  # when the file is as old as it may be
        self._lines: LineSplitter | None = None
        self._limit: LineLimit | None = None
        self._settings = settings
        self.set(settings)

    def set(self, settings: ServiceLog) -> None:
        """Go on with another policy."""
        self._tell_dropped(float("inf"))
        self._settings = settings
        burst = settings.rate_limit_burst
        self._limit = None if burst is None else LineLimit(burst, settings.rate_limit_interval)
        if settings.to not in ("console", "both"):
            self._end_line()
            self._lines = None
        elif self._lines is None:
            self._lines = LineSplitter()
        self.close_file()  # it is opened again with what comes next

    @property
    def may_wait(self) -> bool:
        """Whether the console is the only place for what comes: then the console's reader sets the pace."""
        return self._settings.to == "console"

    def take(self) -> int:
        """Take a piece of what is there: how many bytes. BlockingIOError: there was nothing."""
        now = time.monotonic()
        self._tell_dropped(now)
        to = self._settings.to
        if to == "none":
            return self.source.skip(PIECE)[0]
        if to == "file" and self._limit is None:
            return self._store(PIECE, now)
        data = self.source.take() if to == "console" else self.source.look()
        parts = [(len(data), True)] if self._limit is None or not data else self._limit.judge(data, now)
        if self._lines is not None:
            self._show(self._lines, data, parts)
        for size, passes in parts if to != "console" else ():
            while size:
                size -= self._store(size, now) if passes else self.source.skip(size)[0]
        self._schedule()
        return len(data)

    def take_waiting(self) -> None:
        """Take what is there now, and not what comes meanwhile."""
        left = self.source.waiting()
        try:
            while left > 0 and (taken := self.take()):
                left -= taken
        except BlockingIOError:
            pass

    def finish(self) -> None:
        """Take what is there now, and close it."""
        self.take_waiting()
        self.source.close()
        self._tell_dropped(float("inf"))
        self._end_line()
        if self._file is not None:
            try:
                if not self._file.ends_a_line():
                    self._file.write(b"\n")  # or the next run's first line would become a part of this one
            except OSError as error:
                self._fail(error, 0.0)
        self.close_file()
        if self._dropped[1]:
            self._console.put(notice(f"the log of {self.name}: {self._lost()}"), self.name)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._tell_dropped(now)
        file = self._file
        if file is not None and self._is_old(now):
            try:
                if file.ends_a_line():
                    self._rotate(file)
            except OSError as error:
                self._fail(error, now)
        self._schedule(now)

    def _schedule(self, now: float = 0.0) -> None:
        limit = self._limit
        times = [self._expires, limit.until if limit is not None and limit.dropped else None]
        self.due = min((each for each in times if each is not None and each > now), default=None)

    # the file

    def close_file(self) -> bool:
        """Close it until it is needed again; false when it was not open."""
        file, self._file, self._expires = self._file, None, None
        if file is not None:
            file.close()
        return file is not None

    def rotate(self) -> None:
        """Begin a new file, whatever the size of the one there is."""
        now = time.monotonic()
        try:
            file = self._opened(now)
            if file is not None and file.size:
                self._rotate(file)
        except OSError as error:
            self._fail(error, now)

    def _store(self, most: int, now: float) -> int:
        """Move bytes into the file, or drop them where it cannot be written: how many."""
        try:
            file = self._opened(now)
            if file is not None:
                return self._move(file, most, now)
        except BlockingIOError:
            raise
        except OSError as error:
            self._fail(error, now)
        count, lines = self.source.skip(most)
        self._dropped = self._dropped[0] + lines, self._dropped[1] + count
        return count

    def _move(self, file: LogFile, most: int, now: float) -> int:
        """A piece of it, after a rotation where one is due. Files end with a line, unless it has no end."""
        max_size = max(1, self._settings.max_size)
        room = max_size - file.fullness()
        if room > 0 and not self._is_old(now):
            most = min(most, room)
        elif file.ends_a_line() or room <= -LONGEST:
            self._rotate(file)
            most = min(most, max_size)
        else:
            seen = self.source.look()
            most = min(most, seen.find(b"\n") + 1 or len(seen))  # and not what comes meanwhile
        file.record(time.time_ns())
        moved = self.source.move(file.fd, most)
        file.size += moved
        if self._expires is None and self._settings.max_age is not None:
            self._expire(file, self._settings.max_age, now)
        return moved

    def _opened(self, now: float) -> LogFile | None:
        """The file, None while it is not the time to try again."""
        file = self._file
        if file is not None:
            if file.look():
                return file
            self.close_file()
        if self._failing and now < self._retry:
            return None
        file = self._file = self._open()
        if file.size and self._settings.max_age is not None:
            self._expire(file, self._settings.max_age, now)
        if self._failing:
            self._write_notice(file, f"{self._lost()}: {self._failing}")
            self._console.put(notice(f"the log of {self.name} is written again, {self._lost()}"), self.name)
            self._failing, self._dropped = "", (0, 0)
        return file

    def _open(self) -> LogFile:
        try:
            return LogFile(self.name, self._settings.max_files)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._close_files():
                raise
        return LogFile(self.name, self._settings.max_files)

    def _fail(self, error: OSError, now: float) -> None:
        """Drop what comes, say so once, and try again a little later."""
        self.close_file()
        self._retry = now + RETRY
        if not self._failing:
            self._failing = error.strerror or os.strerror(error.errno or 0)
            text = f"the log of {self.name} cannot be written, and its lines are dropped: {self._failing}"
            self._console.put(notice(text), self.name)

    def _lost(self) -> str:
        return f"{counted(self._dropped[0])} ({self._dropped[1]} bytes) dropped"

    def _write_notice(self, file: LogFile, text: str) -> None:
        begin = b"" if file.ends_a_line() else b"\n"
        file.record(time.time_ns())
        file.write(begin + notice(text))

    def _rotate(self, file: LogFile) -> None:
        self._expires = None
        file.rotate(time.time_ns())

    def _is_old(self, now: float) -> bool:
        return self._expires is not None and now >= self._expires

    def _expire(self, file: LogFile, max_age: float, now: float) -> None:
        """The file's own times are of a clock that may be set: from here on it is the other clock's."""
        began = time.time() if file.began is None else file.began / 1e9
        self._expires = now + min(max(0.0, began + max_age - time.time()), max_age)
        self._schedule()

    # the console

    def _show(self, splitter: LineSplitter, data: bytes, parts: list[tuple[int, bool]]) -> None:
        begin = 0
        for size, passes in parts:
            if passes:
                self._put(splitter.feed(data[begin : begin + size]))
            elif rest := splitter.rest():
                self._put([(rest, True)])
            begin += size

    def _put(self, lines: list[tuple[bytes, bool]]) -> None:
        console, name = self._console, self.name
        if not console.has_room():
            console.drop(name, len(lines))
        elif self._settings.format == "json":
            now = time.time()
            for line, cut in lines:
                console.put(json_line(name, line, cut, now), name)
        else:
            for line, cut in lines:
                console.put(text_line(name, line, cut), name)

    def _end_line(self) -> None:
        if self._lines is not None and (rest := self._lines.rest()):
            self._put([(rest, False)])

    def _tell_dropped(self, now: float) -> None:
        """Say how many lines were too many, once that is known."""
        limit = self._limit
        count = 0 if limit is None else limit.take(now)
        if not count:
            return
        settings = self._settings
        why = f"more than {settings.rate_limit_burst} in {settings.rate_limit_interval:g} s"
        if settings.to in ("console", "both"):
            self._console.put(notice(f"{counted(count)} of {self.name} dropped: {why}"), self.name)
        if settings.to in ("file", "both"):
            try:
                file = self._opened(time.monotonic())
                if file is not None:
                    self._write_notice(file, f"{counted(count)} dropped: {why}")
            except OSError as error:
                self._fail(error, time.monotonic())
