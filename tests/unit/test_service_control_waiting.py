"""A result to come: told once, to all who still wait, and nobody who waits can harm the one who works."""

from __future__ import annotations

import pytest

from lcinit.control.waiting import Waiting


def test_all_who_wait_are_told_once() -> None:
    waiting, told = Waiting(), []
    for who in "ab":
        waiting.subscribe(lambda who=who: told.append((who, waiting.result)))  # type: ignore[misc]
    assert (waiting.done, waiting.result, told) == (False, None, [])
    waiting.finish({"done": []})
    assert (waiting.done, waiting.result, waiting.error) == (True, {"done": []}, None)
    assert told == [("a", {"done": []}), ("b", {"done": []})]


def test_who_comes_late_is_told_at_once() -> None:
    waiting, told = Waiting(), []
    error = OSError("no")
    waiting.fail(error)
    unsubscribe = waiting.subscribe(lambda: told.append(waiting.error))
    assert told == [error]
    unsubscribe()


def test_who_has_left_is_not_told_and_the_last_one_is_missed() -> None:
    abandoned: list[int] = []
    told: list[str] = []
    waiting = Waiting(lambda: abandoned.append(1))
    first = waiting.subscribe(lambda: told.append("first"))
    second = waiting.subscribe(lambda: told.append("second"))
    first()
    first()
    assert abandoned == []
    second()
    assert abandoned == [1]
    waiting.finish({})
    assert (told, abandoned) == ([], [1])


def test_leaving_after_the_end_abandons_nothing() -> None:
    abandoned: list[int] = []
    waiting = Waiting(lambda: abandoned.append(1))
    leave = waiting.subscribe(lambda: None)
    waiting.finish({})
    leave()
    assert abandoned == []


def test_the_same_callback_may_wait_twice_and_leave_once() -> None:
    waiting, told = Waiting(), []

    def callback() -> None:
        told.append(1)

    waiting.subscribe(callback)
    waiting.subscribe(callback)()
    waiting.finish({})
    assert told == [1]


def test_a_listener_that_fails_harms_neither_the_others_nor_the_worker(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    waiting, told = Waiting(broken), []
    waiting.subscribe(broken)
    waiting.subscribe(lambda: told.append(1))
    waiting.finish({})
    assert told == [1]
    Waiting(broken).subscribe(broken)()
    assert capfd.readouterr().err.count("unexpected, one that waited: ZeroDivisionError: a bug") == 2


def test_it_ends_once() -> None:
    waiting = Waiting()
    waiting.finish({})
    with pytest.raises(RuntimeError, match="done already"):
        waiting.fail(OSError())
    assert waiting.error is None
