"""What each event does to a service in each state. Pure and total: every event has an answer in every state.

The states, the events and the actions are described where they are defined, in `states`.
"""

from __future__ import annotations

from lcinit.service.states import DOWN, GOING, Action, Event, Rules, State

Outcome = tuple[State, tuple[Action, ...]]

_WAIT = Action(kind="wait")
_SPAWN = Action(kind="spawn")
_SIGNAL = Action(kind="signal")
_WATCHDOG_SIGNAL = Action(kind="signal", name="watchdog")
_ABORT = Action(kind="abort")
_KILL = Action(kind="kill")
_UP = Action(kind="up")
_START_TIME = Action(kind="deadline", name="start")
_STOP_TIME = Action(kind="deadline", name="stop")
_NO_TIME = Action(kind="no-deadline")
_BACK_OFF = Action(kind="back-off")


def transition(state: State, event: Event, rules: Rules) -> Outcome:
    """The state after an event, and what is to be done. An event that means nothing in a state changes nothing."""
    kind = event.kind
    if kind == "start":
        return _start(state)
    if kind == "stop":
        return _stop(state, event, rules)
    if kind == "restart":
        return _restart(state, rules)
    return _STATES[state.sub](state, event, rules)


# what somebody asks for


def _start(state: State) -> Outcome:
    if state.sub in DOWN or state.sub == "auto-restart":
        return _wait(state)
    if state.sub in GOING:
        return state.replace(wanted=True, again=True), ()
    return state.replace(wanted=True), ()


def _wait(state: State) -> Outcome:
    return State(sub="waiting", wanted=True, result="success" if state.sub == "failed" else state.result), (_WAIT,)


def _restart(state: State, rules: Rules) -> Outcome:
    if state.sub in DOWN or state.sub in GOING or state.sub == "auto-restart":
        return _start(state)
    if state.sub == "waiting":
        return state, ()
    return _leave(state.replace(wanted=True, again=True), rules)


def _stop(state: State, event: Event, rules: Rules) -> Outcome:
    if state.sub in DOWN:
        return state.replace(wanted=False), ()
    asked = state.replace(wanted=False, again=False, result=_first(state, event.result))
    if state.sub in ("waiting", "auto-restart"):
        # how it ended before is no result of this (systemd, too, has it inactive then, and not failed)
        return _down(asked.replace(result=event.result), asked=event.result == "success")
    if event.at_once and state.sub not in ("stop-post", "stop-sigkill"):
        if not asked.main:
            return _cleaned(asked, rules)
        return asked.replace(sub="stop-sigkill"), (_ABORT, _KILL, _STOP_TIME)
    if state.sub in GOING:
        return asked, ()
    return _leave(asked, rules)


def _leave(state: State, rules: Rules) -> Outcome:
    """From coming up, or from being up, on the way down."""
    if state.sub in ("running", "exited", "reload") and rules.stop:
        return state.replace(sub="stop"), (_ABORT, _STOP_TIME, Action(kind="commands", name="stop"))
    if state.main:
        return state.replace(sub="stop-sigterm"), (_ABORT, _STOP_TIME, _SIGNAL)
    return _cleaned(state, rules)


def _hung(state: State, rules: Rules) -> Outcome:
    """Its watchdog has given it up. As with systemd its `stop` commands do not run: nobody would listen to them."""
    if state.main:
        return state.replace(sub="stop-watchdog"), (_ABORT, _STOP_TIME, _WATCHDOG_SIGNAL)
    return _cleaned(state, rules)


# the states


def _settled(state: State, event: Event, _rules: Rules) -> Outcome:
    """dead and failed."""
    if event.kind == "reset" and state.sub == "failed":
        return State(), ()
    return state, ()


def _waiting(state: State, event: Event, rules: Rules) -> Outcome:
    if event.kind == "go":
        if rules.start_pre:
            return state.replace(sub="start-pre", result="success"), (
                _START_TIME,
                Action(kind="commands", name="start-pre"),
            )
        return state.replace(sub="start", main=True, result="success"), (_START_TIME, _SPAWN)
    if event.kind == "blocked":
        return _down(state.replace(result="dependency"), asked=False)
    if event.kind == "limit":
        return _down(state.replace(result="start-limit-hit"), asked=False)
    return state, ()


def _start_pre(state: State, event: Event, rules: Rules) -> Outcome:
    if event.kind == "done":
        return state.replace(sub="start", main=True, result="success"), (_SPAWN,)
    if event.kind == "failed":
        return _cleaned(state.replace(result=event.result), rules)
    if event.kind == "deadline":
        return _cleaned(state.replace(result="timeout"), rules)
    return state, ()


def _starting(state: State, event: Event, rules: Rules) -> Outcome:
    kind = event.kind
    if kind == "ready" or (kind == "started" and rules.type == "simple"):
        return _ready(state, rules)
    if kind == "unstartable":
        return _cleaned(state.replace(main=False, result=_first(state, "start-failure")), rules)
    if kind == "exited":
        ended = state.replace(main=False, prevent=event.prevent)
        if rules.type == "oneshot" and event.result == "success":
            return _ready(ended, rules)
        # ended well and never said that it was ready
        wrong = "protocol" if event.result == "success" and rules.type != "simple" else event.result
        return _cleaned(ended.replace(result=_first(state, wrong)), rules)
    if kind == "deadline":
        return _leave(state.replace(result=_first(state, "timeout")), rules)
    return state, ()


def _ready(state: State, rules: Rules) -> Outcome:
    if rules.start_post:
        return state.replace(sub="start-post"), (Action(kind="commands", name="start-post"),)
    return _up(state, rules)


def _up(state: State, rules: Rules) -> Outcome:
    if rules.type != "oneshot":
        return state.replace(sub="running"), (_NO_TIME, _UP)
    if rules.remain:
        return state.replace(sub="exited"), (_NO_TIME, _KILL, _UP)
    cleaned, actions = _cleaned(state, rules)
    return cleaned, (_UP, *actions)


def _start_post(state: State, event: Event, rules: Rules) -> Outcome:
    kind = event.kind
    if kind == "done":
        return _up(state, rules)
    if kind in ("failed", "deadline"):
        return _leave(state.replace(result=_first(state, "timeout" if kind == "deadline" else event.result)), rules)
    if kind == "exited":
        return _ended(state, event, rules)
    return state, ()


def _running(state: State, event: Event, rules: Rules) -> Outcome:
    kind = event.kind
    if kind == "exited":
        return _ended(state, event, rules)
    if kind == "sick":
        sick = state.replace(result=_first(state, event.result))
        return _hung(sick, rules) if event.result == "watchdog" else _leave(sick, rules)
    if kind == "reload":
        return state.replace(sub="reload"), (_START_TIME, Action(kind="commands", name="reload"))
    if kind == "reloading":
        return state.replace(sub="reload"), (_START_TIME,)
    return state, ()


def _reloading(state: State, event: Event, rules: Rules) -> Outcome:
    kind = event.kind
    if kind in ("done", "failed", "ready"):
        return state.replace(sub="running"), (_NO_TIME,)
    if kind == "deadline":
        return state.replace(sub="running"), (_ABORT,)
    if kind in ("exited", "sick"):
        return _running(state, event, rules)
    return state, ()


def _ended(state: State, event: Event, rules: Rules) -> Outcome:
    """The main process ended by itself."""
    result = _first(state, event.result)
    return _cleaned(state.replace(main=False, prevent=event.prevent, result=result), rules)


def _stop_commands(state: State, event: Event, rules: Rules) -> Outcome:
    kind = event.kind
    if kind == "exited":
        return state.replace(main=False, prevent=event.prevent, result=_first(state, event.result)), ()
    if kind in ("done", "failed", "deadline"):
        if state.main:
            return state.replace(sub="stop-sigterm"), (_ABORT, _STOP_TIME, _SIGNAL)
        return _cleaned(state, rules)
    return state, ()


def _signalled(state: State, event: Event, rules: Rules) -> Outcome:
    """stop-sigterm and stop-watchdog."""
    if event.kind in ("exited", "unstartable"):
        return _ended(state, event, rules)
    if event.kind == "deadline":
        return state.replace(sub="stop-sigkill", result=_first(state, "timeout")), (_KILL, _STOP_TIME)
    return state, ()


def _stop_sigkill(state: State, event: Event, rules: Rules) -> Outcome:
    if event.kind in ("exited", "unstartable"):
        return _ended(state, event, rules)
    if event.kind == "deadline":
        # not even SIGKILL ends it now: it hangs in the kernel, and nobody can wait for that
        return _cleaned(state.replace(main=False, result=_first(state, "timeout")), rules)
    return state, ()


def _stop_post(state: State, event: Event, rules: Rules) -> Outcome:
    if event.kind in ("done", "failed"):
        return _final(state, rules, (_KILL,))
    if event.kind == "deadline":
        return _final(state, rules, (_ABORT, _KILL))
    return state, ()


def _auto_restart(state: State, event: Event, _rules: Rules) -> Outcome:
    if event.kind == "due":
        return _wait(state)
    if event.kind == "limit":
        return _down(state.replace(result="start-limit-hit"), asked=False)
    return state, ()


# the way to the end


def _first(state: State, result: str) -> str:
    """The result, unless something went wrong before."""
    return result if state.result == "success" else state.result


def _cleaned(state: State, rules: Rules) -> Outcome:
    """The main process is gone, and what is left of the service goes with it."""
    if rules.stop_post:
        after = state.replace(sub="stop-post", main=False)
        return after, (_ABORT, _KILL, _STOP_TIME, Action(kind="commands", name="stop-post"))
    return _final(state, rules, (_ABORT, _KILL))


def _final(state: State, rules: Rules, actions: tuple[Action, ...]) -> Outcome:
    state = state.replace(main=False)
    if state.again:
        return State(sub="waiting", wanted=True, result=state.result), (*actions, _NO_TIME, _WAIT)
    if not state.wanted:
        down, more = _down(state, asked=True)
    elif not state.prevent and _restarts(rules, state.result):
        down, more = state.replace(sub="auto-restart"), (_NO_TIME, _BACK_OFF)
    else:
        down, more = _down(state, asked=False)
    return down, (*actions, *more)


def _restarts(rules: Rules, result: str) -> bool:
    """Whether a service that ended by itself with `result` comes again."""
    if result == "health":
        return True  # its action was restart
    if rules.restart == "on-watchdog":
        return result == "watchdog"
    if rules.restart == "on-failure":
        return result != "success"
    return rules.restart == "always"


def _down(state: State, *, asked: bool) -> Outcome:
    sub = "dead" if state.result == "success" else "failed"
    down = State(sub=sub, result=state.result, prevent=state.prevent)
    return down, (_NO_TIME, Action(kind="down", asked=asked))


_STATES = {
    "dead": _settled,
    "failed": _settled,
    "waiting": _waiting,
    "start-pre": _start_pre,
    "start": _starting,
    "start-post": _start_post,
    "running": _running,
    "exited": _settled,
    "reload": _reloading,
    "stop": _stop_commands,
    "stop-sigterm": _signalled,
    "stop-watchdog": _signalled,
    "stop-sigkill": _stop_sigkill,
    "stop-post": _stop_post,
    "auto-restart": _auto_restart,
}
