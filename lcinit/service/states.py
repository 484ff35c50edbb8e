"""The states of a service, what can happen to it, and what is to be done then: the values of `machine`.

The words are systemd's sub-states (systemctl(1)):

- dead: down, as somebody wished, or it ended well and is not to come again.
- waiting: to come up, once what it starts after has settled.
- start-pre, start-post: these commands run, before the main process and after it is ready.
- start: the main process was asked for; it is not ready yet. A oneshot does its work here.
- running: up. exited: a oneshot that has done its work and counts as up.
- reload: up, and told to read its configuration again.
- stop: the commands that end it run. stop-sigterm: it was sent its stop signal. stop-watchdog: its watchdog has given
  it up, and it was sent its watchdog signal. stop-sigkill: all of it was killed.
- stop-post: it is down, these commands clean up.
- auto-restart: it ended by itself and comes again when the back-off is over.
- failed: down, and `result` says why.

`result` is how it ended last, in systemd's words too (`Result=` of systemctl show, with health of our own): the first
thing that went wrong counts, because what follows is its consequence.
"""

from __future__ import annotations

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from lcinit.config.service_values import Service

    Kind = Literal[
        "start",
        "stop",
        "restart",
        "go",
        "blocked",
        "done",
        "failed",
        "started",
        "unstartable",
        "ready",
        "exited",
        "deadline",
        "sick",
        "reload",
        "reloading",
        "due",
        "limit",
        "reset",
    ]

SUBS = (
    *("dead", "waiting", "start-pre", "start", "start-post", "running", "exited", "reload"),
    *("stop", "stop-sigterm", "stop-watchdog", "stop-sigkill", "stop-post", "auto-restart", "failed"),
)
EVENTS = (
    *("start", "stop", "restart", "go", "blocked", "done", "failed", "started", "unstartable", "ready"),
    *("exited", "deadline", "sick", "reload", "reloading", "due", "limit", "reset"),
)
RESULTS = (
    *("success", "exit-code", "signal", "core-dump", "oom-kill", "watchdog", "timeout", "start-failure"),
    *("protocol", "dependency", "start-limit-hit", "health"),
)
ACTIVE = {
    "dead": "inactive",
    "waiting": "activating",
    "start-pre": "activating",
    "start": "activating",
    "start-post": "activating",
    "running": "active",
    "exited": "active",
    "reload": "reloading",
    "stop": "deactivating",
    "stop-sigterm": "deactivating",
    "stop-watchdog": "deactivating",
    "stop-sigkill": "deactivating",
    "stop-post": "deactivating",
    "auto-restart": "activating",
    "failed": "failed",
}
"""systemd's ActiveState for each sub-state."""
UP = frozenset(("running", "exited", "reload"))
DOWN = frozenset(("dead", "failed"))
COMING = frozenset(("waiting", "start-pre", "start", "start-post", "auto-restart"))
GOING = frozenset(("stop", "stop-sigterm", "stop-watchdog", "stop-sigkill", "stop-post"))


class State(Record):
    """`wanted`: it is to be up. `again`: somebody wants it to come up once it is down. `main`: its main process lives.
    `prevent`: the way it ended rules an automatic restart out.
    """

    sub: str = "dead"
    wanted: bool = False
    again: bool = False
    main: bool = False
    prevent: bool = False
    result: str = "success"


class Rules(Record):
    """What the configuration says that the transitions depend on; see config.service_values.Service."""

    type: str = "simple"
    remain: bool = True
    restart: str = "on-failure"
    start_pre: bool = False
    start_post: bool = False
    stop: bool = False
    stop_post: bool = False


class Event(Record):
    """Something that happened.

    start, stop, restart, reload: somebody asks; `at_once` without a word to the service; `result` of a stop is why.
    reloading: it does so by itself, or was told by a signal, and says when it is ready again.
    go: what it waits for has settled; blocked: something that it requires failed. done, failed: the commands of this
    state ended. started: the main process was executed; unstartable: it could not be. ready: it has said so. exited:
    the main process ended, `result` says how. deadline: the time of this state is up. sick: its watchdog or health
    check has given it up. due: the back-off is over; limit: too many starts. reset: forget a failure.
    """

    kind: Kind
    result: str = "success"
    at_once: bool = False
    prevent: bool = False


class Action(Record):
    """What the shell around this does next.

    wait: look at what it starts after. commands: run those of the new state. spawn: the main process. deadline: the
    time of `name` runs from now on; no-deadline. signal: the stop signal, or that of `name`, watchdog. abort: end
    commands that run. kill: all of it. up: it has come up. down: it is down; `asked`: somebody wished so. back-off:
    wait, then `due` or `limit`.
    """

    kind: Literal[
        "wait", "commands", "spawn", "deadline", "no-deadline", "signal", "abort", "kill", "up", "down", "back-off"
    ]
    name: str = ""
    asked: bool = False


def rules_of(service: Service) -> Rules:
    """The rules that a service's configuration means."""
    return Rules(
        type=service.type,
        remain=service.remain_after_exit,
        restart=service.restart,
        start_pre=bool(service.start_pre),
        start_post=bool(service.start_post),
        stop=bool(service.stop),
        stop_post=bool(service.stop_post),
    )
