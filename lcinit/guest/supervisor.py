"""PID 1 while it stays: one object that has the guest's state, and acts as the pure parts decide.

`supervisor.guest_state` says what an event means, `supervisor.meanings` what a signal means, `guest.ask` how the
guest's init is asked. Requests come from signals, initctl and the control socket, and all end in `request`; what the
control socket wants besides is in `guest.offered`.
"""

from __future__ import annotations

import asyncio
import os
import time

from lcinit import log
from lcinit.boot import builder
from lcinit.boot import cgroup_control as cgroup
from lcinit.control.ratelimit import RateLimit
from lcinit.errors import EX_UNAVAILABLE, LcinitError
from lcinit.guest import reexec, status
from lcinit.guest.ask import Asker
from lcinit.guest.console import Console
from lcinit.guest.notify import Readiness
from lcinit.guest.reexec import Handed
from lcinit.guest.start import Start
from lcinit.guest.takeover import facts_of
from lcinit.linux.signals import signal_name
from lcinit.supervisor.backoff import BackOff
from lcinit.supervisor.chores import Chores
from lcinit.supervisor.events import EventLog
from lcinit.supervisor.guest_state import Action, Event, Rules, State, transition
from lcinit.supervisor.meanings import Meaning, meaning
from lcinit.supervisor.reaper import describe_status
from lcinit.supervisor.watch import SignalStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lcinit.boot.world import World
    from lcinit.guest.early import First
    from lcinit.linux.signals import SignalInfo
    from lcinit.plan.supervision import Supervision
    from lcinit.supervisor.reaper import Status

PROGRESS = 5.0  # seconds between two lines that say what is waited for
LOG_LINES = 1000  # of lcinit's own that are kept for those who ask
HISTORY = 100  # starts that are remembered
REBOOTS, PACE = 128, 2.0  # that many reboots in a row start the guest at once; then it waits so long after every other


class Supervisor:
    """One guest, from its first start to the last end."""

    def __init__(self, world: World, number: int, first: First | Handed) -> None:
        """`number` is the step at which a builder begins; `first` what there is already: a start, or a whole guest that
        another lcinit has handed on.
        """
        rules = world.plan.supervision
        if rules is None:
            raise AssertionError("a plan that hands over has nothing to supervise")
        log.keep(LOG_LINES)
        self.world = world
        self.rules: Supervision = rules
        self.events = EventLog()
        self.console = Console()
        self.state = State()
        self.since = time.time()
        self.current: Start | None = None
        self.starts = 0
        self.history: list[dict[str, Any]] = []
        self.ready: bool | None = None
        self.frozen = False
        self.stop_origin = ""
        self.stop_asked: float | None = None  # time.monotonic()
        self._number = number
        self._first: First | Handed | None = first
        self._rules = Rules(on_reboot=rules.on_reboot, on_exit=rules.on_exit)
        self.back_off = BackOff()
        self._pace = RateLimit(REBOOTS, PACE)
        self._asker: Asker | None = None
        self._chores = Chores()
        self.services: Any = None
        self.readiness: Readiness | None = None
        self._done: asyncio.Future[Action]
        self.failed_to_start = False
        self._next: Action | None = None
        self._putting_away = False  # from the end of a guest until the next step
        self._after: asyncio.Task[None] | None = None
        self._signals = SignalStream(world.reaper, self._take_signal)

    async def run(self) -> Action:
        """Supervise; returns how lcinit is to end."""
        self._done = asyncio.get_running_loop().create_future()
        self.world.supervised = True
        self.world.reaper.remember = True  # the first builder and its leader may have ended by now
        first, self._first = self._first, None
        try:
            if isinstance(first, Handed):
                self._take_over(first)
            else:
                # before any signal: what has been told of the guest by now may be that it is up
                self._prepare(first)
                for info in first.heard.signals if first is not None else ():
                    self._take_signal(info)
            self._signals.start()
            action = await self._done
            if self.services is not None:
                await self.services.drain()
            return action
        finally:
            self._chores.forget_timers()
            if self.services is not None:
                self.services.close()
            self.console.restore()
            self._signals.stop()

    # what is asked for

    def request(self, word: str, origin: str, *, at_once: bool = False) -> None:
        """Have the guest stopped or started again; returns at once. Raises LcinitError when that cannot be."""
        if word == "reexec":
            self.reexec()
            return
        if at_once and self._after is not None:
            self._after.cancel()
        if self.state.name == "ended":
            raise LcinitError(f"{word} was asked for, but lcinit is ending", exit_code=EX_UNAVAILABLE)
        if word == self.state.word and not at_once:
            log.debug(f"{word} was asked for again, by {origin}")  # a flood of them is no news
            return
        self.events.record("stop-asked", request=word, origin=origin, at_once=at_once)
        now = " at once" if at_once else ""
        log.info(f"{word}{now} was asked for by {origin}")
        if self.stop_asked is None:
            self.stop_asked = time.monotonic()
        self.stop_origin = origin
        self._happen(Event(kind="asked", word=word, at_once=at_once))  # type: ignore[arg-type]

    def reexec(self) -> None:
        """Become the lcinit that is installed now, without touching the guest; returns at once.

        Raises LcinitError unless the guest runs and nobody has asked it for anything.
        """
        if self.state.name != "running" or self.current is None or not self.current.builder_is_done:
            raise LcinitError(
                f"reexec: the guest is {self.state.name}", hint="try again while it runs", exit_code=EX_UNAVAILABLE
            )
        self._chores.spawn(self._reexec())

    async def _reexec(self) -> None:
        state = reexec.write_state(facts_of(self))
        try:
            await reexec.rehearse(self, state)
        except LcinitError as error:
            log.error(str(error))
            self.events.record("reexec-refused", reason=error.message)
            return
        finally:
            os.close(state)
        if self.services is not None:
            await self.services.drain()
        if self.state.name == "running":
            reexec.become(facts_of(self))

    def _take_over(self, handed: Handed) -> None:
        """Go on where the lcinit before this one ended."""
        facts = handed.facts
        self.since, self.starts, self.history = facts["since"], facts["starts"], facts["history"]
        self.ready, self.frozen = facts["ready"], facts["frozen"]
        self.events.restore(facts["events"], facts["events_last"])
        log.restore(facts["log"])
        self.back_off = BackOff(facts["failures"])
        self.state = State(name="running", began=True)
        start = Start.taken_over(self.world, handed)
        self.console.take_over(facts["console"], handed.descriptor("console"))
        self._asker = self._asker_for(start)
        self.readiness = Readiness(start, self._is_ready, told=self.ready is not False)
        self.events.record("reexecuted", pid=start.pid)
        log.info(f"this is another lcinit now; the guest's {start.name} goes on as process {start.pid}")
        self._watch(start)
        self._serve(handed)

    def _asker_for(self, start: Start) -> Asker:
        return Asker(start, self.world.config.exec.stop, asyncio.get_running_loop(), self._answered)

    # what happens

    def _take_signal(self, info: SignalInfo) -> None:
        meant: Meaning = meaning(info.signo, info.code, self.rules)
        if meant.what == "stop" and meant.word is not None:
            sender = f" from process {info.pid}" if info.pid else ""
            self.request(meant.word, f"{signal_name(info.signo)}{sender}", at_once=meant.at_once)
        elif meant.what == "resize":
            self.console.resize()
        elif meant.what == "initctl" and self.services is not None:
            self.services.look()
        elif meant.what == "reload":
            log.info("SIGHUP: the configuration is read when lcinit starts, or at `lcinit reexec`")
        elif meant.what == "forward" and self.current is not None and self.current.started is not None:
            self.current.signal(info.signo)

    def _happen(self, event: Event) -> None:
        before = self.state.name
        self.state, actions = transition(self.state, event, self._rules)
        if self.state.name != before:
            self.since = time.time()
            log.debug(f"the guest is {self.state.name}")
        for action in actions:
            try:
                self._do(action)
            except Exception as error:
                log.unexpected(f"at {action.kind} of the guest", error)  # the next one may be its remedy

    def _do(self, action: Action) -> None:
        if action.kind == "ask":
            self._ask(action.word or "poweroff")
        elif action.kind == "deadline":
            self._chores.later(self.rules.timeout, self._deadline)
            self._chores.later(PROGRESS, self._progress)
        elif action.kind == "kill":
            self._kill()
        elif self._putting_away:
            self._next = action  # what was asked for meanwhile, when that is done
        else:
            self._chores.spawn(self._after_end(action))

    def _ask(self, word: str) -> None:
        if self.frozen and self.current is not None:
            cgroup.set_frozen(self.current.cgroup_fd, False)  # else nobody hears
            self.frozen = False
            self.events.record("thawed")
        if self._asker is not None:
            self._answered(word, *self._asker.ask(word))

    def _deadline(self) -> None:
        log.warning(f"the guest has not ended within {self.rules.timeout:g} s: killing it")
        self._happen(Event(kind="deadline"))

    def _progress(self) -> None:
        if self.state.name in ("stopping", "killing") and self.stop_asked is not None and self.current is not None:
            waited = time.monotonic() - self.stop_asked
            log.warning(f"waiting for {self.current.everybody}, {waited:.0f} of {self.rules.timeout:g} s")
            self._chores.later(PROGRESS, self._progress)

    def _kill(self) -> None:
        if self.current is not None:
            self.events.record("guest-killed", request=self.state.word)
            self.current.kill()
        elif not self._putting_away:
            self._happen(Event(kind="failed"))  # between two starts there is nobody whose end would be waited for

    # the starts

    def _prepare(self, first: First | None = None) -> None:
        """Begin a start; the first one's builder was forked before the loop was there."""
        self.world.reaper.remember = True
        forked = builder.start(self.world, self._number) if first is None else first.forked
        self.events.record("guest-preparing", number=self.starts + 1)
        self.frozen, self.ready, self.stop_asked, self.stop_origin = False, None, None, ""
        self._watch(Start(self.world, forked, None if first is None else first.heard))

    def _watch(self, start: Start) -> None:
        self.current = start
        start.on_started = self._started
        start.on_failed = self._failed
        start.on_console = self.console.attach
        start.on_ended = self._ended
        start.watch()

    def _started(self) -> None:
        current = self.current
        assert current is not None
        self.starts, self.failed_to_start = self.starts + 1, False
        times = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in current.phases.items())
        say = log.debug if current.kind == "plain" else log.info
        say(f"the guest's {current.name} is up as process {current.pid} ({times})")
        self.events.record("guest-started", pid=current.pid, init=current.kind, timings=current.phases)
        self._asker = self._asker_for(current)
        if current.kind == "systemd" and current.notify_fd >= 0:
            self.ready = False
        self.readiness = Readiness(current, self._is_ready)
        self._happen(Event(kind="started"))
        if self.services is None:
            asyncio.get_running_loop().call_soon(self._serve)

    def _is_ready(self) -> None:
        self.ready = True
        log.info("the guest is ready")
        self.events.record("guest-ready")

    def _failed(self, code: int) -> None:
        current = self.current
        assert current is not None
        if self.state.word is None:
            self.failed_to_start = True
            log.error(str(current.error or "the start of the guest ended without a word"))
        self._remember(current, "failed", code)
        self._happen(Event(kind="failed", status=code))

    def _ended(self, code: Status) -> None:
        current = self.current
        assert current is not None
        reason = describe_status(code)
        # of a plain command the exit code tells, unless it is started again
        say = log.debug if current.kind == "plain" and self.rules.on_exit == "exit" else log.info
        say(f"the guest has ended: {reason}")
        self._remember(current, reason, code)
        self._happen(Event(kind="exited", status=code, signal=code.signal))

    def _answered(self, word: str, answer: str, detail: str) -> None:
        """What has become of a request to the guest's init."""
        if answer == "sent":
            log.debug(f"{word} was asked of the guest's init: {detail}")
            self.events.record("stop-sent", request=word, detail=detail)
        elif answer == "held":
            log.debug(f"{word} is held {detail}")
        else:
            log.warning(f"the guest's init cannot be asked for {word}: {detail}; killing the guest")
            self.events.record("stop-refused", request=word, reason=detail)
            self._happen(Event(kind="unheard"))

    def _remember(self, current: Start, reason: str, code: int) -> None:
        ooms = cgroup.oom_kills(current.cgroup_fd)
        if ooms:
            self.events.record("oom-killed", count=ooms)
        self.events.record("guest-ended", reason=reason, status=code, request=self.state.word)
        self.history.append(status.past_start(current, reason, code, self.state.word, ooms))
        del self.history[:-HISTORY]

    async def _after_end(self, action: Action) -> None:
        """The guest is gone: put everything away, then start it again or end."""
        ended, self.current = self.current, None
        self._chores.forget_timers()
        lived = 0.0
        if ended is not None:
            lived = time.monotonic() - ended.started if ended.started is not None else 0.0
            self._putting_away = True
            try:
                await self._put_away(ended)
            except Exception as error:
                log.unexpected("at the end of the guest", error)
            self._putting_away = False
            action, self._next = self._next or action, None
        if action.kind == "prepare" and self.state.name == "killing":
            self._happen(Event(kind="failed"))  # what was asked for meanwhile counts
        elif action.kind == "prepare":
            delay = 0.0 if self._pace.take(time.monotonic()) else PACE
            self.events.record("guest-restarting", reason="reboot", delay=delay)
            self._chores.later(delay, self._begin) if delay else self._begin()
        elif action.kind == "back-off":
            delay = self.back_off.next(lived)
            log.info(f"the guest is started again in {delay:g} s")
            self.events.record("guest-restarting", reason="exit", delay=delay)
            self._chores.later(delay, lambda: self._happen(Event(kind="due")))
        elif not self._done.done():
            self._done.set_result(action)

    async def _put_away(self, ended: Start) -> None:
        if self._asker is not None:
            self._asker.close()
            self._asker = None
        if self.readiness is not None:
            self.readiness.close()
            self.readiness = None
        try:
            await self.console.drain()
            self.console.detach()
            await ended.remove_cgroup()
        finally:
            ended.close()
        if self.world.config.shutdown.after:
            from lcinit.guest.after import run_after

            self._after = self._chores.spawn(run_after(self.world, self.rules.timeout))
            await asyncio.wait((self._after,))
            self._after = None

    def _begin(self) -> None:
        """`_prepare`, again and again where this machine has no room for it now."""
        try:
            self._prepare()
        except (LcinitError, OSError) as error:
            delay = self.back_off.next(0)
            log.error(f"{error}; the guest's start is tried again in {delay:g} s")
            self._chores.later(delay, self._begin)

    # around it

    def _serve(self, handed: Handed | None = None) -> None:
        """Now that the guest is up there is time for those who want to talk to PID 1."""
        if self._done.done():
            return
        from lcinit.guest.services import Services

        self.services = Services(self, handed)
        self._chores.spawn(self.services.start())
