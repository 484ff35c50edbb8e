"""Lines of services on a console: split, cut, escaped, counted."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.service.log_lines import (
    CUT,
    LONGEST,
    LineLimit,
    LineSplitter,
    counted,
    json_line,
    text_line,
    whole_characters,
)

CHUNKS = st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"\n\n", b"a\nb", "ä€".encode()]), max_size=20)


@given(CHUNKS)
def test_lines_do_not_depend_on_how_they_arrive(chunks: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line, cut in splitter.feed(chunk)]
    assert [*lines, splitter.rest()] == b"".join(chunks).split(b"\n")
    assert splitter.rest() == b""


@pytest.mark.row(25)
def test_a_line_that_is_too_long_is_cut_between_characters_and_marked() -> None:
    text = "€" * 100_000
    splitter = LineSplitter()
    data = text.encode()
    pieces = [piece for start in range(0, len(data), 1000) for piece in splitter.feed(data[start : start + 1000])]
    pieces += splitter.feed(b"\nnext\n")
    assert [cut for _, cut in pieces] == [True, True, True, True, False, False]
    assert "".join(piece.decode() for piece, _ in pieces[:-1]) == text
    assert all(LONGEST - 3 < len(piece) <= LONGEST for piece, cut in pieces if cut)
    assert pieces[-1] == (b"next", False)
    assert text_line("web", *pieces[0]).decode().endswith(f"€{CUT}\n")
    assert json.loads(json_line("web", *pieces[0], 1.5))["cut"] is True
    assert "cut" not in json.loads(json_line("web", *pieces[-1], 1.5))


@pytest.mark.row(25)
def test_one_of_exactly_the_greatest_length_is_whole() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"x" * LONGEST + b"\n") == [(b"x" * LONGEST, False)]


@given(st.binary(min_size=2, max_size=40), st.data())
def test_a_cut_is_never_empty_and_never_too_long(data: bytes, draw: st.DataObject) -> None:
    most = draw.draw(st.integers(1, len(data) - 1))
    assert 1 <= whole_characters(data, most) <= most


INERT = {
    "escape": (b"\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
    "carriage return": (b"one\rweb: two", r"one\rweb: two"),
    "backspace": (b"abc\b\b\b", r"abc\x08\x08\x08"),
    "delete": (b"a\x7f", r"a\x7f"),
    "C1": ("a\x9b2J\x85b".encode(), r"a\x9b2J\x85b"),
    "bidirectional": ("a\u202eb\u2066c".encode(), r"a\u202eb\u2066c"),
    "line separators": ("a\u2028b\u2029c\vd\fe".encode(), r"a\u2028b\u2029c\x0bd\x0ce"),
    "no UTF-8": (b"a\xff\xc3", r"a\xff\xc3"),
    "NUL": (b"a\0b", r"a\x00b"),
    "tab": (b"a\tb", "a\tb"),
    "text": ("grüße, 世界".encode(), "grüße, 世界"),
}


@pytest.mark.row(35)
@pytest.mark.parametrize("name", INERT)
def test_what_could_move_a_cursor_is_escaped(name: str) -> None:
    line, shown = INERT[name]
    assert text_line("web", line, False).decode() == f"web: {shown}\n"


@pytest.mark.row(35)
@given(st.binary(max_size=60), st.booleans())
def test_whatever_a_service_writes_is_one_line_with_its_prefix(line: bytes, cut: bool) -> None:
    for piece, _ in LineSplitter().feed(line + b"\n"):
        text = text_line("web", piece, cut).decode()
        assert text.startswith("web: ")
        assert text.splitlines() == [text[:-1]]
        assert re.fullmatch(r"[^\x00-\x08\x0a-\x1f\x7f-\x9f]*\n", text)
        as_json = json_line("web", piece, cut, 1790000000.25)
        assert as_json.isascii()
        assert as_json.count(b"\n") == 1
        assert json.loads(as_json)["message"] == piece.decode("utf-8", "backslashreplace")
        assert json.loads(as_json)["time"] == 1790000000.25


class Model:
    """The limit, line by line."""

    def __init__(self, burst: int, interval: float) -> None:
        self.burst, self.interval = burst, interval
        self.until = -1.0
        self.used = 0
        self.passing = True
        self.begun = False

    def judge(self, data: bytes, now: float) -> tuple[bytes, int]:
        passed, dropped = b"", 0
        if now >= self.until:
            self.until, self.used = now + self.interval, 0
        for byte in data:
            if not self.begun:
                self.passing = self.used < self.burst
                self.used += self.passing
                dropped += not self.passing
            self.begun = byte != 10
            if self.passing:
                passed += bytes([byte])
        return passed, dropped


@given(
    st.integers(0, 4),
    st.lists(
        st.tuples(st.sampled_from([b"a\n", b"b", b"\n", b"\n\n\n", b"cc\ndd\nee"]), st.integers(0, 3)), max_size=25
    ),
)
def test_a_limit_lets_whole_lines_pass_and_counts_the_others(burst: int, told: list[tuple[bytes, int]]) -> None:
    limit, model = LineLimit(burst, 5.0), Model(burst, 5.0)
    now = 0.0
    told_dropped = dropped = 0
    for data, pause in told:
        now += pause
        told_dropped += limit.take(now)
        expected, count = model.judge(data, now)
        dropped += count
        parts = limit.judge(data, now)
        assert sum(size for size, _ in parts) == len(data)
        begin, passed = 0, b""
        for size, passes in parts:
            passed += data[begin : begin + size] if passes else b""
            begin += size
        assert passed == expected
    assert told_dropped + limit.take(now + 10) == dropped


def test_what_was_dropped_is_told_once_when_the_interval_is_over() -> None:
    limit = LineLimit(2, 10.0)
    assert limit.judge(b"1\n2\n3\n4\n", 100.0) == [(4, True), (4, False)]
    assert limit.until == 110.0
    assert limit.take(109.9) == 0
    assert limit.take(110.0) == 2
    assert limit.take(110.0) == 0
    assert limit.judge(b"5\n", 110.0) == [(2, True)]
    assert limit.take(float("inf")) == 0


def test_a_line_without_end_counts_again_and_again() -> None:
    limit = LineLimit(3, 10.0)
    verdicts = [limit.judge(b"x" * LONGEST, 1.0) for _ in range(5)]
    assert verdicts == [[(LONGEST, True)]] * 3 + [[(LONGEST, False)]] * 2
    assert limit.dropped == 2


def test_numbers_are_told_in_words() -> None:
    assert (counted(0), counted(1), counted(2)) == ("0 lines", "1 line", "2 lines")
