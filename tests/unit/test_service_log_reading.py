"""What a service's files say, from any place on and as they grow, across rotations."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcinit.service import log_files
from lcinit.service.log_files import RECORD, LogFile
from lcinit.service.log_lines import LONGEST
from lcinit.tools import log_reading
from lcinit.tools.log_reading import ServiceLog
from tests.unit.test_service_log_files import PLANTED

SECOND = 10**9
NOW = 1_790_000_000 * SECOND


class Written:
    """A root with the files of one service, and who reads them."""

    def __init__(self, root: str, name: str = "web") -> None:
        self.root = root
        self.directory = f"{root}/var/log/lcinit/{name}"
        self.now = NOW
        parent, log_files._PARENT = log_files._PARENT, f"{root}/var/log"
        try:
            self.file = LogFile(name, 3)
        finally:
            log_files._PARENT = parent
        self.handle = os.open(root, os.O_PATH)
        self.logs: list[ServiceLog] = []

    def put(self, text: bytes, later: int = SECOND) -> None:
        self.now += later
        self.file.record(self.now)
        self.file.write(text)

    def rotate(self) -> None:
        self.file.rotate(self.now)

    def read(self) -> ServiceLog:
        self.logs.append(ServiceLog(self.handle, "web"))
        return self.logs[-1]

    def close(self) -> None:
        for log in self.logs:
            log.close()
        self.file.close()
        os.close(self.handle)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(str(tmp_path))
    yield made
    made.close()


def texts(lines: Iterator[tuple[int, bytes, bool]]) -> list[bytes]:
    return [line for _, line, _ in lines]


def three_files(written: Written) -> None:
    """Lines 0 to 8, one a second, three in each file."""
    for number in range(9):
        written.put(b"%d\n" % number)
        if number in (2, 5):
            written.rotate()


def test_lines_come_from_all_files_with_their_times(written: Written) -> None:
    three_files(written)
    log = written.read()
    assert list(log.lines(log.begin())) == [(NOW + (n + 1) * SECOND, b"%d" % n, False) for n in range(9)]


@pytest.mark.parametrize("count", range(12))
def test_the_last_lines_are_found_across_files(count: int, written: Written) -> None:
    three_files(written)
    log = written.read()
    assert texts(log.lines(log.last(count))) == [b"%d" % n for n in range(9)][max(0, 9 - count) :]


def test_a_last_line_without_end_counts(written: Written) -> None:
    three_files(written)
    written.put(b"no end")
    log = written.read()
    assert texts(log.lines(log.last(2))) == [b"8", b"no end"]


def test_the_last_lines_are_found_from_the_end(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        written.put(b"%0999d\n" % number * 100)
    log = written.read()
    read = 0
    real = log_reading.Part.read

    def counted(part: log_reading.Part, offset: int, most: int = log_reading.BLOCK) -> bytes:
        nonlocal read
        data = real(part, offset, most)
        read += len(data)
        return data

    monkeypatch.setattr(log_reading.Part, "read", counted)
    assert texts(log.lines(log.last(150))) == [b"%0999d" % 198] * 50 + [b"%0999d" % 199] * 100
    assert read < 600_000


@pytest.mark.parametrize("back", [-1, 0, *range(1, 11)])
def test_lines_since_a_moment(back: int, written: Written) -> None:
    three_files(written)
    log = written.read()
    moment = written.now - back * SECOND
    expected = [n for n in range(9) if NOW + (n + 1) * SECOND >= moment]
    assert texts(log.lines(log.since(moment))) == [b"%d" % n for n in expected]


def test_a_line_belongs_to_the_moment_in_which_it_begins(written: Written) -> None:
    written.put(b"one\nbegun ")
    written.put(b"earlier\ntwo\nthree\n")
    log = written.read()
    assert [(moment - NOW) // SECOND for moment, _, _ in log.lines(log.begin())] == [1, 1, 2, 2]
    assert texts(log.lines(log.since(NOW + 2 * SECOND))) == [b"two", b"three"]


def test_a_line_that_goes_on_in_the_next_file_is_one(written: Written) -> None:
    written.put(b"a\nbegun ")
    written.rotate()
    written.put(b"and ended\nb\n")
    log = written.read()
    assert texts(log.lines(log.begin())) == [b"a", b"begun and ended", b"b"]
    assert texts(log.lines(log.last(2))) == [b"begun and ended", b"b"]


@pytest.mark.row(25)
def test_a_line_without_end_comes_in_marked_pieces(written: Written) -> None:
    written.put(b"x" * (3 * LONGEST) + b"\nnext\n")
    log = written.read()
    assert [(len(line), cut) for _, line, cut in log.lines(log.begin())] == [
        *[(LONGEST, True)] * 2,
        (LONGEST, False),
        (4, False),
    ]


def test_without_an_index_the_file_tells_its_time(written: Written) -> None:
    three_files(written)
    for path in Path(written.directory).glob("*.times"):
        path.unlink()
    log = written.read()
    moments = [moment for moment, _, _ in log.lines(log.begin())]
    assert moments[:6] == [NOW + 3 * SECOND] * 3 + [NOW + 6 * SECOND] * 3
    assert moments[8] == os.stat(f"{written.directory}/current").st_mtime_ns
    assert len(texts(log.lines(log.since(NOW + 5 * SECOND)))) == 6


def test_an_index_that_says_anything_at_all_is_borne(written: Written) -> None:
    three_files(written)
    for path in Path(written.directory).glob("*.times"):
        path.write_bytes(b"".join(RECORD.pack(2**64 - 1 - n * 7, 2**64 - 1) for n in range(50)) + b"\xff" * 5)
    log = written.read()
    assert texts(log.lines(log.begin())) == [b"%d" % n for n in range(9)]
    assert set(texts(log.lines(log.since(NOW)))) <= {b"%d" % n for n in range(9)}


def test_what_comes_is_told_once_across_rotations(written: Written) -> None:
    written.put(b"before\nbegun ")
    log = written.read()
    assert texts(log.lines(log.begin(), follows=True)) == [b"before"]
    assert texts(log.news()) == []
    written.put(b"and ended\n")
    assert list(log.news()) == [(NOW + SECOND, b"begun and ended", False)]
    for number in range(3):
        written.put(b"old %d\n" % number)
        written.rotate()
        written.put(b"new %d\n" % number)
    assert list(log.news()) == [
        (NOW + 3 * SECOND, b"old 0", False),
        (NOW + 4 * SECOND, b"new 0", False),
        (NOW + 5 * SECOND, b"old 1", False),
        (NOW + 6 * SECOND, b"new 1", False),
        (NOW + 7 * SECOND, b"old 2", False),
        (NOW + 8 * SECOND, b"new 2", False),
    ]
    assert texts(log.news()) == []


def test_a_file_that_is_gone_before_it_was_read_to_its_end_is_still_read(written: Written) -> None:
    log = written.read()
    assert texts(log.lines(log.begin(), follows=True)) == []
    written.put(b"first\n")
    for number in range(5):
        written.rotate()
        written.put(b"%d\n" % number)
    assert texts(log.news()) == [b"first", b"1", b"2", b"3", b"4"]  # 0 was removed with its file


def test_one_that_was_emptied_is_followed_from_its_beginning(written: Written) -> None:
    written.put(b"a long line before\n")
    log = written.read()
    assert texts(log.lines(log.end(), follows=True)) == []
    os.truncate(f"{written.directory}/current", 0)
    assert written.file.look()
    written.put(b"after\n")
    assert texts(log.news()) == [b"after"]


OPERATIONS = st.lists(
    st.sampled_from(["rotate", "news"]) | st.sampled_from([b"a\n", b"b", b"\n", b"cc\ndd\n", b"e\nf"]), max_size=30
)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS, st.integers(0, 30))
def test_nobody_who_follows_misses_or_repeats_anything(operations: list[str | bytes], start: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        written = Written(root)
        written.file.max_files = 100
        log: ServiceLog | None = None
        seen: list[bytes] = []
        whole = b""
        for number, operation in enumerate([*operations, "news"]):
            if log is None and number >= min(start, len(operations)):
                log = written.read()
                seen += texts(log.lines(log.begin(), follows=True))
            if isinstance(operation, bytes):
                written.put(operation, 1)
                whole += operation
            elif operation == "rotate":
                written.rotate()
            elif log is not None:
                seen += texts(log.news())
        assert seen == whole.split(b"\n")[:-1]
        again = written.read()
        assert texts(again.lines(again.begin())) == whole.removesuffix(b"\n").split(b"\n") if whole else True
        for count in range(whole.count(b"\n") + 1):
            expected = texts(again.lines(again.begin()))[-count:] if count else []
            assert texts(again.lines(again.last(count))) == expected
        written.close()


@pytest.mark.row(24)
@pytest.mark.parametrize("what", PLANTED)
def test_what_is_no_plain_file_is_not_read(what: str, written: Written, tmp_path: Path) -> None:
    three_files(written)
    canary = tmp_path / "canary"
    canary.write_bytes(b"secret\n")
    oldest = min(path for path in Path(written.directory).glob("@*") if not path.name.endswith(".times"))
    oldest.unlink()
    PLANTED[what](oldest, canary)
    log = written.read()
    lines = texts(log.lines(log.begin()))
    if what == "another name of a file":  # nothing tells it from one of lcinit's own, but for those who may read both
        assert lines[0] == b"secret"
    else:
        assert lines == [b"%d" % n for n in range(3, 9)]
        assert log.odd == [oldest.name]


LINKS: dict[str, Callable[[Path], object]] = {
    "var/log": lambda elsewhere: elsewhere,
    "var/log/lcinit": lambda elsewhere: elsewhere / "lcinit",
    "var/log/lcinit/web": lambda elsewhere: elsewhere / "lcinit/web",
}


@pytest.mark.parametrize("part", LINKS)
def test_no_link_leads_out_of_the_root(part: str, tmp_path: Path) -> None:
    outside = Written(str(tmp_path / "outside"))
    outside.put(b"secret\n")
    link = tmp_path / "inside" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(str(LINKS[part](tmp_path / "outside/var/log")))
    root = os.open(tmp_path / "inside", os.O_PATH)
    with pytest.raises(OSError, match=r"Too many levels|No such file"):
        ServiceLog(root, "web")
    os.close(root)
    outside.close()


def test_the_way_to_var_log_may_be_a_link_inside_the_root(tmp_path: Path) -> None:
    written = Written(str(tmp_path))
    written.put(b"a\n")
    (tmp_path / "var/log").rename(tmp_path / "data")
    (tmp_path / "var/log").symlink_to("/data")
    log = written.read()
    assert texts(log.lines(log.begin())) == [b"a"]
    written.close()


def before_first(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, happens: Callable[[], object], *, where: str = ""
) -> None:
    """Something happens just before a function is called for the first time (with `where` as its first argument)."""
    real, done = getattr(owner, name), False

    def call(*args: object, **options: object) -> object:
        nonlocal done
        if not done and (not where or where in args):
            done = True
            happens()
        return real(*args, **options)

    monkeypatch.setattr(owner, name, call)


def test_a_rotation_while_the_files_are_listed_is_no_part_of_what_there_was(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.put(b"a\n")

    def happens() -> None:
        written.rotate()
        written.put(b"b\n")

    before_first(monkeypatch, log_reading, "older_names", happens)
    log = written.read()
    assert texts(log.lines(log.begin(), follows=True)) == [b"a"]
    assert texts(log.news()) == [b"b"]


def test_a_rotation_between_file_and_index_is_noticed(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    written.put(b"a\n")

    def happens() -> None:
        written.rotate()
        written.put(b"b\n")

    before_first(monkeypatch, ServiceLog, "_open_plain", happens, where="current.times")
    log = written.read()
    assert list(log.lines(log.begin())) == [(NOW + SECOND, b"a", False), (NOW + 2 * SECOND, b"b", False)]


def test_a_rotation_that_is_half_done_is_waited_for(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    written.put(b"a\n")
    index = f"{written.directory}/current.times"
    os.rename(index, f"{index}.new")
    before_first(monkeypatch, log_reading.time, "sleep", lambda: os.rename(f"{index}.new", index))
    log = written.read()
    assert list(log.lines(log.begin())) == [(NOW + SECOND, b"a", False)]


def test_what_is_written_just_before_a_rotation_is_not_missed(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = written.read()
    assert texts(log.lines(log.begin(), follows=True)) == []
    written.put(b"a\n")

    def happens() -> None:
        written.put(b"late\n")
        written.rotate()
        written.put(b"b\n")

    before_first(monkeypatch, os, "stat", happens, where="current")
    assert texts(log.news()) == [b"a", b"late", b"b"]


def test_a_rotation_in_the_middle_of_following_one_repeats_nothing(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.put(b"a\n")
    log = written.read()
    assert texts(log.lines(log.begin(), follows=True)) == [b"a"]
    written.rotate()
    written.put(b"b\n")

    def happens() -> None:
        written.rotate()
        written.put(b"c\n")

    before_first(monkeypatch, log_reading, "older_names", happens)
    assert texts(log.news()) == [b"b"]
    assert texts(log.news()) == [b"c"]


@pytest.mark.row(24)
def test_a_fifo_is_not_even_opened(written: Written) -> None:
    written.put(b"a\n")
    os.unlink(f"{written.directory}/current")
    os.mkfifo(f"{written.directory}/current")
    opened: list[int] = []
    waits = threading.Thread(target=lambda: opened.append(os.open(f"{written.directory}/current", os.O_WRONLY)))
    waits.start()
    time.sleep(0.05)
    log = written.read()
    assert texts(log.lines(log.begin())) == []
    time.sleep(0.05)
    assert waits.is_alive(), "somebody has opened it for reading"
    os.close(os.open(f"{written.directory}/current", os.O_RDONLY | os.O_NONBLOCK))
    waits.join()
    os.close(opened[0])
