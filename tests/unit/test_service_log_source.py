"""Bytes leave a pipe only for where they belong, also where the kernel has not all that it takes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.service import log_source
from lcinit.service.log_source import CHUNK, Glance, Source


class Piped:
    """A source and who writes to it."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self.glance = Glance()
        self.source = Source(reader, self.glance)

    def close(self) -> None:
        self.source.close()
        self.glance.close()
        if self.writer >= 0:
            os.close(self.writer)

    def end(self) -> None:
        os.close(self.writer)
        self.writer = -1


@pytest.fixture
def piped() -> Iterator[Piped]:
    made = Piped()
    yield made
    made.close()


def refuse(monkeypatch: pytest.MonkeyPatch, what: object, name: str, number: int) -> None:
    def refused(*_args: object, **_options: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(what, name, refused)


@pytest.fixture(params=["tee", "without tee"])
def may_tee(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param != "tee":
        refuse(monkeypatch, log_source, "tee", errno.ENOSYS)
    return bool(request.param == "tee")


@pytest.fixture(params=["splice", "without splice"])
def may_splice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param != "splice":
        refuse(monkeypatch, os, "splice", errno.EINVAL)
    return bool(request.param == "splice")


def test_what_is_looked_at_stays(piped: Piped, may_tee: bool) -> None:
    os.write(piped.writer, b"one\ntwo\n")
    assert piped.source.look() == b"one\ntwo\n"
    assert piped.source.look() == b"one\ntwo\n"
    assert piped.source.waiting() == 8
    assert piped.source.take() == b"one\ntwo\n"
    assert piped.source.waiting() == 0


def test_parts_of_it_go_different_ways(piped: Piped, may_tee: bool, may_splice: bool, tmp_path: Path) -> None:
    os.write(piped.writer, b"one\ntwo\nthree\nfour\n")
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    piped.source.look()
    assert piped.source.move(file, 4) == 4
    assert piped.source.skip(4) == (4, 1)
    assert piped.source.look() == b"three\nfour\n"
    moved = piped.source.move(file, 1000)
    while moved < 11:
        moved += piped.source.move(file, 1000)
    os.close(file)
    assert (tmp_path / "file").read_bytes() == b"one\nthree\nfour\n"
    assert piped.source.waiting() == 0


def test_nothing_there_is_not_the_end(piped: Piped, may_tee: bool, may_splice: bool, tmp_path: Path) -> None:
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            piped.source.look()
        with pytest.raises(BlockingIOError):
            piped.source.move(file, 10)
        with pytest.raises(BlockingIOError):
            piped.source.skip(10)
    piped.end()
    assert piped.source.look() == b""
    assert piped.source.move(file, 10) == 0
    assert piped.source.skip(10) == (0, 0)
    os.close(file)


def test_a_full_pipe_is_looked_at_as_a_whole(piped: Piped, may_tee: bool) -> None:
    data = bytes(range(256)) * (CHUNK // 256)
    os.write(piped.writer, data)
    assert piped.source.look() == data
    assert piped.source.skip(CHUNK) == (CHUNK, CHUNK // 256)


def test_a_file_that_cannot_be_written_leaves_all_in_the_pipe(piped: Piped, may_tee: bool, may_splice: bool) -> None:
    os.write(piped.writer, b"kept\n")
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        piped.source.move(full, 10)
    os.close(full)
    assert piped.source.take() == b"kept\n"
