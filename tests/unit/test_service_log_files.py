"""The files of a service's log: names, the index, rotation and what an interrupted one leaves, what was planted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcinit.service import log_files
from lcinit.service.log_files import RECORD, LogFile, closing_time, name_of

NOW = 1_790_000_000_123_456_789


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files of `web` will be."""
    monkeypatch.setattr(log_files, "_PARENT", str(tmp_path / "var/log"))
    return tmp_path / "var/log/lcinit/web"


@pytest.fixture
def opened(place: Path) -> Iterator[Callable[..., LogFile]]:
    made: list[LogFile] = []

    def make(max_files: int = 4) -> LogFile:
        made.append(LogFile("web", max_files))
        return made[-1]

    yield make
    for each in made:
        each.close()


def put(file: LogFile, text: bytes, now: int) -> None:
    file.record(now)
    file.write(text)


def records(path: Path) -> list[tuple[int, int]]:
    return [(offset, moment) for offset, moment in RECORD.iter_unpack(path.read_bytes())]


def rotated(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if closing_time(path.name))


def test_names_are_in_the_order_of_time() -> None:
    moments = [0, 1, 999_999_999, 10**9, NOW, NOW + 1, log_files.LATEST - 1]
    names = [name_of(moment) for moment in moments]
    assert names == sorted(names)
    assert [closing_time(name) for name in names] == moments
    assert name_of(NOW) == "@1790000000.123456789"


@pytest.mark.parametrize(
    "name",
    [
        "current",
        "@",
        "@1790000000.123456789.times",
        "@1790000000,123456789",
        "@179000000a.123456789",
        "@٣790000000.1234567",
    ],
)
def test_other_names_are_none_of_ours(name: str) -> None:
    assert closing_time(name) is None


def test_files_and_directories_are_for_root_and_its_group(place: Path, opened: Callable[..., LogFile]) -> None:
    os.umask(0o022)
    put(opened(), b"a\n", NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (place.parent, place, *place.iterdir())}
    assert modes == {"lcinit": 0o750, "web": 0o750, "current": 0o640, "current.times": 0o640}


def test_the_index_tells_when_chunks_came_at_most_once_a_millisecond(
    place: Path, opened: Callable[..., LogFile]
) -> None:
    file = opened()
    for text, later in ((b"one\n", 0), (b"two\n", 999_999), (b"three\n", 1_000_000), (b"four\n", 500_000_000)):
        put(file, text, NOW + later)
    put(file, b"clock set back\n", NOW - 10**9)
    assert (place / "current").read_bytes() == b"one\ntwo\nthree\nfour\nclock set back\n"
    expected = [(0, NOW), (8, NOW + 1_000_000), (14, NOW + 500_000_000), (19, NOW - 10**9)]
    assert records(place / "current.times") == expected
    assert file.began == NOW


def test_what_was_to_come_and_did_not_leaves_nothing_in_the_index(place: Path, opened: Callable[..., LogFile]) -> None:
    file = opened()
    put(file, b"one\n", NOW)
    file.record(NOW + 10**9)
    put(file, b"two\n", NOW + 2 * 10**9)
    assert records(place / "current.times") == [(0, NOW), (4, NOW + 2 * 10**9)]
    assert file.fullness() == 32


def test_one_that_is_opened_again_goes_on(place: Path, opened: Callable[..., LogFile]) -> None:
    put(opened(), b"one\n", NOW)
    with open(place / "current.times", "ab") as index:
        index.write(b"torn")
    again = opened()
    assert (again.size, again.began) == (4, NOW)
    put(again, b"two\n", NOW + 1)
    assert (place / "current").read_bytes() == b"one\ntwo\n"
    assert records(place / "current.times") == [(0, NOW), (4, NOW + 1)]


def test_rotation_keeps_so_many_and_their_indexes(place: Path, opened: Callable[..., LogFile]) -> None:
    file = opened(max_files=2)
    for number in range(5):
        put(file, b"%d\n" % number, NOW + number)
        file.rotate(NOW + number)
    put(file, b"last\n", NOW + 9)
    assert rotated(place) == [name_of(NOW + 3), name_of(NOW + 4)]
    assert (place / name_of(NOW + 3)).read_bytes() == b"3\n"
    assert records(place / f"{name_of(NOW + 4)}.times") == [(0, NOW + 4)]
    assert len(list(place.iterdir())) == 6
    assert (place / "current").read_bytes() == b"last\n"


def test_no_older_file_is_kept_where_none_is_wanted(place: Path, opened: Callable[..., LogFile]) -> None:
    file = opened(max_files=0)
    put(file, b"a\n", NOW)
    file.rotate(NOW)
    assert sorted(path.name for path in place.iterdir()) == ["current", "current.times"]


def test_names_go_on_when_the_clock_goes_back(place: Path, opened: Callable[..., LogFile]) -> None:
    file = opened()
    for text, now in ((b"1\n", NOW), (b"2\n", NOW - 10**12), (b"3\n", NOW)):
        put(file, text, now)
        file.rotate(now)
    assert [(place / name).read_bytes() for name in rotated(place)] == [b"1\n", b"2\n", b"3\n"]
    assert len(rotated(place)) == 3


@pytest.mark.parametrize("failing", range(6))
def test_a_rotation_that_is_interrupted_anywhere_loses_and_doubles_nothing(
    failing: int, place: Path, opened: Callable[..., LogFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(max_files=1)
    put(file, b"oldest\n", NOW)
    file.rotate(NOW)
    put(file, b"old\n", NOW + 1)
    calls = 0

    def guarded(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > failing:
                raise OSError(errno.EIO, "interrupted")
            return real(*args, **options)

        return call

    for name in ("rename", "unlink", "open"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    with pytest.raises(OSError, match="interrupted"):
        file.rotate(NOW + 2)
    monkeypatch.undo()
    monkeypatch.setattr(log_files, "_PARENT", str(place.parent.parent))
    again = opened(max_files=1)
    put(again, b"new\n", NOW + 3)
    names = [*rotated(place), "current"]
    texts = [(place / name).read_bytes() for name in names]
    whole = b"".join(texts)
    assert whole.endswith(b"old\nnew\n")
    assert whole.removesuffix(b"old\nnew\n") in (b"", b"oldest\n")
    indexes = [records(place / f"{name}.times") for name in names]
    moments = [moment for index in indexes for _, moment in index]
    assert moments == [NOW, NOW + 1, NOW + 3][3 - len(moments) :]
    again.rotate(NOW + 4)
    left = {path.name.removesuffix(".times") for path in place.iterdir()}
    assert left == {*rotated(place), "current"}
    assert len(rotated(place)) == 1


def test_one_that_was_emptied_by_hand_begins_again_at_its_beginning(
    place: Path, opened: Callable[..., LogFile]
) -> None:
    file = opened()
    put(file, b"before\n", NOW)
    os.truncate(place / "current", 0)
    assert file.look()
    put(file, b"after\n", NOW + 5)
    assert (place / "current").read_bytes() == b"after\n"
    assert records(place / "current.times") == [(0, NOW + 5)]
    assert file.began == NOW + 5


def test_one_that_was_removed_is_noticed(place: Path, opened: Callable[..., LogFile]) -> None:
    file = opened()
    put(file, b"before\n", NOW)
    assert file.look()
    (place / "current").unlink()
    assert not file.look()


def test_it_knows_whether_it_ends_with_a_line(opened: Callable[..., LogFile]) -> None:
    file = opened()
    assert file.ends_a_line()
    put(file, b"a", NOW)
    assert not file.ends_a_line()
    put(file, b"\n", NOW)
    assert file.ends_a_line()


def test_the_index_counts_where_it_is_the_larger_one(opened: Callable[..., LogFile]) -> None:
    file = opened()
    for number in range(10):
        put(file, b"\n", NOW + number * 10**7)
    assert file.size == 10
    assert file.fullness() == 160


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "a link to a file": lambda path, canary: path.symlink_to(canary),
    "a dangling link": lambda path, canary: path.symlink_to(canary.parent / "new"),
    "another name of a file": lambda path, canary: path.hardlink_to(canary),
    "a FIFO": lambda path, _canary: os.mkfifo(path),
    "a directory": lambda path, _canary: path.mkdir(),
}


@pytest.mark.row(56)
@pytest.mark.row(24)
@pytest.mark.parametrize("name", ["current", "current.times"])
@pytest.mark.parametrize("what", PLANTED)
def test_what_was_planted_is_put_aside_and_never_written(
    what: str, name: str, place: Path, tmp_path: Path, opened: Callable[..., LogFile]
) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"sings\n")
    place.mkdir(parents=True)
    PLANTED[what](place / name, canary)
    put(opened(), b"a line\n", NOW)
    assert canary.read_bytes() == b"sings\n"
    assert not (tmp_path / "new").exists()
    assert (place / "current").read_bytes() == b"a line\n"
    assert records(place / "current.times") == [(0, NOW)]
    assert (place / f"{name}.odd").exists() or (place / f"{name}.odd").is_symlink()


@pytest.mark.row(56)
@pytest.mark.parametrize("part", ["lcinit", "lcinit/web"])
def test_a_link_in_a_directorys_place_is_not_followed(
    part: str, place: Path, tmp_path: Path, opened: Callable[..., LogFile]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "web").mkdir(parents=True)
    link = place.parent.parent / part
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"is a symbolic link, and below .* none is followed") as caught:
        opened()
    assert caught.value.errno == errno.ELOOP
    assert [path.name for path in elsewhere.rglob("*")] == ["web"]


@pytest.mark.row(56)
def test_a_directory_of_somebody_elses_is_refused(
    place: Path, opened: Callable[..., LogFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir(parents=True)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        opened()
    assert list(place.iterdir()) == []


def test_an_index_is_known_by_its_name() -> None:
    names = {"current", "current.times", "@1790000000.123456789.times", "x.times", "@1790000000.000000000"}
    assert log_files.closed_index(names) == {"@1790000000.123456789"}
