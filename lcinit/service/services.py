"""All services together: who waits for whom on the way up and on the way down. Each is a `Task`; this is around them.

On the way up a service waits until what it starts after has settled: it is up, or it is not coming. On the way down it
waits until those that start after it are down, as far as they are going down as well.
"""

from __future__ import annotations

import time

from lcinit import log
from lcinit.service.emptying import Emptying
from lcinit.service.order import Graph, cycles, start_order
from lcinit.service.states import ACTIVE, COMING, DOWN, UP, Event
from lcinit.service.task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from lcinit.config.service_values import Service
    from lcinit.service.cgroups import Cgroups
    from lcinit.service.launch import Launcher
    from lcinit.service.logger import Logger
    from lcinit.service.states import State
    from lcinit.service.tracking import Members
    from lcinit.supervisor.events import EventLog
    from lcinit.supervisor.spawn import Program

    Limits = tuple[tuple[int, int | None, int | None], ...]


class Means:
    """What services are run with."""

    def __init__(
        self,
        launcher: Launcher,
        logger: Logger,
        cgroups: Cgroups,
        members: Members,
        environment: Mapping[str, str],
        limits: Limits,
    ) -> None:
        self.launcher = launcher
        self.logger = logger
        self.cgroups = cgroups
        self.members = members
        self.environment = environment
        self.limits = limits


class Services:
    """The services that there are. `on_change(task)` is called after every change of a state, `on_lost(task)` for one
    that went down for good and that nobody wished so, `find_main` for a daemon that has forked.
    """

    def __init__(
        self,
        means: Means,
        events: EventLog,
        *,
        on_change: Callable[[Task], None],
        on_lost: Callable[[Task], None],
        find_main: Callable[[Task], None],
    ) -> None:
        self.launcher = means.launcher
        self.logger = means.logger
        self.cgroups = means.cgroups
        self.members = means.members
        self.environment = means.environment
        self.limits = means.limits
        self.tasks: dict[str, Task] = {}
        self.graph = Graph({})
        self.broken: dict[str, str] = {}
        self.stopping = False
        self.adapted: dict[str, Callable[[Program], Program]] = {}  # what else is done to a service's main program
        self.find_main = find_main
        self._on_change = on_change
        self._on_lost = on_lost
        self._events = events
        self._leaving: dict[str, Event] = {}
        self._circles: dict[str, tuple[str, ...]] = {}

    @property
    def services(self) -> Mapping[str, Service]:
        """What they are, by name."""
        return self.graph.services

    def define(
        self,
        services: Iterable[Service],
        first: Collection[str] = (),
        last: str = "",
        gone: Collection[str] = (),
    ) -> None:
        """From now on these are the services, with `first`, `last` and `gone` as of Graph. Those that are left out must
        be down; those that run keep running.
        """
        known = {service.name: service for service in services}
        self.graph = Graph(known, first, last, gone)
        told = set(self._circles.values())
        self._circles = {name: circle for circle in cycles(self.graph) for name in circle}
        for circle in dict.fromkeys(circle for circle in self._circles.values() if circle not in told):
            log.error(f"these services start after one another in a circle: {' -> '.join((*circle, circle[0]))}")
        for name in [name for name in self.tasks if name not in known]:
            self.tasks.pop(name).close()
            self._discard_cgroup(name)
        for name, service in known.items():
            if name not in self.tasks:
                self.tasks[name] = Task(service, self)
            else:
                self.tasks[name].replace_policy(service)

    # up

    def start(self, names: Iterable[str]) -> frozenset[str]:
        """Have these come up, and all that they pull in; the names of all of them."""
        wanted = self.graph.pulled_in(names)
        order = start_order(self.graph, wanted)
        for name in (*order, *sorted(wanted.difference(order))):
            # an order that was given before, to leave, is over
            self._leaving.pop(name, None)
            self.tasks[name].happen(Event(kind="start"))
        return wanted

    def look_at(self, task: Task) -> None:
        """Whether a service that waits may go on, and what it waits for otherwise."""
        name = task.name
        if task.state.sub != "waiting" or self._is_to_stop(name):
            return
        why = self._impossible(name)
        if not why:
            task.waits_for = self._awaited(name)
            if task.waits_for:
                return
            why = self._unmet(name)
        task.waits_for = ()
        if why:
            task.why = why
            task.happen(Event(kind="blocked"))
        else:
            task.go()

    def _impossible(self, name: str) -> str:
        circle = self._circles.get(name)
        if circle is not None:
            return f"it starts after itself: {' -> '.join((*circle, circle[0]))}"
        missing = self.graph.missing(name)
        if missing:
            broken = self.broken.get(missing[0])
            return f"it requires {missing[0]}, " + ("whose file is wrong" if broken else "and there is no such service")
        return ""

    def _awaited(self, name: str) -> tuple[str, ...]:
        """What it starts after and that has not settled yet."""
        earlier = self.graph.after[name]
        requires = self.services[name].requires
        return tuple(other for other in sorted(earlier) if not self._settled(other, required=other in requires))

    def _settled(self, name: str, *, required: bool = False) -> bool:
        """Whether there is nothing to wait for: it is up, or it is not about to be.

        What waits for a restart after a failure has settled for those that do without it.
        """
        task = self.tasks[name]
        if name in self._leaving and task.state.sub not in DOWN:
            return False
        if task.state.sub == "auto-restart":
            return not required
        return task.state.sub not in COMING and (task.state.sub in UP or task.state.sub in DOWN)

    def _unmet(self, name: str) -> str:
        """Why a requirement is not met, now that all has settled; empty if each is."""
        for other in self.services[name].requires:
            state = self.tasks[other].state
            done = state.sub == "dead" and state.result == "success" and self.services[other].type == "oneshot"
            if state.sub not in UP and not done:
                return f"it requires {other}, which {'has failed' if state.sub == 'failed' else 'is not up'}"
        return ""

    # down

    def stop(self, names: Iterable[str], *, result: str = "success", at_once: bool = False) -> frozenset[str]:
        """Have these go down, and all that require them; the names of all of them."""
        event = Event(kind="stop", result=result, at_once=at_once)
        return self._leave(self.graph.dependent(names), dict.fromkeys(names, event), Event(kind="stop"))

    def restart(self, names: Iterable[str]) -> frozenset[str]:
        """Have these go down and come up again, and those that require them and are up."""
        event = Event(kind="restart")
        chosen = frozenset(names)
        others = [n for n in self.graph.dependent(chosen) if n in chosen or self.tasks[n].state.sub not in DOWN]
        for name in {*chosen, *others}:
            self.tasks[name].restarts.forget()
        going = self._leave(others, {}, event)
        self.start(name for name in chosen if self.tasks[name].state.sub in DOWN)
        return going

    def _leave(self, names: Iterable[str], own: Mapping[str, Event], event: Event) -> frozenset[str]:
        going = frozenset(name for name in names if self.tasks[name].state.sub not in DOWN)
        for name in going:
            self._leaving[name] = own.get(name, event)
        for name in going:
            self._try_to_leave(name)
        return going

    def _try_to_leave(self, name: str) -> None:
        """Ask it to go down once those that start after it are."""
        event = self._leaving.get(name)
        if event is None:
            return
        if any(later in self._leaving and not self._off(later) for later in self.graph.before[name]):
            return
        task = self.tasks[name]
        if event.kind == "restart" and task.state.sub in ("waiting", *DOWN):
            self._left(name)
            return
        task.happen(event)
        if task.state.sub in ("waiting", *DOWN):
            self._left(name)

    def _off(self, name: str) -> bool:
        return self.tasks[name].state.sub in ("waiting", "auto-restart", *DOWN)

    def _left(self, name: str) -> None:
        """It is down, or about to come up again: who had to wait for that goes on."""
        if self._leaving.pop(name, None) is None:
            return
        for earlier in self.graph.after[name]:
            self._try_to_leave(earlier)
        self._wake(name)

    def look_again(self) -> None:
        """Whoever waits for others may wait for other ones now: the order has changed."""
        for name in [name for name in self._leaving if name in self.tasks]:
            self._try_to_leave(name)
        for task in list(self.tasks.values()):
            self.look_at(task)

    def is_leaving(self, name: str) -> bool:
        """Whether it is to go down and has not yet, or waits for others to."""
        return name in self._leaving

    def staying(self) -> tuple[str, ...]:
        """Those that are not down, and not to go down for good."""
        return tuple(name for name in self.going() if self.tasks[name].state.wanted and not self._is_to_stop(name))

    def _is_to_stop(self, name: str) -> bool:
        event = self._leaving.get(name)
        return event is not None and event.kind == "stop"

    def hurry(self, seconds: float) -> None:
        """What is still to go down has so many seconds left, each."""
        for name in self._leaving:
            self.tasks[name].hurry(seconds)

    def kill_all(self) -> None:
        """Everything of every service, at once."""
        for name, task in self.tasks.items():
            if task.state.sub not in DOWN:
                self._leaving.pop(name, None)
                task.happen(Event(kind="stop", at_once=True))

    def going(self) -> tuple[str, ...]:
        """Those that are not down."""
        return tuple(sorted(name for name, task in self.tasks.items() if task.state.sub not in DOWN))

    def task_of(self, pid: int) -> Task | None:
        """The service that a process belongs to where no cgroup tells."""
        leaders = {each: task for task in self.tasks.values() for each in (task.leader, task.last_leader) if each}
        if pid in leaders:
            return leaders[pid]
        return next((leaders[each] for each in self.members.table.ancestors(pid) if each in leaders), None)

    # told by the tasks

    def changed(self, task: Task, before: State) -> None:
        """Tell all whom a change of its state concerns."""
        sub = task.state.sub
        self._record(task, before)
        if task.name in self._leaving and sub in ("waiting", "auto-restart", *DOWN):
            if sub not in DOWN and self._is_to_stop(task.name):
                task.happen(self._leaving[task.name])  # it has ended before its turn came, and does not come again
            elif sub != "auto-restart":
                self._left(task.name)
        if sub in UP or sub in DOWN or sub == "auto-restart":
            self._wake(task.name)
        self._on_change(task)

    def _wake(self, name: str) -> None:
        """Have those that wait for it look again."""
        for later in self.graph.before[name]:
            if self.tasks[later].state.sub == "waiting":
                self.look_at(self.tasks[later])

    def _record(self, task: Task, before: State) -> None:
        sub, name = task.state.sub, task.name
        if sub == "reload" or before.sub == "reload":
            kind = "service-reloading" if sub == "reload" else "service-reloaded"
        elif sub in UP:
            kind = "service-started"
        elif sub == "failed":
            kind = "service-failed"
        elif sub == "dead":
            kind = "service-stopped"
        elif sub == "auto-restart":
            kind = "service-ended"
        elif sub == "start":
            kind = "service-starting"
        elif sub in ("stop-sigterm", "stop-watchdog"):
            kind = "service-stopping"
        elif sub == "stop-sigkill":
            kind = "service-killed"
        else:
            return
        facts: dict[str, object] = {"service": name}
        if sub in ("failed", "auto-restart", "dead"):
            facts["result"] = task.state.result
            if task.why:
                facts["reason"] = task.why
        self._events.record(kind, **facts)

    def came_up(self, task: Task) -> None:
        """Say so."""
        took = "" if task.started is None else f" ({(time.monotonic() - task.started) * 1000:.0f} ms)"
        log.info(f"{task.name} is up{took}")

    def went_down(self, task: Task, *, asked: bool) -> None:
        """What it means for others that it is down for good."""
        if task.state.result == "success":
            log.info(f"{task.name} is down")
        else:
            log.error(f"{task.name} has failed: {task.why or task.state.result}")
        self._discard_cgroup(task.name)
        if asked:
            return
        if task.state.result != "success" and not self.stopping:
            others = self.graph.dependent((task.name,)) - {task.name}
            for name in others:
                if self.tasks[name].state.sub not in (*DOWN, "waiting"):
                    self.tasks[name].why = f"it requires {task.name}, which has failed"
            self._leave([name for name in others if self.tasks[name].state.sub != "waiting"], {}, _LOST)
        self._on_lost(task)

    def _discard_cgroup(self, name: str) -> None:
        """Remove it once those are gone that were killed there, unless it is needed again by then."""

        def remove() -> None:
            task = self.tasks.get(name)
            if task is None or task.state.sub in DOWN:
                self.cgroups.remove(name)

        Emptying(self.cgroups, name).then(remove)


_LOST = Event(kind="stop", result="dependency")


def describe(task: Task) -> str:
    """Its state in systemd's words: `active (running)`."""
    return f"{ACTIVE[task.state.sub]} ({task.state.sub})"
