"""What PID 1 serves beside the guest, where somebody else serves it already."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lcinit.config.values import Config
from lcinit.guest.services import Services
from lcinit.supervisor.events import EventLog


def _served(path: Path) -> list[str]:
    """What a lcinit whose control socket is to be at `path` opens: the names of what is not -1."""

    async def body() -> list[str]:
        world = SimpleNamespace(config=Config(initctl=False), control=str(path))
        services = Services(cast("Any", SimpleNamespace(world=world, events=EventLog())))
        await services.start()
        try:
            return [name for name, fd in services.descriptors().items() if fd >= 0]
        finally:
            services.close()

    return asyncio.run(body())


def test_a_second_lcinit_says_that_there_is_one_and_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lcinit" / "control"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        before = os.stat(path).st_ino
        assert _served(path) == []
        assert os.stat(path).st_ino == before
    errors = capfd.readouterr().err
    assert errors.startswith(f"lcinit: error: cannot make the control socket {path}: another lcinit serves it; ")
    assert errors.endswith("this one takes signals alone\n")
    assert len(errors.splitlines()) == 1


def test_what_stands_in_the_sockets_place_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lcinit" / "control"
    path.parent.mkdir(mode=0o700)
    path.touch()
    assert _served(path) == []
    assert capfd.readouterr().err == (
        f"lcinit: error: cannot make the control socket {path}: there is something else; remove it\n"
    )
