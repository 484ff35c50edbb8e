"""How long a guest or command that ended waits for its next start."""

from __future__ import annotations

from lcinit.supervisor.backoff import FIRST, LONGEST, SETTLED, BackOff


def test_intervals_double_up_to_the_longest_and_stay_there() -> None:
    back_off = BackOff()
    waits = [back_off.next(0.1) for _ in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [back_off.next(SETTLED - 0.1) for _ in range(10_000)][-1] == LONGEST  # and no number grows for ever


def test_a_start_that_lasted_begins_again_at_the_first_interval() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.next(0)
    assert back_off.next(SETTLED) == FIRST
    assert back_off.next(0) == 2 * FIRST
