"""What becomes of services' output on a console: lines with a prefix or JSON, escaped, cut, and not too many. Pure.

The bytes are a hostile guest's: nothing of them may move a cursor, or pass for a line of somebody else's.
"""

from __future__ import annotations

from _json import encode_basestring_ascii  # json itself would import re and enum

LONGEST = 64 * 1024  # bytes of a line; what is longer is cut into pieces
CUT = " [lcinit: cut]"
"""Stands at the end of a piece that is not the line's last."""


class LineSplitter:
    """Lines out of chunks that end anywhere. Holds at most one piece of a line."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The lines that are complete now, without their ends; true for a piece of one that goes on."""
        lines: list[tuple[bytes, bool]] = []
        *complete, rest = data.split(b"\n")
        begun = self._begun
        for line in complete:
            begun += line
            self._cut(lines)
            lines.append((bytes(begun), False))
            begun.clear()
        begun += rest
        self._cut(lines)
        return lines

    def _cut(self, lines: list[tuple[bytes, bool]]) -> None:
        while len(self._begun) > LONGEST:
            end = whole_characters(self._begun, LONGEST)
            lines.append((bytes(self._begun[:end]), True))
            del self._begun[:end]

    def rest(self) -> bytes:
        """The beginning of a line whose end has not come; forgotten from now on."""
        rest = bytes(self._begun)
        self._begun.clear()
        return rest


def whole_characters(data: bytes | bytearray, most: int) -> int:
    """How many bytes, at most `most`, end with a whole UTF-8 character."""
    for end in range(most, max(most - 4, 0), -1):
        if data[end] & 0xC0 != 0x80:  # the next byte begins a character
            return end
    return most


def escaped(text: str) -> str:
    """The text with control and formatting characters as escapes (C0, C1, DEL, CR, bidirectional), tabs as they are."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)


def decoded(line: bytes) -> str:
    """A line as text; bytes that are no UTF-8 as escapes."""
    return line.decode("utf-8", "backslashreplace")


def text_line(name: str, line: bytes, cut: bool) -> bytes:
    """`NAME: line`, and nothing in it that ends a line."""
    return f"{name}: {escaped(decoded(line))}{CUT if cut else ''}\n".encode("utf-8", "backslashreplace")


def json_line(name: str, line: bytes, cut: bool, now: float) -> bytes:
    """One JSON object in ASCII. `now` is the unix time."""
    service, message = encode_basestring_ascii(name), encode_basestring_ascii(decoded(line))
    mark = ', "cut": true' if cut else ""
    return f'{{"time": {now:.6f}, "service": {service}, "message": {message}{mark}}}\n'.encode("ascii")


def counted(lines: int) -> str:
    """`1 line`, `2 lines`."""
    return "1 line" if lines == 1 else f"{lines} lines"


class LineLimit:
    """Lets `burst` lines pass in `interval` seconds, from the first on; the others are counted.

    A line is judged where it begins. One that does not end counts again for every LONGEST bytes.
    """

    __slots__ = ("_burst", "_inside", "_interval", "_length", "_passing", "_used", "dropped", "until")

    def __init__(self, burst: int, interval: float) -> None:
        self.dropped = 0  # lines, since `take` told of them
        self.until: float | None = None  # when the interval is over
        self._burst = burst
        self._interval = interval
        self._used = 0
        self._inside = False  # a line has begun, and its end has not come
        self._passing = True  # whether that one may pass
        self._length = 0  # of it, so far

    def judge(self, data: bytes, now: float) -> list[tuple[int, bool]]:
        """How many bytes pass or do not, in their order. `now` is in seconds, from a clock that never goes back."""
        if self.until is None or now >= self.until:
            self.until = now + self._interval
            self._used = 0
        parts: list[tuple[int, bool]] = []
        begin = 0
        if self._inside:
            begin = data.find(b"\n") + 1 or len(data)
            parts.append((begin, self._passing))
            self._length += begin
        if begin < len(data):
            parts += self._judge_lines(data, begin)
            self._length = len(data) - (data.rfind(b"\n") + 1)
        self._inside = data[-1:] != b"\n" and self._length < LONGEST
        return parts

    def _judge_lines(self, data: bytes, begin: int) -> list[tuple[int, bool]]:
        """From the beginning of a line on."""
        count = data.count(b"\n", begin) + (data[-1:] != b"\n")
        room = self._burst - self._used
        self._passing = count <= room
        if self._passing:
            self._used += count
            return [(len(data) - begin, True)]
        self._used = self._burst
        self.dropped += count - room
        end = begin
        for _ in range(room):
            end = data.find(b"\n", end) + 1
        parts = [(end - begin, True), (len(data) - end, False)]
        return parts if end > begin else parts[1:]

    def take(self, now: float) -> int:
        """How many lines were dropped, once their interval is over; 0 before."""
        if not self.dropped or self.until is None or now < self.until:
            return 0
        count, self.dropped = self.dropped, 0
        return count
