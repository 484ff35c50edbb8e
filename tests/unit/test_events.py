"""The events' and the log's memory: numbered, bounded, told to listeners, and safe from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lcinit import log
from lcinit.history import History
from lcinit.supervisor.events import EventLog


@pytest.fixture
def kept_log(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    monkeypatch.setattr(log._log, "history", None)
    monkeypatch.setattr(log._log, "level", "info")
    log.keep(3)
    yield


def _clock() -> float:
    return 1000.25


def test_events_are_numbered_dated_and_bounded() -> None:
    events = EventLog(capacity=2, clock=_clock)
    for status in range(3):
        events.record("guest-ended", status=status)
    assert events.history() == [
        {"seq": 2, "time": 1000.25, "kind": "guest-ended", "status": 1},
        {"seq": 3, "time": 1000.25, "kind": "guest-ended", "status": 2},
    ]
    assert [event["seq"] for event in events.history(after=2)] == [3]
    assert events.last == 3


def test_a_fact_cannot_forge_number_or_time() -> None:
    events = EventLog(clock=_clock)
    events.record("frozen", seq=99, time=0)
    assert events.history() == [{"seq": 1, "time": 1000.25, "kind": "frozen"}]


def test_listeners_hear_until_they_end_it() -> None:
    events = EventLog(clock=_clock)
    heard: list[str] = []
    end = events.subscribe(lambda event: heard.append(event["kind"]))
    events.record("frozen")
    end()
    end()
    events.record("thawed")
    assert heard == ["frozen"]


def test_the_same_callback_twice_is_two_listeners() -> None:
    events = EventLog(clock=_clock)
    heard: list[int] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event["seq"])

    first, _second = events.subscribe(hear), events.subscribe(hear)
    first()
    events.record("frozen")
    assert heard == [1]


def test_a_listener_that_fails_is_dropped_and_logged(kept_log: None) -> None:
    events = EventLog(clock=_clock)
    heard: list[int] = []

    def fails(_event: dict[str, Any]) -> None:
        raise ValueError("no")

    events.subscribe(fails)
    events.subscribe(lambda event: heard.append(event["seq"]))
    events.record("frozen")
    events.record("thawed")
    assert heard == [1, 2]
    assert [entry["message"] for entry in log.kept()] == ["a listener failed and hears no more: ValueError: no"]


def test_a_listener_may_end_another_and_itself() -> None:
    history = History(5, _clock)
    heard: list[str] = []

    def first(_entry: dict[str, Any]) -> None:
        heard.append("first")
        end_first()
        end_second()

    end_first = history.subscribe(first)
    end_second = history.subscribe(lambda _entry: heard.append("second"))
    history.append({})
    history.append({})
    assert heard == ["first"]


def test_log_records_are_kept_by_level_and_printable(kept_log: None) -> None:
    log.debug("not at this level")
    log.info("a\x1b[31mred\nlcinit: error: forged")
    log.warning("x" * 5000)
    entries = log.kept()
    assert [(entry["level"], entry["seq"]) for entry in entries] == [("info", 1), ("warning", 2)]
    assert entries[0]["message"] == "a\\x1b[31mred\\nlcinit: error: forged"
    assert len(entries[1]["message"]) == 4003


def test_log_ring_is_bounded(kept_log: None) -> None:
    for number in range(10):
        log.info(str(number))
    assert [entry["message"] for entry in log.kept()] == ["7", "8", "9"]


def test_a_listener_that_logs_comes_to_an_end(kept_log: None) -> None:
    heard: list[str] = []

    def echo(entry: dict[str, Any]) -> None:
        heard.append(entry["message"])
        log.info(f"heard {entry['message']}")

    log.subscribe(echo)
    log.info("one")
    assert heard == ["one"]
    assert [entry["message"] for entry in log.kept()] == ["one", "heard one"]


def test_log_level_is_set_by_name(kept_log: None) -> None:
    log.set_level("error")
    log.info("unheard")
    assert (log.level(), log.kept()) == ("error", [])
    with pytest.raises(ValueError, match="no log level 'loud': it is one of debug"):
        log.set_level("loud")


def test_without_keep_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(log._log, "history", None)
    log.info("gone")
    assert log.kept() == []
    with pytest.raises(RuntimeError, match="keep"):
        log.subscribe(print)
