"""The states of a service: every event in every state, and the ways that matter."""

from __future__ import annotations

import itertools

import pytest

from lcinit.config.service_values import Service
from lcinit.config.values import Command
from lcinit.service.machine import transition
from lcinit.service.states import (
    ACTIVE,
    COMING,
    DOWN,
    EVENTS,
    GOING,
    RESULTS,
    SUBS,
    UP,
    Action,
    Event,
    Rules,
    State,
    rules_of,
)

EVERYTHING = Rules(start_pre=True, start_post=True, stop=True, stop_post=True)


def walk(rules: Rules, *events: Event | str, state: State | None = None) -> tuple[State, list[str]]:
    """The state after these events, and the names of all actions in their order."""
    state = state or State()
    done: list[str] = []
    for event in events:
        state, actions = transition(state, event if isinstance(event, Event) else Event(kind=event), rules)  # type: ignore[arg-type]
        done += [action.name or action.kind for action in actions]
    return state, done


def exited(result: str = "success", **more: bool) -> Event:
    return Event(kind="exited", result=result, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("sub", SUBS)
@pytest.mark.parametrize("kind", EVENTS)
def test_every_event_has_an_answer_in_every_state(sub: str, kind: str) -> None:
    flags = list(itertools.product((False, True), repeat=4))
    for service_type, restart in itertools.product(("simple", "notify", "oneshot", "forking"), ("no", "always")):
        for pre, post, stop, after in flags:
            rules = Rules(
                type=service_type, restart=restart, start_pre=pre, start_post=post, stop=stop, stop_post=after
            )
            for wanted, again, main, at_once in flags:
                state = State(sub=sub, wanted=wanted, again=again, main=main)
                new, actions = transition(state, Event(kind=kind, result="exit-code", at_once=at_once), rules)  # type: ignore[arg-type]
                assert new.sub in SUBS and new.result in RESULTS, (state, new)
                assert all(isinstance(action, Action) for action in actions)
                if new.sub in DOWN:
                    assert (not new.main and not new.wanted and not new.again) or new == state or sub in DOWN, (
                        state,
                        new,
                    )
                if new.sub != sub and new.sub in DOWN and kind != "reset":
                    assert [a.kind for a in actions].count("down") == 1, (state, kind, actions)


def test_each_state_is_of_one_kind_and_has_systemds_word() -> None:
    assert set(ACTIVE) == set(SUBS)
    kinds = [UP, DOWN, COMING, GOING]
    assert set().union(*kinds) == set(SUBS)
    assert sum(map(len, kinds)) == len(SUBS)


def test_a_simple_service_is_up_when_it_was_executed() -> None:
    state, done = walk(Rules(), "start", "go", "started")
    assert state.sub == "running" and state.main
    assert done == ["wait", "start", "spawn", "no-deadline", "up"]


@pytest.mark.parametrize("kind", ["notify", "notify-fd", "forking"])
def test_others_are_up_when_they_say_so(kind: str) -> None:
    state, _ = walk(Rules(type=kind), "start", "go", "started")
    assert state.sub == "start"
    state, done = walk(Rules(type=kind), "ready", state=state)
    assert state.sub == "running" and done == ["no-deadline", "up"]


def test_the_commands_around_it_run_in_their_order() -> None:
    state, done = walk(EVERYTHING, "start", "go", "done", "started", "done", "stop", "done", exited(), "done")
    assert state == State()
    assert done == [
        *("wait", "start", "start-pre", "spawn", "start-post", "no-deadline", "up"),
        *("abort", "stop", "stop", "abort", "stop", "signal"),
        *("abort", "kill", "stop", "stop-post", "kill", "no-deadline", "down"),
    ]


def test_a_oneshot_counts_as_up_once_it_has_done_its_work() -> None:
    state, done = walk(Rules(type="oneshot"), "start", "go", "started", exited())
    assert state.sub == "exited" and done[-1] == "up"
    assert walk(Rules(type="oneshot"), "stop", state=state)[0].sub == "dead"
    state, done = walk(Rules(type="oneshot", remain=False), "start", "go", "started", exited())
    assert state.sub == "dead" and "up" in done


def test_a_oneshot_that_fails_has_failed() -> None:
    state, _ = walk(Rules(type="oneshot", restart="no"), "start", "go", "started", exited("exit-code"))
    assert (state.sub, state.result) == ("failed", "exit-code")


@pytest.mark.parametrize(
    ("restart", "comes_again"),
    [
        ("no", set()),
        ("on-failure", set(RESULTS) - {"success"}),
        ("always", set(RESULTS)),
        ("on-watchdog", {"watchdog", "health"}),
    ],
)
def test_it_comes_again_as_restart_says(restart: str, comes_again: set[str]) -> None:
    for result in set(RESULTS) - {"dependency", "start-limit-hit"}:
        state, done = walk(Rules(restart=restart), "start", "go", "started", exited(result))
        expected = result in comes_again or result == "health"
        assert (state.sub == "auto-restart") == expected, (restart, result, state)
        assert ("back-off" in done) == expected
        if not expected:
            assert state.sub == ("dead" if result == "success" else "failed")


def test_a_status_that_prevents_a_restart_prevents_it() -> None:
    state, _ = walk(Rules(restart="always"), "start", "go", "started", exited("exit-code", prevent=True))
    assert (state.sub, state.result) == ("failed", "exit-code")


def test_nobody_who_was_asked_to_stop_comes_again() -> None:
    state, done = walk(Rules(restart="always"), "start", "go", "started", "stop", exited())
    assert state.sub == "dead" and done[-1] == "down"


def test_who_does_not_stop_in_time_is_killed_and_has_failed() -> None:
    state, done = walk(Rules(), "start", "go", "started", "stop", "deadline", exited("signal"))
    assert (state.sub, state.result) == ("failed", "timeout")
    assert done[-6:] == ["kill", "stop", "abort", "kill", "no-deadline", "down"]


@pytest.mark.parametrize("rules", [Rules(restart="always"), Rules(restart="always", start_pre=True)])
def test_how_it_ended_before_is_no_result_of_a_stop(rules: Rules) -> None:
    waits, _ = walk(rules, "start", "go", *(["done"] if rules.start_pre else []), "started", exited("signal"))
    assert (waits.sub, waits.result) == ("auto-restart", "signal")
    for events in (("stop",), ("due", "stop"), *([("due", "go", "stop")] if rules.start_pre else [])):
        state, done = walk(rules, *events, state=waits)
        assert (state.sub, state.result, done[-1]) == ("dead", "success", "down"), events
    lost, _ = walk(rules, Event(kind="stop", result="dependency"), state=waits)
    assert (lost.sub, lost.result) == ("failed", "dependency")


def test_who_hangs_in_the_kernel_is_given_up() -> None:
    state, done = walk(Rules(), "start", "go", "started", "stop", "deadline", "deadline")
    assert state.sub == "failed" and done[-1] == "down"


def test_the_first_thing_that_went_wrong_is_the_result() -> None:
    state, _ = walk(Rules(restart="no"), "start", "go", "started", Event(kind="sick", result="health"))
    assert state.sub == "stop-sigterm"
    state, _ = walk(Rules(restart="no"), exited("signal"), state=state)
    assert state.result == "health"


def test_one_that_hangs_is_sent_its_watchdog_signal_and_runs_no_stop_commands() -> None:
    hangs = Event(kind="sick", result="watchdog")
    up, _ = walk(EVERYTHING, "start", "go", "done", "started", "done")
    state, done = walk(EVERYTHING, hangs, state=up)
    assert state.sub == "stop-watchdog" and done == ["abort", "stop", "watchdog"]
    for events in ((exited("core-dump"),), ("deadline", exited("signal")), ("stop", exited("signal"))):
        ended, done = walk(EVERYTHING, *events, "done", state=state)
        assert ended.result == "watchdog" and "stop-post" in done, (events, ended)
        assert ended.sub == ("failed" if "stop" in events else "auto-restart"), (events, ended)
    assert walk(EVERYTHING, Event(kind="sick", result="health"), state=up)[0].sub == "stop"
    at_once, done = walk(EVERYTHING, Event(kind="stop", at_once=True), state=state)
    assert at_once.sub == "stop-sigkill" and "kill" in done


def test_one_that_is_never_ready_has_timed_out() -> None:
    state, done = walk(Rules(type="notify", restart="no"), "start", "go", "started", "deadline")
    assert state.sub == "stop-sigterm" and "signal" in done
    assert walk(Rules(restart="no"), exited("success"), state=state)[0].result == "timeout"


def test_one_that_ends_well_without_being_ready_breaks_the_protocol() -> None:
    state, _ = walk(Rules(type="notify", restart="no"), "start", "go", "started", exited())
    assert (state.sub, state.result) == ("failed", "protocol")


def test_start_pre_that_fails_ends_the_start() -> None:
    rules = Rules(start_pre=True, stop_post=True, restart="no")
    state, done = walk(rules, "start", "go", Event(kind="failed", result="exit-code"), "done")
    assert (state.sub, state.result) == ("failed", "exit-code")
    assert "spawn" not in done and "stop-post" in done


def test_a_requirement_that_failed_is_the_end_of_waiting() -> None:
    state, done = walk(Rules(restart="always"), "start", "blocked")
    assert (state.sub, state.result) == ("failed", "dependency") and done == ["wait", "no-deadline", "down"]


def test_restart_comes_up_again_whatever_the_policy_is() -> None:
    state, done = walk(Rules(restart="no"), "start", "go", "started", "restart", exited())
    assert state.sub == "waiting" and state.wanted and done[-1] == "wait"
    assert "down" not in done


def test_a_start_while_it_goes_down_brings_it_up_again() -> None:
    state, _ = walk(Rules(restart="no"), "start", "go", "started", "stop", "start", exited())
    assert state.sub == "waiting"
    state, _ = walk(Rules(restart="no"), "start", "go", "started", "stop", "start", "stop", exited())
    assert state.sub == "dead"


def test_too_many_starts_are_a_failure_that_says_so() -> None:
    state, _ = walk(Rules(restart="always"), "start", "go", "started", exited("exit-code"), "limit")
    assert (state.sub, state.result) == ("failed", "start-limit-hit")
    state, _ = walk(Rules(restart="always"), "start", "go", "started", exited("exit-code"), "due", "limit")
    assert (state.sub, state.result) == ("failed", "start-limit-hit")


def test_reset_forgets_a_failure_and_nothing_else() -> None:
    assert walk(Rules(), "reset", state=State(sub="failed", result="timeout"))[0] == State()
    running = State(sub="running", wanted=True, main=True)
    assert walk(Rules(), "reset", state=running)[0] == running


def test_at_once_nothing_is_asked() -> None:
    state, done = walk(EVERYTHING, Event(kind="stop", at_once=True), state=State(sub="running", wanted=True, main=True))
    assert state.sub == "stop-sigkill" and done == ["abort", "kill", "stop"]


def test_reloading_is_up_and_its_failure_is_none_of_the_service() -> None:
    state, done = walk(Rules(), "start", "go", "started", "reload")
    assert state.sub in UP and done[-1] == "reload"
    for event in ("done", "failed", "deadline", "ready"):
        assert walk(Rules(), event, state=state)[0].sub == "running"
    assert walk(Rules(restart="no"), exited("signal"), state=state)[0].result == "signal"


def test_one_whose_file_cannot_be_run_has_failed_to_start() -> None:
    state, _ = walk(Rules(restart="no"), "start", "go", "unstartable")
    assert (state.sub, state.result, state.main) == ("failed", "start-failure", False)


def test_the_rules_are_what_the_service_says() -> None:
    command = (Command(argv=("true",)),)
    service = Service(
        name="a",
        type="oneshot",
        restart="no",
        remain_after_exit=False,
        start_pre=command,
        start_post=command,
        stop=command,
        stop_post=command,
    )
    assert rules_of(service) == EVERYTHING.replace(type="oneshot", restart="no", remain=False)
