"""What requests on the FIFO mean to a lcinit that supervises services: every value of initreq.h."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lcinit.control.initctl import (
    INIT_CMD_POWERFAIL,
    INIT_CMD_POWERFAILNOW,
    INIT_CMD_POWEROK,
    INIT_CMD_RUNLVL,
    INIT_CMD_SETENV,
    RUNLEVELS,
    Answer,
    InitVariables,
    Request,
    answer,
    runlevel_request,
)
from lcinit.control.initctl_service import InitctlService
from lcinit.errors import LcinitError

WORDS = {"0": "poweroff", "6": "reboot", "u": "reexec", "U": "reexec", "q": "reload", "Q": "reload"}
LEVELS = {**{level: level for level in "12345"}, "s": "S", "S": "S"}
IGNORED = {
    **dict.fromkeys("789", "no service belongs to it"),
    **dict.fromkeys("abc", "services have no on-demand entries"),
}


def test_every_runlevel_is_one_of_these() -> None:
    assert sorted([*WORDS, *LEVELS, *IGNORED]) == sorted(RUNLEVELS)


@pytest.mark.parametrize("level", list(RUNLEVELS))
def test_every_runlevel_is_a_word_a_level_or_a_remark(level: str) -> None:
    meant = answer(runlevel_request(level), InitVariables(), runlevels=True)
    assert (meant.word, meant.runlevel) == (WORDS.get(level), LEVELS.get(level))
    assert meant.remark == (f"runlevel {level} was asked for and ignored: {IGNORED[level]}" if level in IGNORED else "")


@pytest.mark.parametrize("level", list(RUNLEVELS))
def test_without_services_no_runlevel_is_gone_to_and_nothing_reloaded(level: str) -> None:
    meant = answer(runlevel_request(level), InitVariables())
    assert meant.runlevel is None
    assert meant.word != "reload"


@pytest.mark.parametrize("code", [0, 7, 10, 63, 126, 127, 128, 255, 1000, -1])
def test_a_runlevel_that_does_not_exist_is_ignored_aloud(code: int) -> None:
    meant = answer(Request(cmd=INIT_CMD_RUNLVL, runlevel=code), InitVariables(), runlevels=True)
    assert meant == Answer(remark="runlevel ? was asked for and ignored: no service belongs to it")


@pytest.mark.parametrize("cmd", [0, INIT_CMD_POWERFAIL, INIT_CMD_POWERFAILNOW, INIT_CMD_POWEROK, 5, 7, 99, -1])
def test_every_other_command_is_what_it_is_without_services(cmd: int) -> None:
    request = Request(cmd=cmd, runlevel=ord("3"))
    assert answer(request, InitVariables(), runlevels=True) == answer(request, InitVariables())


def test_halt_is_still_told_from_poweroff() -> None:
    variables = InitVariables()
    answer(Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=HALT"), variables, runlevels=True)
    assert answer(runlevel_request("0"), variables, runlevels=True).word == "halt"


async def test_the_service_calls_for_each_what_it_means(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    called: list[tuple[str, str, str]] = []

    def runlevel(level: str, origin: str) -> None:
        called.append(("runlevel", level, origin))
        if level == "4":
            raise LcinitError("it is stopping")

    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    service = InitctlService(
        lambda word, origin: called.append(("request", word, origin)),
        places=[str(tmp_path / "initctl")],
        runlevel=runlevel,
    )
    await service.start()
    try:
        fd = os.open(tmp_path / "initctl", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"".join(runlevel_request(level).pack() for level in "34sqa0"))
        os.close(fd)
        for _ in range(500):
            if service.taken == 6:
                break
            await asyncio.sleep(0.01)
    finally:
        service.close()
        signal.signal(signal.SIGIO, before)
    assert called == [
        ("runlevel", "3", "initctl"),
        ("runlevel", "4", "initctl"),
        ("runlevel", "S", "initctl"),
        ("request", "reload", "initctl"),
        ("request", "poweroff", "initctl"),
    ]
    said = capfd.readouterr().err
    assert "initctl: it is stopping" in said
    assert "runlevel a was asked for and ignored" in said
