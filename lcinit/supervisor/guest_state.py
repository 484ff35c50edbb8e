"""The states of a nested guest, and what each event does to them. Pure and total: every event has an answer in every
state.

- preparing: its builder or leader works; nothing of the guest's own has run as its init.
- running: its init was executed.
- stopping: the init was asked for poweroff, halt or reboot, and the deadline runs.
- killing: everything in the guest was killed; its end is a matter of the kernel.
- waiting: it ended and will be started again when the back-off is over.
- ended: it will not be started again; lcinit ends.

A request that was made decides what the end means; without one the init's death tells: in a PID namespace reboot(2)
ends it with SIGHUP (restart) or SIGINT (halt, power off).
"""

from __future__ import annotations

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Name = Literal["preparing", "running", "stopping", "killing", "waiting", "ended"]
    Word = Literal["poweroff", "halt", "reboot", "restart"]

NAMES = ("preparing", "running", "stopping", "killing", "waiting", "ended")
WORDS = ("poweroff", "halt", "reboot", "restart")

REBOOTED = 1  # a death by SIGHUP: reboot(2) with RESTART
POWERED_OFF = 2  # a death by SIGINT: reboot(2) with POWER_OFF or HALT
LEFT_OFF = 1  # the exit code of an end that nobody can tell anything about


class State(Record):
    """`word` is what was asked for last; `began` whether this start's init was ever executed; `again` whether there
    was a start before this one.
    """

    name: Name = "preparing"
    word: Word | None = None
    began: bool = False
    again: bool = False


class Rules(Record):
    """What the configuration says of a guest's end; see plan.supervision."""

    on_reboot: Literal["restart", "propagate", "exit"] = "restart"
    on_exit: Literal["exit", "restart"] = "exit"


class Event(Record):
    """Something that happened.

    started: the init was executed. failed: the start failed, with `status` as exit code. asked: `word` was asked for,
    `at_once` without waiting for the init. unheard: the init cannot be asked for it. deadline: its time is up. exited:
    the init was reaped with `status` (the code, or 128 + the signal) because of `signal` (0: it exited by itself).
    due: the back-off is over.
    """

    kind: Literal["started", "failed", "asked", "unheard", "deadline", "exited", "due"]
    word: Word | None = None
    at_once: bool = False
    status: int = 0
    signal: int = 0


class Action(Record):
    """What the shell around this does next.

    ask: have the init asked for `word`. deadline: let it run from now. kill: everything in the guest. prepare: start
    it again. back-off: wait, then `due`. end: lcinit ends as `how` says; `status` is what the guest ended with, and
    `by_reboot` whether it did so by reboot(2).
    """

    kind: Literal["ask", "deadline", "kill", "prepare", "back-off", "end"]
    word: Word | None = None
    how: Literal["poweroff", "halt", "reboot", "exit"] = "exit"
    status: int = 0
    by_reboot: bool = False


def transition(state: State, event: Event, rules: Rules) -> tuple[State, tuple[Action, ...]]:
    """The state after an event, and what is to be done. An event that means nothing in a state changes nothing."""
    if event.kind == "asked":
        return _asked(state, event)
    if event.kind == "exited":
        return _exited(state, event, rules)
    if event.kind == "failed" and state.name in ("preparing", "killing"):
        return _failed(state, event.status, rules)
    if event.kind == "started" and state.name == "preparing":
        return state.replace(name="running", began=True), ()
    if event.kind in ("unheard", "deadline") and state.name == "stopping":
        return state.replace(name="killing"), (Action(kind="kill"),)
    if event.kind == "deadline" and state.name == "killing":
        return state, (Action(kind="kill"),)
    if event.kind == "started" and state.name == "killing":
        # the builder made the leader, and that executed the init, before either had the signal
        return state.replace(began=True), (Action(kind="kill"),)
    if event.kind == "due" and state.name == "waiting":
        return State(again=True), (Action(kind="prepare"),)
    return state, ()


def _asked(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    word = event.word
    asked = state.replace(word=word)
    if state.name == "preparing":
        # there is no init that could hear it, and what has been prepared is the builder's
        return asked.replace(name="killing"), (Action(kind="kill"),)
    if state.name in ("running", "stopping"):
        if event.at_once:
            return asked.replace(name="killing"), (Action(kind="kill"),)
        if state.name == "running":
            return asked.replace(name="stopping"), (Action(kind="ask", word=word), Action(kind="deadline"))
        # once more changes nothing: a guest that is draining is not signalled again
        return asked, () if word == state.word else (Action(kind="ask", word=word),)
    if state.name == "killing":
        return asked, (Action(kind="kill"),) if event.at_once else ()
    if state.name == "waiting":
        if word in ("reboot", "restart"):
            return State(again=True), (Action(kind="prepare"),)
        return asked.replace(name="ended"), (Action(kind="end", how=_how(word), status=0),)
    return state, ()


def _how(word: Word | None) -> Literal["poweroff", "halt"]:
    return "halt" if word == "halt" else "poweroff"


def _exited(state: State, event: Event, rules: Rules) -> tuple[State, tuple[Action, ...]]:
    if state.name in ("waiting", "ended"):
        return state, ()
    if state.word is not None:
        return _end(state, state.word, event, rules)
    if state.name == "preparing":
        # the leader ended and nobody told why: "failed" comes with the reason, or this is all there is
        return state, ()
    if event.signal == REBOOTED:
        return _end(state, "reboot", event, rules)
    if event.signal == POWERED_OFF:
        return _end(state, "poweroff", event, rules)
    if rules.on_exit == "restart":
        return State(name="waiting", again=True), (Action(kind="back-off"),)
    return state.replace(name="ended"), (Action(kind="end", how="exit", status=event.status),)


def _end(state: State, word: Word, event: Event, rules: Rules) -> tuple[State, tuple[Action, ...]]:
    """The guest ended as `word` says."""
    if word == "restart" or (word == "reboot" and rules.on_reboot == "restart"):
        return State(again=True), (Action(kind="prepare"),)
    how: Literal["poweroff", "halt", "reboot"] = _how(word)
    if word == "reboot" and rules.on_reboot == "propagate":
        how = "reboot"
    by_reboot = event.signal in (REBOOTED, POWERED_OFF)
    return state.replace(name="ended"), (Action(kind="end", how=how, status=event.status, by_reboot=by_reboot),)


def _failed(state: State, status: int, rules: Rules) -> tuple[State, tuple[Action, ...]]:
    if state.word is not None:
        return _end(state, state.word, Event(kind="failed"), rules)
    if state.again and rules.on_exit == "restart":
        # what failed now succeeded before; at the first time it is more likely a mistake that will not go away
        return State(name="waiting", again=True), (Action(kind="back-off"),)
    return state.replace(name="ended"), (Action(kind="end", how="exit", status=status or LEFT_OFF),)
