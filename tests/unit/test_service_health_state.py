"""What the results of health checks come to."""

from __future__ import annotations

import pytest

from lcinit.config.service_values import Health
from lcinit.service.health_state import HealthState, judge

RULES = Health(tcp=("127.0.0.1", 1), failures=3, start_period=30.0)


def history(rules: Health, *results: tuple[float, bool]) -> tuple[list[str], list[int]]:
    """The state after each of (seconds since it is up, success), and after which it became unhealthy."""
    state, words, calls = HealthState(), [], []
    for index, (began, ok) in enumerate(results):
        state, became = judge(rules, state, ok, began)
        words.append(state.word)
        if became:
            calls.append(index)
    return words, calls


def test_so_many_failures_in_a_row_make_it_unhealthy_once() -> None:
    words, calls = history(RULES, *((40 + n, False) for n in range(7)))
    assert words == ["starting", "starting", *["unhealthy"] * 5]
    assert calls == [2]


def test_a_success_in_between_begins_the_count_anew() -> None:
    words, calls = history(RULES, *((40 + n, ok) for n, ok in enumerate((False, False, True, False, False, True))))
    assert words == ["starting", "starting", "healthy", "healthy", "healthy", "healthy"]
    assert calls == []


def test_failures_of_the_start_period_do_not_count() -> None:
    words, calls = history(RULES, *((n, False) for n in (5, 10, 15, 20, 25, 29.9)))
    assert (set(words), calls) == ({"starting"}, [])
    _, calls = history(RULES, (29.9, False), (30, False), (31, False), (32, False))
    assert calls == [3]


def test_a_success_ends_the_start_period() -> None:
    _, calls = history(RULES, (1, True), (2, False), (3, False), (4, False))
    assert calls == [3]


def test_who_has_recovered_can_become_unhealthy_again() -> None:
    words, calls = history(RULES, *((n, n == 4) for n in range(1, 9)))
    assert words == ["starting", "starting", "starting", "healthy", "healthy", "healthy", "unhealthy", "unhealthy"]
    assert calls == [6]
    rules = RULES.replace(failures=1, start_period=0.0)
    words, calls = history(rules, (1, False), (2, True), (3, False), (4, False))
    assert (words, calls) == (["unhealthy", "healthy", "unhealthy", "unhealthy"], [0, 2])


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_the_number_of_failures_is_the_configured_one(failures: int) -> None:
    rules = RULES.replace(failures=failures, start_period=0.0)
    _, calls = history(rules, *((n, False) for n in range(10)))
    assert calls == [failures - 1]


def test_the_count_does_not_grow_without_end() -> None:
    state = HealthState()
    for n in range(100):
        state, _ = judge(RULES.replace(start_period=0.0), state, False, n)
    assert state.failures == 3
