"""Waiting for those that were killed, with directories in the place of a hierarchy."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from lcinit.config.service_values import CgroupLimits
from lcinit.service import emptying
from lcinit.service.cgroups import Cgroups
from lcinit.service.emptying import Emptying, emptied


def populate(tmp_path: Path, name: str, how: str) -> None:
    """`how` is 1, 0, or "unreadable": a directory where the kernel would have a file."""
    place = tmp_path / f"{name}.service" / "cgroup.events"
    if place.exists():
        place.unlink()
    if how == "unreadable":
        place.mkdir()
    else:
        place.write_text(f"populated {how}\nfrozen 0\n")


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    """Of the services a, b and c, which were killed and are not empty yet."""
    made = Cgroups(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
    for name in "abc":
        made.make(name, CgroupLimits())
        populate(tmp_path, name, "1")
        (tmp_path / f"{name}.service" / "cgroup.kill").write_text("")
        assert made.kill(name)
    return made


async def test_the_end_waits_until_all_are_empty(cgroups: Cgroups, tmp_path: Path) -> None:
    waiting = asyncio.ensure_future(emptied(cgroups, 5))
    for name in "bca":
        await asyncio.sleep(0.01)
        assert not waiting.done()
        populate(tmp_path, name, "0")
    await asyncio.wait_for(waiting, 1)


async def test_it_does_not_wait_longer_than_it_is_told(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = cgroups.emptying
    monkeypatch.setattr(cgroups, "emptying", lambda name: time.sleep(0.02) or slow(name))
    begun = time.monotonic()
    await emptied(cgroups, 0.1)
    assert 0.1 <= time.monotonic() - begun < 0.5


async def test_what_cannot_be_read_is_not_waited_for(cgroups: Cgroups, tmp_path: Path) -> None:
    waiting = asyncio.ensure_future(emptied(cgroups, 5))
    done: list[str] = []
    Emptying(cgroups, "b").then(lambda: done.append("b"))
    await asyncio.sleep(0.01)
    assert (waiting.done(), done) == (False, [])
    for name in "abc":
        populate(tmp_path, name, "unreadable")
    await asyncio.wait_for(waiting, 1)
    await asyncio.sleep(0.05)
    assert done == ["b"]


async def test_one_that_does_not_empty_is_given_up(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptying, "PATIENCE", 0.05)
    slow = cgroups.emptying
    monkeypatch.setattr(cgroups, "emptying", lambda name: time.sleep(0.01) or slow(name))
    done: list[float] = []
    begun = time.monotonic()
    one = Emptying(cgroups, "a")
    one.then(lambda: done.append(time.monotonic() - begun))
    assert one.pending
    await asyncio.sleep(0.3)
    assert not one.pending
    assert 0.05 <= done[0] < 0.25


async def test_one_that_is_forgotten_does_nothing(cgroups: Cgroups, tmp_path: Path) -> None:
    done: list[str] = []
    one = Emptying(cgroups, "a")
    one.then(lambda: done.append("a"))
    one.forget()
    populate(tmp_path, "a", "0")
    await asyncio.sleep(0.02)
    assert (done, one.pending) == ([], False)
