"""lcinit's own messages. Writing one can never block and never raise: PID 1 must not hang on a full terminal."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lcinit.history import History

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LONGEST = 4000  # below PIPE_BUF: a pipe that polls writable takes it whole


class Log:
    """Where messages go: descriptor 2 and, if asked for, a file. `dropped` counts those the console did not take."""

    def __init__(self) -> None:
        self.level = "info"
        self.json = False
        self.file = -1
        self.dropped = 0
        self.end = b"\n"
        self.sink: Callable[[bytes], None] | None = None
        self.history: History | None = None

    def configure(self, level: str, form: str, file: str | None) -> None:
        """Take over the configuration's `log`. Raises OSError when the file cannot be opened."""
        self.level = level
        self.json = form == "json"
        if file is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            self.file = os.open(file, flags, 0o640)

    def write(self, level: str, message: str) -> None:
        """One record: a line, with whatever could move a terminal's cursor made visible."""
        if LEVELS[level] < LEVELS[self.level]:
            return
        message = printable(message)
        line = self._line(level, message)
        self._put(2, line[:-1] + self.end)
        if self.sink is not None:
            self.sink(line)
        elif self.file >= 0:
            self._put(self.file, line)
        if self.history is not None:
            kept = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
            self.history.append({"level": level, "message": kept})

    def _line(self, level: str, message: str) -> bytes:
        if self.json:
            text = message.replace("\\", "\\\\").replace('"', '\\"')
            return f'{{"program": "lcinit", "level": "{level}", "message": "{text}"}}\n'.encode("utf-8", "replace")
        mark = "" if level in ("info", "debug") else f"{level}: "
        return f"lcinit: {mark}{message}\n".encode("utf-8", "replace")

    def _put(self, fd: int, line: bytes) -> None:
        try:
            for start in range(0, len(line), _LONGEST):
                if not select.select([], [fd], [], 0)[1]:
                    self.dropped += 1
                    return
                os.write(fd, line[start : start + _LONGEST])
        except (OSError, ValueError):
            self.dropped += 1


def printable(text: str) -> str:
    """The text with control and formatting characters as escapes (C0, C1, DEL, bidirectional and line separators)."""
    if text.isprintable():
        return text
    # not the codec unicode_escape: it would be imported, and in the guest root nothing may be
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_log = Log()
configure = _log.configure


def set_raw_terminal(raw: bool) -> None:
    """While the console is a terminal in raw mode, a line must bring its own carriage return."""
    _log.end = b"\r\n" if raw else b"\n"


def send_file_to(sink: Callable[[bytes], None] | None) -> None:
    """Give the log file's lines to somebody who writes them in his own time; None: the log writes them itself."""
    _log.sink = sink


def descriptor() -> int:
    """The log file's descriptor, for a fork that closes all others; -1 without one."""
    return _log.file


def debug(message: str) -> None:
    """For finding out how something went."""
    _log.write("debug", message)


def info(message: str) -> None:
    """What a user wants to see."""
    _log.write("info", message)


def warning(message: str) -> None:
    """Something is weaker than it could be."""
    _log.write("warning", message)


def error(message: str) -> None:
    """Something failed. Several lines are several records."""
    for line in message.split("\n"):
        _log.write("error", line)


def unexpected(where: str, error: BaseException | None) -> None:
    """A mistake of lcinit's own, where it was caught: one line, and life goes on."""
    _log.write("error", f"unexpected, {where}: {type(error).__name__}: {error}")


def level() -> str:
    """The lowest level that is written, a key of LEVELS."""
    return _log.level


def set_level(name: str) -> None:
    """Write what has at least this level. ValueError for a name that is not in LEVELS."""
    if name not in LEVELS:
        raise ValueError(f"no log level {name!r}: it is one of {', '.join(LEVELS)}")
    _log.level = name


def keep(count: int) -> None:
    """From now on keep the last `count` records, for those who ask later. Costs nothing before it is called."""
    import time

    from lcinit.history import History

    _log.history = History(count, time.time)


def kept() -> list[dict[str, Any]]:
    """The records kept, oldest first: {"seq", "time" (unix), "level", "message" (printable)}. Empty without `keep`."""
    return [] if _log.history is None else _log.history.since()


def restore(records: list[dict[str, Any]]) -> None:
    """Keep these too, as the older ones. Needs `keep`."""
    if _log.history is not None and records:
        _log.history.restore(records, records[-1]["seq"])


def subscribe(callback: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Call `callback` with every record from now on; the function returned ends that. Needs `keep`.

    A callback that raises is dropped. What it logs itself is told after the record that it was told.
    """
    if _log.history is None:
        raise RuntimeError("log.keep() comes first")
    return _log.history.subscribe(callback)
