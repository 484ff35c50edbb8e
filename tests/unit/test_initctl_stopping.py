"""When the signal of a stop request is sent: time is an argument, and PID 1 a function."""

import itertools
from collections.abc import Callable

import pytest

from lcinit.control.stopping import LAST_LOOK, PATIENCE, REPEATS, SEND_INTERVAL, StopRequests, listens

SIGNALS = {"poweroff": 38, "reboot": 39}


def always(_: float) -> bool:
    return True


def never(_: float) -> bool:
    return False


def hears_at(now: float, hears: Callable[[float], object]) -> Callable[[int], bool]:
    return lambda _: bool(hears(now))


def run(
    stop: StopRequests, hears: Callable[[float], object], end: float, start: float = 0.0
) -> list[tuple[float, int]]:
    """Step at every due time until nothing is due or `end`; what was sent and when."""
    sent = []
    while stop.due is not None and stop.due <= end:
        now = max(start, stop.due)
        number = stop.step(now, hears_at(now, hears))
        if number is not None:
            sent.append((now, number))
    return sent


def test_a_listening_init_is_sent_one_signal_at_once() -> None:
    stop = StopRequests(SIGNALS)
    assert stop.ask("reboot", 5.0)
    assert run(stop, always, 100, 5.0) == [(5.0, 39)]
    assert stop.due is None
    assert not stop.unheard


def test_nothing_is_sent_before_due_or_without_a_request() -> None:
    stop = StopRequests(SIGNALS)
    assert stop.step(1.0, always) is None
    stop.ask("poweroff", 1.0)
    assert stop.step(0.5, always) is None


def test_a_word_without_a_signal_is_not_taken() -> None:
    stop = StopRequests(SIGNALS)
    assert not stop.ask("halt", 0.0)
    assert stop.due is None


@pytest.mark.parametrize("after", [0.003, 0.2, 3.0])
def test_a_request_waits_until_there_is_a_handler(after: float) -> None:
    stop = StopRequests(SIGNALS)
    stop.ask("poweroff", 0.0)
    ((when, number),) = run(stop, lambda now: now >= after, 100)
    assert number == 38
    assert after <= when <= after * 2 + LAST_LOOK


def test_a_deaf_init_is_looked_at_seldom_and_sent_the_signal_in_the_end() -> None:
    stop = StopRequests(SIGNALS)
    stop.ask("poweroff", 0.0)
    looks: list[float] = []
    ((when, number),) = run(stop, looks.append, 100)
    assert (number, stop.unheard) == (38, True)
    assert PATIENCE <= when <= PATIENCE + LAST_LOOK
    assert len(looks) < PATIENCE / LAST_LOOK + 10
    assert stop.due is None


def test_an_init_that_shows_nothing_is_sent_it_again_and_not_for_ever() -> None:
    stop = StopRequests(SIGNALS, repeat=True)
    stop.ask("reboot", 0.0)
    sent = run(stop, never, 1000)
    assert [number for _, number in sent] == [39] * (len(REPEATS) + 1)
    assert sent[0][0] == 0.0
    assert stop.due is None


def test_the_latest_word_wins_and_repeating_it_changes_nothing() -> None:
    stop = StopRequests(SIGNALS)
    stop.ask("poweroff", 0.0)
    stop.ask("reboot", 0.001)
    for tenth in range(20):
        stop.ask("reboot", 0.001 + tenth / 10)
    ((_, number),) = run(stop, lambda now: now > 2, 100)
    assert number == 39


def test_signals_are_never_sent_faster_than_one_a_second() -> None:
    """Seven SIGINTs within two seconds make systemd reboot at once."""
    stop = StopRequests(SIGNALS)
    sent: list[float] = []
    for tick in range(500):
        now = tick / 100
        stop.ask("poweroff" if tick % 2 else "reboot", now)
        if stop.step(now, always) is not None:
            sent.append(now)
    assert len(sent) == 5
    assert all(later - earlier >= SEND_INTERVAL for earlier, later in itertools.pairwise(sent))


STATUS = "Name:\tinit\nSigQ:\t0/1\nSigPnd:\t{0}\nSigBlk:\t{1}\nSigIgn:\t{2}\nSigCgt:\t{3}\n"


@pytest.mark.parametrize(
    ("pending", "blocked", "ignored", "caught", "expected"),
    [
        (0, 0, 0, 0, False),
        (0, 1 << 37, 0, 0, True),
        (0, 0, 0, 1 << 37, True),
        (1 << 37, 0, 1 << 37, 0, False),
        (0, 1 << 36, 0, 1 << 38, False),
    ],
)
def test_listening_is_a_handler_or_a_block(
    pending: int, blocked: int, ignored: int, caught: int, expected: bool
) -> None:
    assert listens(STATUS.format(*(f"{mask:016x}" for mask in (pending, blocked, ignored, caught))), 38) is expected
