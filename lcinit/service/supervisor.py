"""PID 1 as the guest's own init: services by runlevel, requests, the shutdown. `services` knows how they go up and
down, this decides when.

Requests come from signals, initctl and the control socket, and all end in `request` or `set_runlevel`.
"""

from __future__ import annotations

import asyncio
import time

from lcinit import log
from lcinit.errors import EX_UNAVAILABLE, LcinitError
from lcinit.linux.signals import signal_name
from lcinit.service import runlevels
from lcinit.service.command import COMMAND, command_service
from lcinit.service.services import Services
from lcinit.service.states import DOWN, UP
from lcinit.supervisor.chores import Chores
from lcinit.supervisor.events import EventLog
from lcinit.supervisor.guest_state import Action
from lcinit.supervisor.meanings import meaning
from lcinit.supervisor.watch import SignalStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.boot.world import World
    from lcinit.config.service_values import Catalogue, Service
    from lcinit.linux.signals import SignalInfo
    from lcinit.plan.steps import KeepServices
    from lcinit.plan.supervision import Supervision
    from lcinit.service.aggregate import Aggregate
    from lcinit.service.changes import Change
    from lcinit.service.services import Means
    from lcinit.service.task import Task

PROGRESS = 5.0  # seconds between two lines that say what is waited for
LAST_PATIENCE = 5.0  # seconds after everything was killed until lcinit ends whatever is left
LOG_LINES = 1000  # of lcinit's own that are kept for those who ask
WORDS = ("poweroff", "halt", "reboot", "restart")


class Supervisor:
    """All services, from the boot to the last end."""

    def __init__(self, world: World, step: KeepServices, means: Means, aggregate: Aggregate) -> None:
        rules = world.plan.supervision
        if rules is None:
            raise AssertionError("a plan that hands over has nothing to supervise")
        log.keep(LOG_LINES)
        self.world = world
        self.rules: Supervision = rules
        self.step = step
        self.events = EventLog()
        self.since = time.time()
        self.runlevel = world.config.runlevel
        self.previous = runlevels.NONE
        self.enabled: frozenset[str] = frozenset()
        self.word: str | None = None  # what was asked for, once that is how all ends
        self.origin = ""
        self.asked: float | None = None  # time.monotonic()
        self.starts = 1
        self.listeners: list[Callable[[], object]] = []
        self.services = Services(
            means,
            self.events,
            on_change=self._changed,
            on_lost=self._lost,
            find_main=self._find_main,
        )
        self.on_signal: Callable[[SignalInfo], object] = lambda _info: None
        self.find_main: Callable[[Task], object] = lambda _task: None
        self.reread: Callable[[], object] = lambda: None
        self._aggregate = aggregate
        self._chores = Chores()
        self._catalogue: Catalogue
        self._done: asyncio.Future[Action]
        self._status = 0  # of what ended and was essential
        self._members: frozenset[str] = frozenset()
        self._categories: dict[str, str] = {}
        self._counts = {"up": 0, "failed": 0}
        self._signals = SignalStream(world.reaper, self._take_signal)

    # from the boot to the end

    def begin(self, catalogue: Catalogue) -> None:
        """Know the services, and start those of the runlevel. Needs the loop."""
        self._done = asyncio.get_running_loop().create_future()
        self.world.supervised = True
        self._signals.start()
        self.take(catalogue)
        self._boot()

    async def run(self) -> Action:
        """Until it is over; how lcinit is to end."""
        try:
            return await self._done
        finally:
            self._chores.forget_timers()
            self._signals.stop()

    def take(self, catalogue: Catalogue, kept: tuple[Service, ...] = ()) -> None:
        """From now on these are the services, and those that are `kept` although they are no longer among them;
        nothing is started or stopped for it.
        """
        for broken in catalogue.broken:
            log.error(broken.text)
        self.services.broken = {broken.name: broken.text for broken in catalogue.broken}
        own = () if not self.step.argv else (command_service(self.step, self.world.config, self.rules),)
        self.enabled = frozenset(catalogue.enabled)
        known = {service.name: service for service in catalogue.services}
        first = runlevels.of_boot(known, self.enabled)
        gone = frozenset(service.name for service in kept)
        self.services.define((*catalogue.services, *kept, *own), first, COMMAND, gone)
        self._catalogue = catalogue

    def _boot(self) -> None:
        log.info(f"runlevel {self.runlevel}")
        self._start_members()

    def members(self, runlevel: str) -> frozenset[str]:
        """The services of a runlevel, and what they pull in."""
        own = (COMMAND,) if self.step.argv else ()
        return self.services.graph.pulled_in((*runlevels.members(self.services.services, self.enabled, runlevel), *own))

    def _start_members(self) -> None:
        self._members = self.members(self.runlevel)
        self._count_again()
        self.services.start(self._members)
        self._tell()

    def apply(self, catalogue: Catalogue, found: tuple[Change, ...]) -> None:
        """Take a newly read catalogue and do what its differences mean. Services that are gone are stopped, and
        forgotten once they are down.
        """
        services = self.services
        stop, restart, start = ([c.name for c in found if c.effect == e] for e in ("stop", "restart", "start"))
        gone = [change.name for change in found if change.kind == "removed"]
        kept = tuple(services.services[name] for name in gone if services.tasks[name].state.sub not in DOWN)
        self.take(catalogue, kept)
        self._members = self.members(self.runlevel)
        self._count_again()
        services.stop(stop)
        services.restart(restart)
        services.start(start)
        services.look_again()
        self._tell()
        if kept:
            self.listeners.append(self._forget_gone)
            self._forget_gone()

    def _forget_gone(self) -> None:
        """Once all that are no longer defined are down."""
        if self._gone_are_down():
            self.listeners.remove(self._forget_gone)
            asyncio.get_running_loop().call_soon(self._take_without_gone)

    def _take_without_gone(self) -> None:
        if self._gone_are_down():  # another daemon-reload may have come between
            self.take(self._catalogue)

    def _gone_are_down(self) -> bool:
        return all(self.services.tasks[name].state.sub in DOWN for name in self.services.graph.gone)

    # what is asked for

    def set_runlevel(self, runlevel: str, origin: str) -> None:
        """Go to a runlevel from 1 to 5, or S: services that it does not have stop, those that it has start."""
        self._refuse_at_end(f"runlevel {runlevel}")
        wanted = runlevels.normal(runlevel)
        if wanted not in runlevels.LEVELS:
            raise LcinitError(f"there is no runlevel {runlevel}", hint="they are 1 to 5, and S", exit_code=64)
        self.previous, self.runlevel = self.runlevel, wanted
        log.info(f"runlevel {wanted}, asked for by {origin}")
        self.events.record("runlevel-changed", runlevel=wanted, previous=self.previous, origin=origin)
        keep = self.members(wanted)
        self.services.stop([name for name in self.services.going() if name not in keep])
        for name in keep:
            self.services.tasks[name].restarts.forget()
        self._start_members()

    def request(self, word: str, origin: str, *, at_once: bool = False) -> None:
        """Begin poweroff, halt, reboot, restart or reload; returns at once. Raises LcinitError when that cannot be."""
        if word == "reload":
            self._refuse_at_end(word)
            self.reread()
            return
        if word not in WORDS:
            raise LcinitError(
                f"{word} is not possible with exec.pid: shared",
                hint="lcinit has left its own root behind: restart the container",
                exit_code=EX_UNAVAILABLE,
            )
        self.events.record("stop-asked", request=word, origin=origin, at_once=at_once)
        first, self.word, self.origin = self.word is None, word, origin
        if first:
            log.info(f"{word}, asked for by {origin}: the services stop, within {self.rules.timeout:g} s")
            self._begin_to_end()
        if at_once:
            self.services.kill_all()
        self._end_if_down()

    def _refuse_at_end(self, what: str) -> None:
        if self.word is not None:
            raise LcinitError(f"{what} is not possible now: lcinit stops", exit_code=EX_UNAVAILABLE)

    def _begin_to_end(self) -> None:
        self.since = time.time()
        self.asked = time.monotonic()
        self.services.stopping = True
        self._aggregate.stopping()
        self._chores.later(PROGRESS, self._say_progress)
        self._chores.later(self.rules.timeout, self._time_is_up)
        self.services.stop(list(self.services.services))

    def _say_progress(self) -> None:
        going = self.services.going()
        if self.asked is not None and going:
            left = max(0.0, self.rules.timeout - (time.monotonic() - self.asked))
            shown = ", ".join(going[:10]) + (f" and {len(going) - 10} more" if len(going) > 10 else "")
            log.info(f"waiting for {shown}; {left:.0f} s left")
            self._chores.later(PROGRESS, self._say_progress)

    def _time_is_up(self) -> None:
        going = self.services.going()
        if going:
            log.warning(f"killing what has not stopped within {self.rules.timeout:g} s: {', '.join(going)}")
            self.events.record("services-killed", services=list(going))
        self.services.kill_all()
        self._chores.later(LAST_PATIENCE, self._end)

    def _end_if_down(self) -> None:
        if self.word is not None and not self.services.going():
            self._end()

    def _end(self) -> None:
        word = self.word
        if word is None or self._done.done():
            return
        if word == "restart" or (word == "reboot" and self.rules.on_reboot == "restart"):
            self._again()
            return
        if word == "exit":
            self._done.set_result(Action(kind="end", how="exit", status=self._status))
        elif word == "reboot" and self.rules.on_reboot == "propagate":
            self._done.set_result(Action(kind="end", how="reboot", status=self._status))
        else:
            how = "halt" if word == "halt" else "poweroff"
            self._done.set_result(Action(kind="end", how=how, status=self._status))  # type: ignore[arg-type]

    def _again(self) -> None:
        """A reboot in place: all services stopped, and the boot's runlevel starts again."""
        self._chores.forget_timers()
        self.word, self.asked, self.origin = None, None, ""
        self.services.stopping = False
        self.previous, self.runlevel = runlevels.NONE, self.world.config.runlevel
        self.starts += 1
        self.events.record("guest-restarting", reason="reboot", delay=0.0)
        for task in self.services.tasks.values():
            task.restarts.forget()
        self._boot()

    # what happens

    def _take_signal(self, info: SignalInfo) -> None:
        meant = meaning(info.signo, info.code, self.rules)
        if meant.what == "stop" and meant.word is not None:
            self.request(meant.word, signal_name(info.signo), at_once=meant.at_once)
        elif meant.what == "reload":
            self.request("reload", signal_name(info.signo))
        elif meant.what == "forward":
            task = self.services.tasks.get(COMMAND)
            if task is None or not task.signal(info.signo, "main"):
                log.debug(f"{signal_name(info.signo)} is for nobody")
        else:
            self.on_signal(info)

    def _changed(self, task: Task) -> None:
        self._count(task)
        if self.word is None:
            self._tell()
        for listener in list(self.listeners):
            listener()
        if self.word is not None and task.state.sub in DOWN:
            if task.name == COMMAND and task.exit is not None and self.word != "exit":
                self._status = task.exit.code  # as that of a nested guest that is no init
            asyncio.get_running_loop().call_soon(self._end_if_down)

    def _lost(self, task: Task) -> None:
        """A service went down for good, and nobody wished so."""
        if not task.service.essential or self.word is not None:
            return
        self._status = 1 if task.exit is None else task.exit.code
        if task.exit is None or task.state.result not in ("success", "exit-code", "signal", "core-dump", "oom-kill"):
            self._status = self._status or 1
        log.info(f"{task.name} is essential and has ended ({task.why or 'exit code 0'}): lcinit ends with its code")
        self.events.record("stop-asked", request="exit", origin=task.name, at_once=False)
        self.word, self.origin = "exit", task.name
        self._begin_to_end()
        asyncio.get_running_loop().call_soon(self._end_if_down)

    def _find_main(self, task: Task) -> None:
        self.find_main(task)

    # how many are up

    def _count_again(self) -> None:
        self._categories.clear()
        self._counts = {"up": 0, "failed": 0}
        for name in self._members:
            self._count(self.services.tasks[name])

    def _count(self, task: Task) -> None:
        if task.name not in self._members:
            return
        sub = task.state.sub
        done = sub == "dead" and task.service.type == "oneshot" and task.exit is not None
        now = "up" if sub in UP or done else "failed" if sub == "failed" else ""
        before = self._categories.get(task.name, "")
        if now != before:
            self._categories[task.name] = now
            if before:
                self._counts[before] -= 1
            if now:
                self._counts[now] += 1

    def counts(self) -> dict[str, int]:
        """How many services of the runlevel are up, have failed, and are there."""
        return {**self._counts, "total": len(self._members)}

    def _tell(self) -> None:
        self._aggregate.update(self._counts["up"], self._counts["failed"], len(self._members))

    # files that have changed

    def differences(self, catalogue: Catalogue) -> tuple[Change, ...]:
        """What a newly read catalogue would change."""
        from lcinit.service.changes import changes

        new = {service.name: service for service in catalogue.services}
        old = {name: service for name, service in self.services.services.items() if name != COMMAND}
        return changes(
            old,
            new,
            up=[name for name in self.services.staying() if name != COMMAND],
            old_members=runlevels.members(old, self.enabled, self.runlevel),
            new_members=runlevels.members(new, catalogue.enabled, self.runlevel),
        )
