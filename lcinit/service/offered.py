"""What PID 1 offers to those who come by the control socket: see control.manager.Served and control.services."""

from __future__ import annotations

import asyncio
import os
import time

from lcinit import __version__, log
from lcinit.boot import cgroup_control
from lcinit.control.services import NoSuchService
from lcinit.control.waiting import Waiting
from lcinit.errors import EX_UNAVAILABLE, LcinitError
from lcinit.plan import show
from lcinit.service.command import COMMAND
from lcinit.service.states import ACTIVE, DOWN, UP, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable, Sequence
    from typing import Any

    from lcinit.service.paths import Paths
    from lcinit.service.reload import Reloading
    from lcinit.service.supervisor import Supervisor
    from lcinit.service.task import Task
    from lcinit.supervisor.events import EventLog


class Offered:
    """One supervisor's face to the control socket."""

    def __init__(self, supervisor: Supervisor, reloading: Reloading, paths: Paths) -> None:
        self._supervisor = supervisor
        self._services = supervisor.services
        self._reloading = reloading
        self._paths = paths
        self.events: EventLog = supervisor.events

    # io.lcinit.Manager

    def status(self) -> dict[str, Any]:
        """The interface's Report."""
        supervisor = self._supervisor
        stop = None
        if supervisor.word is not None and supervisor.asked is not None:
            elapsed = time.monotonic() - supervisor.asked
            stop = {
                "request": supervisor.word,
                "origin": supervisor.origin,
                "asked": time.time() - elapsed,
                "timeout": supervisor.rules.timeout,
                "elapsed": elapsed,
            }
        return {
            "version": __version__,
            "pid": os.getpid(),
            "manager": supervisor.world.plan.manager,
            "mode": "shared",
            "state": "running" if supervisor.word is None else "stopping",
            "since": supervisor.since,
            "guest": None,
            "stop": stop,
            "starts": supervisor.starts,
            "history": [],
            "timings": dict(supervisor.world.phase_seconds),
            "log_level": log.level(),
            "runlevel": supervisor.runlevel,
            "services": supervisor.counts(),
        }

    def plan(self) -> dict[str, Any]:
        """The plan's steps, as JSON."""
        return show.as_data(self._supervisor.world.plan, os.getpid())

    def request(self, word: str, origin: str, *, at_once: bool = False) -> None:
        """Begin poweroff, halt, reboot or restart; returns at once."""
        self._supervisor.request(word, origin, at_once=at_once)

    def set_log_level(self, level: str) -> None:
        """Log what has at least this level."""
        log.set_level(level)
        self.events.record("log-level-changed", level=level)

    # io.lcinit.Services

    def list(self, names: tuple[str, ...] | None) -> dict[str, Any]:
        """The state of these services, None: of all."""
        self._know(names or ())
        chosen = sorted({*self._services.tasks, *self._services.broken}) if names is None else names
        return {
            "services": [self._service(name) for name in chosen],
            "runlevel": self._supervisor.runlevel,
            "previous": self._supervisor.previous,
        }

    def start(self, names: tuple[str, ...], origin: str) -> Waiting:
        """Begin; done when each is up or has failed."""
        self._know_still(names)
        self._begin(names, "start", origin)
        for name in names:
            self._services.tasks[name].restarts.forget()
        self._services.start(names)
        return self._until(names, _came, _is_up)

    def stop(self, names: tuple[str, ...], origin: str) -> Waiting:
        """Begin; done when each is down."""
        self._begin(names, "stop", origin)
        self._services.stop(names)

        def over(task: Task) -> bool:
            return _is_down(task) or (task.state.wanted and not self._services.is_leaving(task.name))

        return self._until(names, over, _is_down)  # somebody may have it started again meanwhile

    def restart(self, names: tuple[str, ...], origin: str) -> Waiting:
        """Begin; done when each is up again or has failed."""
        self._know_still(names)
        self._begin(names, "restart", origin)
        starts = {name: self._services.tasks[name].starts for name in names}
        self._services.restart(names)
        return self._until(
            names, lambda task: _came(task) and (task.starts != starts[task.name] or not _is_up(task)), _is_up
        )

    def reload(self, names: tuple[str, ...], origin: str) -> Waiting:
        """Begin; done when each has read its configuration again."""
        self._begin(names, "reload", origin)
        for name in names:
            task = self._services.tasks[name]
            if not task.service.reload and task.service.reload_signal is None:
                raise LcinitError(
                    f"{name} does not say how it reloads",
                    hint="write reload or reload_signal",
                    exit_code=EX_UNAVAILABLE,
                )
            if not _is_up(task):
                raise LcinitError(f"{name} is not up", hint=f"`lcinit start {name}`", exit_code=EX_UNAVAILABLE)
        for name in names:
            self._services.tasks[name].happen(Event(kind="reload"))
        return self._until(names, lambda task: task.state.sub != "reload", lambda task: not task.reload_failed)

    def kill(self, name: str, number: int, whom: str) -> int:
        """Signal the `main` process of a service or `all` that it has."""
        self._know((name,))
        return self._services.tasks[name].signal(number, whom)

    def reset_failed(self, names: tuple[str, ...] | None) -> None:
        """Forget the failures of these services."""
        self._know(names or ())
        for name in self._services.tasks if names is None else names:
            task = self._services.tasks[name]
            task.restarts.forget()
            task.happen(Event(kind="reset"))

    def enable(self, names: tuple[str, ...]) -> Waiting:
        """Have them start with their runlevels: those that were not enabled before."""
        self._know_still(names)
        return self._paths.begin("enable", names, self._enabled)

    def disable(self, names: tuple[str, ...]) -> Waiting:
        """Have them not: those that were."""
        self._know(names)
        return self._paths.begin("disable", names, self._disabled)

    def _enabled(self, names: tuple[str, ...]) -> None:
        self._supervisor.enabled |= set(names)

    def _disabled(self, names: tuple[str, ...]) -> None:
        self._supervisor.enabled -= set(names)

    def daemon_reload(self, dry_run: bool) -> Waiting:
        """Read all files again; with `dry_run` only compare."""
        return self._reloading.begin(dry_run=dry_run)

    def wait(self, names: tuple[str, ...], state: str, timeout: float | None) -> Waiting:
        """Until each is `ready` or `stopped`, or `timeout` seconds are over."""
        self._know(names)
        if state == "ready":
            return self._until(names, _came_for_good, _is_up, key="services", timeout=timeout)
        return self._until(names, _is_down, _is_down, key="services", timeout=timeout)

    def set_runlevel(self, runlevel: str, origin: str) -> None:
        """Go to a runlevel; returns at once."""
        self._supervisor.set_runlevel(runlevel, origin)

    def runlevel(self) -> tuple[str, str]:
        """The runlevel and the one before it."""
        return self._supervisor.runlevel, self._supervisor.previous

    # how

    def _know(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._services.tasks:
                if name in self._services.broken:
                    raise LcinitError(
                        self._services.broken[name], hint="mend it, then `lcinit daemon-reload`", exit_code=78
                    )
                raise NoSuchService(name)

    def _know_still(self, names: Sequence[str]) -> None:
        self._know(names)
        for name in names:
            if name in self._services.graph.gone:
                raise LcinitError(
                    f"{name} is no longer defined",
                    hint="it is known until it is down; write its file again, then `lcinit daemon-reload`",
                    exit_code=EX_UNAVAILABLE,
                )

    def _begin(self, names: tuple[str, ...], what: str, origin: str) -> None:
        self._know(names)
        if self._supervisor.word is not None:
            raise LcinitError(f"cannot {what} services now: lcinit stops", exit_code=EX_UNAVAILABLE)
        self.events.record(f"{what}-asked", services=list(names), origin=origin)

    def _until(
        self,
        names: Sequence[str],
        reached: Callable[[Task], bool],
        wanted: Callable[[Task], bool],
        *,
        key: str = "done",
        timeout: float | None = None,
    ) -> Waiting:
        """Done when `reached` is true of each; `wanted` says then whether it is what was asked for."""
        listeners = self._supervisor.listeners
        timer: TimerHandle | None = None

        def leave() -> None:
            if look in listeners:
                listeners.remove(look)
            if timer is not None:
                timer.cancel()

        def look(*, late: bool = False) -> None:
            found = [self._services.tasks.get(name) for name in names]
            if waiting.done or not (late or all(task is None or reached(task) for task in found)):
                return
            leave()
            waiting.finish(
                {key: [_gone(n) if t is None else self._result(t, wanted) for n, t in zip(names, found, strict=True)]}
            )

        waiting = Waiting(leave)
        listeners.append(look)
        look()
        if not waiting.done and timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, lambda: look(late=True))
        return waiting

    def _result(self, task: Task, wanted: Callable[[Task], bool]) -> dict[str, Any]:
        return {
            "name": task.name,
            "ok": wanted(task),
            "state": ACTIVE[task.state.sub],
            "sub": task.state.sub,
            "reason": _reason(task),
        }

    def _service(self, name: str) -> dict[str, Any]:
        task = self._services.tasks.get(name)
        if task is None:
            return self._broken(name)
        service, ended = task.service, task.exit
        directory = self._services.cgroups.directory(name)
        up = task.state.sub not in DOWN
        return {
            "name": name,
            "description": service.description,
            "state": ACTIVE[task.state.sub],
            "sub": task.state.sub,
            "result": task.state.result,
            "reason": _reason(task),
            "since": task.since,
            "started": task.started_at,
            "pid": task.leader or None,
            "status": None if ended is None else ended.code,
            "signal": None if ended is None else ended.signal,
            "restarts": task.restarts.total,
            "status_text": task.status_text or None,
            "enabled": name in self._supervisor.enabled or name == COMMAND,
            "runlevels": list(service.runlevels),
            "waits_for": list(task.waits_for),
            "requires": list(service.requires),
            "wants": list(service.wants),
            "after": sorted(self._services.graph.after[name]),
            "memory": cgroup_control.number(directory, "memory.current"),
            "processes": cgroup_control.count(directory)[0] if directory >= 0 and up else None,
            "cgroup": f"/{name}.service" if directory >= 0 else None,
            "type": service.type,
            "command": [*service.command],
            "origin": service.origin,
            "log": service.log.to,
        }

    def _broken(self, name: str) -> dict[str, Any]:
        empty: dict[str, Any] = dict.fromkeys(
            ("started", "pid", "status", "signal", "status_text", "memory", "processes", "cgroup")
        )
        return {
            **empty,
            "name": name,
            "description": "",
            "state": "failed",
            "sub": "failed",
            "result": "start-failure",
            "reason": self._services.broken[name],
            "since": self._supervisor.since,
            "restarts": 0,
            "enabled": name in self._supervisor.enabled,
            **{key: [] for key in ("runlevels", "waits_for", "requires", "wants", "after", "command")},
            "type": "simple",
            "origin": "",
            "log": "none",
        }


def _reason(task: Task) -> str:
    if task.state.sub == "waiting" and task.waits_for:
        return f"waits for {', '.join(task.waits_for)}"
    return "" if task.state.sub in UP else task.why


def _gone(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "ok": False,
        "state": "inactive",
        "sub": "dead",
        "reason": "there is no such service any more",
    }


def _is_up(task: Task) -> bool:
    return task.state.sub in UP or (
        task.state.sub == "dead" and task.service.type == "oneshot" and task.exit is not None and task.exit.code == 0
    )


def _is_down(task: Task) -> bool:
    return task.state.sub in DOWN


def _came(task: Task) -> bool:
    """Whether a start has come to its end: it is up, down, or has failed and will be tried again."""
    return task.state.sub in UP or task.state.sub in DOWN or task.state.sub == "auto-restart"


def _came_for_good(task: Task) -> bool:
    return task.state.sub in UP or task.state.sub == "failed" or _is_up(task)
