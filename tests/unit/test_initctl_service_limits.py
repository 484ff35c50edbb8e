"""The initctl service when the event loop cannot watch one descriptor more (epoll_ctl(2), ENOSPC)."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcinit.control import initctl_service
from lcinit.control.initctl import runlevel_request
from lcinit.control.initctl_service import InitctlService


class Room:
    """Stands for the kernel's room for watched descriptors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.left = True
        self._add = loop.add_reader
        monkeypatch.setattr(loop, "add_reader", self._add_reader)

    def _add_reader(self, *arguments: Any) -> None:
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._add(*arguments)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(initctl_service, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(initctl_service, "BURST", 1)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield tmp_path / "initctl"
    signal.signal(signal.SIGIO, before)


def write(place: Path) -> None:
    fd = os.open(place, os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, runlevel_request("0").pack())
    os.close(fd)


def is_there(place: Path) -> bool:
    return os.path.lexists(place)


async def test_a_loop_without_room_leaves_no_fifo_and_tries_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    room = Room(monkeypatch)
    room.left = False
    words: list[str] = []
    service = InitctlService(lambda word, _origin: words.append(word), places=[str(place)])
    await service.start()
    assert (service.place, is_there(place)) == (None, False)
    await asyncio.sleep(0.2)
    assert capfd.readouterr().err.count("No space left on device") == 1
    room.left = True
    await asyncio.sleep(0.5)
    write(place)
    await asyncio.sleep(0.05)
    assert words == ["poweroff"]
    service.close()


async def test_room_that_is_gone_after_a_pause_is_survived(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(monkeypatch)
    words: list[str] = []
    service = InitctlService(lambda word, _origin: words.append(word), places=[str(place)])
    await service.start()
    write(place)
    await asyncio.sleep(0.005)
    write(place)  # more than BURST: it pauses after this one
    await asyncio.sleep(0.005)
    room.left = False
    write(place)
    await asyncio.sleep(0.05)
    assert (service.place, is_there(place)) == (None, False)
    assert words == ["poweroff"] * 3  # the one of the pause, too
    room.left = True
    await asyncio.sleep(0.5)
    write(place)
    await asyncio.sleep(0.05)
    assert words == ["poweroff"] * 4
    service.close()
