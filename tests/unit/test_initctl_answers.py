"""What every request of initreq.h means to a supervising lcinit, and how much of it is said."""

import pytest

from lcinit.control.initctl import (
    INIT_CMD_BSD,
    INIT_CMD_POWERFAIL,
    INIT_CMD_POWERFAILNOW,
    INIT_CMD_POWEROK,
    INIT_CMD_RUNLVL,
    INIT_CMD_SETENV,
    INIT_CMD_START,
    INIT_CMD_UNSETENV,
    RUNLEVELS,
    InitVariables,
    Request,
    answer,
    runlevel_request,
)
from lcinit.control.ratelimit import RateLimit

WORDS = {"0": "poweroff", "6": "reboot", "u": "reexec", "U": "reexec"}


@pytest.mark.parametrize("level", list(RUNLEVELS))
def test_every_runlevel_is_a_word_or_a_remark(level: str) -> None:
    meant = answer(runlevel_request(level), InitVariables())
    assert meant.word == WORDS.get(level)
    assert ("runlevels belong to services" in meant.remark) == (level not in WORDS)


def test_a_runlevel_that_does_not_exist_is_ignored_aloud() -> None:
    meant = answer(Request(cmd=INIT_CMD_RUNLVL, runlevel=7), InitVariables())
    assert meant.word is None
    assert "runlevel ?" in meant.remark


@pytest.mark.parametrize(
    ("cmd", "word", "remark"),
    [
        (INIT_CMD_POWERFAIL, "poweroff", "failing"),
        (INIT_CMD_POWERFAILNOW, "poweroff", "failing"),
        (INIT_CMD_POWEROK, None, "back"),
        (INIT_CMD_START, None, "request 0"),
        (INIT_CMD_BSD, None, "request 5"),
        (99, None, "request 99"),
        (-1, None, "request -1"),
    ],
)
def test_every_other_command_is_answered(cmd: int, word: str | None, remark: str) -> None:
    meant = answer(Request(cmd=cmd, runlevel=ord("6")), InitVariables())
    assert meant.word == word
    assert remark in meant.remark


def test_halt_is_runlevel_0_after_init_halt_was_set_and_until_it_is_unset() -> None:
    variables = InitVariables()
    words = []
    for cmd in (INIT_CMD_SETENV, INIT_CMD_UNSETENV):
        meant = answer(Request(cmd=cmd, data=b"INIT_HALT=HALT"), variables)
        assert (meant.word, meant.remark) == (None, "")
        words.append(answer(runlevel_request("0"), variables).word)
    assert words == ["halt", "poweroff"]


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    limit = RateLimit(burst=3, every=10)
    assert [limit.take(0) for _ in range(5)] == [True, True, True, False, False]
    assert limit.left_out() == 2
    assert limit.left_out() == 0
    assert [limit.take(now) for now in (9.9, 10, 10.1, 25, 30)] == [False, True, False, True, True]


def test_a_long_silence_makes_room_for_no_more_than_a_burst() -> None:
    limit = RateLimit(burst=2, every=1)
    assert limit.take(0)
    assert [limit.take(1000) for _ in range(3)] == [True, True, False]
