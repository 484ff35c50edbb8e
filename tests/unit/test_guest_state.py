"""Every event in every state of a nested guest, under every rule: nothing raises, and what must hold does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from lcinit.supervisor import guest_state
from lcinit.supervisor.guest_state import POWERED_OFF, REBOOTED, Action, Event, Rules, State, transition

NAMES: tuple[Any, ...] = guest_state.NAMES
WORDS: tuple[Any, ...] = guest_state.WORDS
BOTH = (False, True)
ON_REBOOT: tuple[Any, ...] = ("restart", "propagate", "exit")
ON_EXIT: tuple[Any, ...] = ("exit", "restart")
RULES = [Rules(on_reboot=r, on_exit=e) for r in ON_REBOOT for e in ON_EXIT]
STATES = [State(name=name, word=word, began=began) for name in NAMES for word in (None, *WORDS) for began in BOTH]
EVENTS = [
    Event(kind="started"),
    *(Event(kind="failed", status=status) for status in (0, 1, 71)),
    *(Event(kind="asked", word=word, at_once=at_once) for word in WORDS for at_once in BOTH),
    Event(kind="unheard"),
    Event(kind="deadline"),
    *(Event(kind="exited", status=status) for status in (0, 1, 129, 130, 255)),
    *(Event(kind="exited", status=128 + signal, signal=signal) for signal in (REBOOTED, POWERED_OFF, 9, 11)),
    Event(kind="due"),
]
LIVES = ("preparing", "running", "stopping", "killing")  # there may be a process of this start

# What means something, by state; all else must change nothing.
MEANS = {
    "preparing": {"started", "failed", "asked", "exited"},
    "running": {"asked", "exited"},
    "stopping": {"asked", "unheard", "deadline", "exited"},
    "killing": {"started", "failed", "asked", "deadline", "exited"},
    "waiting": {"asked", "due"},
    "ended": set(),
}


def everything() -> Iterator[tuple[State, Event, Rules]]:
    return itertools.product(STATES, EVENTS, RULES)


def kinds(actions: tuple[Action, ...]) -> list[str]:
    return [action.kind for action in actions]


def test_every_event_has_an_answer_in_every_state() -> None:
    for state, event, rules in everything():
        after, actions = transition(state, event, rules)
        assert after.name in NAMES, (state, event)
        assert after.word in (None, *WORDS)
        assert set(kinds(actions)) <= {"ask", "deadline", "kill", "prepare", "back-off", "end"}


def test_an_event_that_means_nothing_in_a_state_changes_nothing() -> None:
    for state, event, rules in everything():
        if event.kind not in MEANS[state.name]:
            assert transition(state, event, rules) == (state, ()), (state, event)


def test_an_ended_guest_stays_ended() -> None:
    for state, event, rules in everything():
        if state.name == "ended":
            assert transition(state, event, rules) == (state, ())


def test_lcinit_ends_exactly_when_the_guest_becomes_ended() -> None:
    for state, event, rules in everything():
        after, actions = transition(state, event, rules)
        ends = [action for action in actions if action.kind == "end"]
        assert len(ends) == (after.name == "ended" and state.name != "ended"), (state, event, rules)


def test_a_start_is_only_prepared_when_nothing_of_the_last_one_can_live() -> None:
    for state, event, rules in everything():
        _, actions = transition(state, event, rules)
        if "prepare" in kinds(actions):
            assert event.kind in ("exited", "failed") or state.name == "waiting", (state, event)
        if "back-off" in kinds(actions):
            assert event.kind == "exited"


def test_a_request_at_once_kills_whatever_there_is() -> None:
    for state, event, rules in everything():
        if event.kind == "asked" and event.at_once and state.name in LIVES:
            after, actions = transition(state, event, rules)
            assert after.name == "killing"
            assert kinds(actions) == ["kill"], state


def test_a_deadline_kills_and_kills_again() -> None:
    for state, rules in itertools.product(STATES, RULES):
        if state.name in ("stopping", "killing"):
            after, actions = transition(state, Event(kind="deadline"), rules)
            assert (after.name, kinds(actions)) == ("killing", ["kill"])


def test_an_init_that_was_executed_while_it_was_being_killed_is_killed_again() -> None:
    for state, rules in itertools.product(STATES, RULES):
        if state.name == "killing":
            after, actions = transition(state, Event(kind="started"), rules)
            assert (after.name, kinds(actions)) == ("killing", ["kill"])


def test_from_every_state_with_a_guest_a_stop_request_a_deadline_and_an_end_lead_to_ended() -> None:
    for state, rules in itertools.product(STATES, RULES):
        if state.name not in LIVES:
            continue
        now, _ = transition(state, Event(kind="asked", word="poweroff"), rules)
        now, _ = transition(now, Event(kind="deadline"), rules)
        assert now.name == "killing", state
        how: Any = "exited" if now.began else "failed"
        now, actions = transition(now, Event(kind=how, status=137, signal=9), rules)
        assert now.name == "ended"
        assert actions[0].how == "poweroff"


@pytest.mark.parametrize("word", WORDS)
def test_a_request_is_asked_once_and_its_deadline_runs_once(word: Any) -> None:
    asked = Event(kind="asked", word=word)
    state, actions = transition(State(name="running", began=True), asked, RULES[0])
    assert (state.name, state.word, kinds(actions)) == ("stopping", word, ["ask", "deadline"])
    assert actions[0].word == word
    assert transition(state, asked, RULES[0]) == (state, ())


def test_another_word_is_asked_without_another_deadline() -> None:
    state = State(name="stopping", word="reboot", began=True)
    after, actions = transition(state, Event(kind="asked", word="poweroff"), RULES[0])
    assert after.word == "poweroff"
    assert actions == (Action(kind="ask", word="poweroff"),)


def test_an_init_that_cannot_be_asked_is_killed_at_once() -> None:
    state = State(name="stopping", word="poweroff", began=True)
    assert kinds(transition(state, Event(kind="unheard"), RULES[0])[1]) == ["kill"]


# word that was asked for, signal of the init's death, on_reboot, on_exit → what is done, and how lcinit ends
ENDS = [
    # a request decides, whatever the init died of
    *(("poweroff", signal, r, e, "end", "poweroff") for signal in (0, 1, 2, 9) for r, e in (("restart", "restart"),)),
    *(("halt", signal, r, e, "end", "halt") for signal in (0, 1, 2, 9) for r, e in (("propagate", "restart"),)),
    *(("restart", signal, "propagate", "exit", "prepare", "") for signal in (0, 1, 2, 9)),
    *(("reboot", signal, "restart", "exit", "prepare", "") for signal in (0, 1, 2, 9)),
    *(("reboot", signal, "propagate", "exit", "end", "reboot") for signal in (0, 1, 2, 9)),
    *(("reboot", signal, "exit", "restart", "end", "poweroff") for signal in (0, 1, 2, 9)),
    # without a request the death tells
    (None, 1, "restart", "exit", "prepare", ""),
    (None, 1, "propagate", "exit", "end", "reboot"),
    (None, 1, "propagate", "restart", "end", "reboot"),
    (None, 1, "exit", "restart", "end", "poweroff"),
    (None, 2, "restart", "restart", "end", "poweroff"),
    (None, 0, "restart", "exit", "end", "exit"),
    (None, 9, "restart", "exit", "end", "exit"),
    (None, 0, "restart", "restart", "back-off", ""),
    (None, 9, "propagate", "restart", "back-off", ""),
]


@pytest.mark.parametrize(("word", "signal", "on_reboot", "on_exit", "kind", "how"), ENDS)
def test_what_an_end_means(word: Any, signal: int, on_reboot: Any, on_exit: Any, kind: str, how: str) -> None:
    rules = Rules(on_reboot=on_reboot, on_exit=on_exit)
    name: Any = "running" if word is None else "stopping"
    state = State(name=name, word=word, began=True)
    status = 128 + signal if signal else 7
    after, (action,) = transition(state, Event(kind="exited", status=status, signal=signal), rules)
    assert action.kind == kind
    if kind == "end":
        assert (action.how, action.status, action.by_reboot) == (how, status, signal in (1, 2))
    else:
        assert after == State(name="preparing" if kind == "prepare" else "waiting", again=True)


def test_an_exit_with_129_or_130_is_no_reboot() -> None:
    for status in (129, 130):
        _, (action,) = transition(State(name="running", began=True), Event(kind="exited", status=status), RULES[0])
        assert (action.kind, action.how, action.status) == ("end", "exit", status)


def test_a_start_that_fails_ends_lcinit_with_its_code_whatever_on_exit_says() -> None:
    for rules in RULES:
        after, (action,) = transition(State(), Event(kind="failed", status=78), rules)
        assert (after.name, action.kind, action.how, action.status) == ("ended", "end", "exit", 78)
        _, (action,) = transition(State(), Event(kind="failed"), rules)
        assert action.status == 1  # never a success


def test_a_request_during_the_start_ends_it_and_is_obeyed() -> None:
    state, actions = transition(State(), Event(kind="asked", word="poweroff"), RULES[0])
    assert (state.name, kinds(actions)) == ("killing", ["kill"])
    _, (action,) = transition(state, Event(kind="failed", status=254), RULES[0])
    assert (action.kind, action.how, action.status) == ("end", "poweroff", 0)
    state, _ = transition(State(), Event(kind="asked", word="restart"), RULES[0])
    assert transition(state, Event(kind="failed", status=254), RULES[0]) == (
        State(again=True),
        (Action(kind="prepare"),),
    )


def test_requests_during_the_back_off_do_not_wait_for_its_end() -> None:
    waiting = State(name="waiting")
    for word in WORDS[2:]:
        asked = Event(kind="asked", word=word)
        assert transition(waiting, asked, RULES[0]) == (State(again=True), (Action(kind="prepare"),))
    for word in WORDS[:2]:
        _, (action,) = transition(waiting, Event(kind="asked", word=word), RULES[0])
        assert (action.kind, action.how) == ("end", word)
    assert transition(waiting, Event(kind="due"), RULES[0]) == (State(again=True), (Action(kind="prepare"),))


def test_a_later_start_that_fails_is_tried_again_where_ends_are() -> None:
    again = State(again=True)
    after, (action,) = transition(again, Event(kind="failed", status=71), Rules(on_exit="restart"))
    assert (after.name, action.kind) == ("waiting", "back-off")
    after, (action,) = transition(again, Event(kind="failed", status=71), Rules(on_exit="exit"))
    assert (after.name, action) == ("ended", Action(kind="end", how="exit", status=71))
