"""One service: its state, its processes and its timers. `machine` decides, this does; an error here is this service's.

What lies between services (who waits for whom, the runlevel, requests) is in `services`; it is told through `Around`.
"""

from __future__ import annotations

import os
import time

from lcinit import log
from lcinit.linux.signals import SIGKILL, signal_number
from lcinit.service import tracking
from lcinit.service.deadline import Deadline
from lcinit.service.emptying import Emptying
from lcinit.service.exits import Exit, exit_of
from lcinit.service.machine import transition
from lcinit.service.phases import Phases
from lcinit.service.programs import Streams, main_program
from lcinit.service.restarts import Restarts
from lcinit.service.states import UP, Action, Event, State, rules_of
from lcinit.service.vigil import Vigil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.service_values import Service
    from lcinit.config.values import Command
    from lcinit.errors import CommandFailed
    from lcinit.service.around import Around
    from lcinit.service.launch import Process
    from lcinit.service.notifications import Notification
    from lcinit.service.ready_fd import ReadyFd
    from lcinit.supervisor.reaper import Status
    from lcinit.supervisor.spawn import Program


class Task:
    """A service while lcinit knows of it. Needs the loop."""

    def __init__(self, service: Service, around: Around) -> None:
        self.service = service
        self.state = State()
        self.since = time.time()
        self.begun = 0.0  # time.monotonic() of the request for the main process
        self.started: float | None = None  # the same of its exec
        self.started_at: float | None = None
        self.main: Process | None = None
        self.exit: Exit | None = None
        self.why = ""  # in words, what made the result what it is
        self.status_text = ""
        self.ready = False
        self.restarts = Restarts()
        self.starts = 0
        self.reload_failed = False
        self.waits_for: tuple[str, ...] = ()
        self._around = around
        self._rules = rules_of(service)
        self._pending: list[Event] = []
        self._happening = False
        self._deadline = Deadline(self._time_is_up)
        self._back_off = Deadline(self._due)
        self._phases = Phases(self, around.launcher)
        self._ready_fd: ReadyFd | None = None
        self._vigil = Vigil(self)
        self._program: Program | None = None
        self._oom_before = 0
        self._output = -1
        self._emptying = Emptying(around.cgroups, service.name)
        self.last_leader = 0  # the main process, also after its end: its session outlives it

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    def replace_policy(self, service: Service) -> None:
        """From now on another configuration, of which the running process needs to know nothing."""
        old, self.service = self.service, service
        self._rules = rules_of(service)
        if service.log != old.log and self._output >= 0:
            self._around.logger.settings(self.name, service.log)
        if service.cgroup != old.cgroup:
            self._around.cgroups.limit(self.name, service.cgroup)
        if service.health != old.health and self.state.sub in UP:
            self._vigil.change_health(service)

    def happen(self, event: Event) -> None:
        """Take an event: the state changes, and what that means is done."""
        self._pending.append(event)
        if self._happening:
            return
        self._happening = True
        try:
            while self._pending:
                self._take(self._pending.pop(0))
        finally:
            self._happening = False

    def _take(self, event: Event) -> None:
        before = self.state
        self.state, actions = transition(before, event, self._rules)
        changed = self.state.sub != before.sub
        if changed:
            self.since = time.time()
            if self.state.sub not in UP:
                self._vigil.end()
        for action in actions:
            try:
                self._do(action)
            except Exception as error:
                log.unexpected(f"{action.kind} of {self.name}", error)
        if changed:
            self._around.changed(self, before)

    def _do(self, action: Action) -> None:
        if action.kind == "wait":
            self._forget_back_off()
            self._around.look_at(self)
        elif action.kind == "commands":
            self._begin_commands(action.name)
        elif action.kind == "spawn":
            self._spawn()
        elif action.kind == "deadline":
            seconds = self.service.start_timeout if action.name == "start" else self.service.stop_timeout
            self._deadline.arm(action.name, seconds)
        elif action.kind == "no-deadline":
            self._deadline.cancel()
        elif action.kind == "signal":
            self._ask_to_end(watchdog=action.name == "watchdog")
        elif action.kind == "abort":
            self._emptying.forget()
            self._phases.abort()
        elif action.kind == "kill":
            self.kill_all()
        elif action.kind == "up":
            self._up()
        elif action.kind == "down":
            self._down(asked=action.asked)
        elif action.kind == "back-off":
            self._wait_before_restart()

    def _begin_commands(self, name: str) -> None:
        if name == "stop-post":
            self._emptying.then(lambda: self._phases.begin(name))
        else:
            self._phases.begin(name)

    # time

    def _time_is_up(self, name: str, seconds: float) -> None:
        if self.state.sub == "reload":
            # it stays up, and this is not to be the reason of an end that comes some day
            self.reload_failed = True
            log.warning(f"{self.name}: its reload took longer than {name}_timeout ({seconds:g} s)")
        elif not self.why:
            self.why = f"its {name} took longer than {name}_timeout ({seconds:g} s)"
        self.happen(Event(kind="deadline"))

    def hurry(self, seconds: float) -> None:
        """Have what is left of its stop take no longer than this."""
        self._deadline.hurry(seconds)

    def _wait_before_restart(self) -> None:
        now = time.monotonic()
        lived = now - self.started if self.started is not None else 0.0
        delay = self.restarts.delay(self.service, lived, _chance())
        log.info(f"{self.name} has ended ({self.why}); it is started again" + (f" in {delay:.3g} s" if delay else ""))
        if delay:
            self._back_off.arm("restart", delay)
        else:
            self._due()

    def _due(self, *_of_deadline: object) -> None:
        self.happen(Event(kind="due"))

    def _forget_back_off(self) -> None:
        self._emptying.forget()
        self._back_off.cancel()

    # the main process

    def go(self) -> None:
        """What it waits for has settled: begin, unless it was begun too often lately."""
        if self.state.sub == "waiting" and not self._emptying.pending:
            self._emptying.then(self._go)

    def _go(self) -> None:
        service = self.service
        if not self.restarts.started(service, time.monotonic()):
            self.why = (
                f"it was started {service.start_limit_burst} times within {service.start_limit_interval:g} s"
                f" (start_limit_burst), and ended last: {self.why or 'by itself'}"
            )
            self.happen(Event(kind="limit"))
            return
        self.starts += 1
        self.exit, self.status_text, self.why, self.ready = None, "", "", False
        self.started = self.started_at = None
        self._program = None
        self.happen(Event(kind="go"))

    def program(self) -> Program:
        """What its main process is: made once a start, but for its cgroup, which is another one after a kill."""
        if self._program is None:
            self._program = self._make_program()
        elif self._around.cgroups.was_killed(self.name):
            cgroup = self._around.cgroups.make(self.name, self.service.cgroup)
            self._program = self._program.replace(cgroup=cgroup if cgroup >= 0 else None)
        return self._program

    def _make_program(self) -> Program:
        service = self.service
        around = self._around
        if self._output < 0:
            self._output = around.logger.open(self.name, service.log)
        streams = Streams(self._output, around.cgroups.make(self.name, service.cgroup))
        program = main_program(service, around.environment, streams, around.limits)
        adapt = around.adapted.get(self.name)
        return program if adapt is None else adapt(program)

    def _spawn(self) -> None:
        self.begun = time.monotonic()
        try:
            program = self.program()
            used = bool(self.service.start_pre)
            self._oom_before = self._around.members.oom_kills_before(self.name, used=used)
            if self.service.type == "notify-fd":
                from lcinit.service.ready_fd import ReadyFd

                self._ready_fd = ReadyFd(self._ready, self._never_ready)
                program = program.replace(descriptors=((self._ready_fd.writer, self.service.notify_fd),))
            self.main = self._around.launcher.launch(program, self)
        except OSError as error:
            self._close_ready_fd()
            self.main = None
            self.why = f"cannot start {self.service.command[0]}: {error.strerror}"
            self.happen(Event(kind="unstartable"))

    def executed(self, process: Process) -> None:
        """The main program runs."""
        if process is not self.main:
            return
        if self._ready_fd is not None:
            self._ready_fd.handed()
        self.last_leader = self.leader
        self.started, self.started_at = time.monotonic(), time.time()
        self.happen(Event(kind="started"))

    def unstartable(self, process: Process, failure: CommandFailed) -> None:
        """The main program cannot be run."""
        if process is not self.main:
            return
        self._close_ready_fd()
        self.main = None
        self.why = failure.message
        self.exit = Exit(result="start-failure", code=failure.exit_code)
        self.happen(Event(kind="unstartable"))

    def ended(self, process: Process, status: Status) -> None:
        """The main process has ended; of a forking service, the one that it has forked from too."""
        if process is not self.main:
            return
        ended = exit_of(
            self.service,
            status,
            oom_kills=self._around.members.oom_kills(self.name) - self._oom_before,
        )
        self._close_ready_fd()
        if self.service.type == "forking" and self.state.sub == "start" and ended.result == "success":
            self.main = None
            self._around.find_main(self)
            return
        self.main = None
        self.exit = ended
        if not self.why:
            self.why = ended.words(early=self.state.sub == "start" and self.service.type.startswith("notify"))
        self.happen(Event(kind="exited", result=ended.result, prevent=ended.prevent))

    def adopt(self, pid: int) -> None:
        """Its main process from now on: a forking service's, or what MAINPID= names."""
        if self.main is not None:
            self.main.orphan()
        self.main = self._around.launcher.adopt(pid, self)
        self.last_leader = self._around.members.first_of(pid)

    def found_main(self, pid: int, why: str) -> None:
        """The PID file was read: `pid`, or 0 and why there is none."""
        if self.state.sub != "start":
            return
        if pid:
            self.adopt(pid)
            self.happen(Event(kind="ready"))
        else:
            self.why = why
            self.happen(Event(kind="exited", result="protocol"))

    def _ready(self) -> None:
        self.ready = True
        self.happen(Event(kind="ready"))

    def _never_ready(self) -> None:
        """It closed its notification descriptor without a newline: only its end or its time can follow."""
        if self.state.sub == "start":
            log.warning(f"{self.name} has closed descriptor {self.service.notify_fd} without saying that it is ready")

    def _close_ready_fd(self) -> None:
        if self._ready_fd is not None:
            self._ready_fd.close()
            self._ready_fd = None

    def notified(self, said: Notification) -> None:
        """What it said on $NOTIFY_SOCKET."""
        if said.status is not None:
            self.status_text = said.status
        if said.extend_timeout_usec is not None:
            self._deadline.extend(said.extend_timeout_usec / 1_000_000)
        self._vigil.notified(said, up=self.state.sub in UP)
        if said.reloading and self.state.sub == "running":
            self.happen(Event(kind="reloading"))
        if said.ready and self.service.type == "notify":
            self._ready()

    # stopping

    def _ask_to_end(self, *, watchdog: bool) -> None:
        number = signal_number(self.service.watchdog_signal if watchdog else self.service.stop_signal)
        if self.service.kill_mode == "control-group":
            self._around.members.signal_all(self.name, self.last_leader, number)
        elif self.main is not None:
            self.main.signal(number)
        if self.main is None:
            # a daemon that has forked, and that is not known yet: what there is of it is killed
            self.happen(Event(kind="exited"))

    @property
    def leader(self) -> int:
        """The PID of the main process, 0 for none."""
        return 0 if self.main is None or self.main.pid is None else self.main.pid

    def kill_all(self) -> None:
        """SIGKILL to everything of it."""
        if self.main is not None:
            self.main.signal(SIGKILL)
        if self.service.kill_mode == "process" and not self._around.stopping:
            return
        self._around.members.kill_all(self.name, self.last_leader)
        if self.main is None:
            self.last_leader = 0  # the number may be another's soon

    def signal(self, number: int, whom: str) -> int:
        """Signal its main process or all of it: how many there were."""
        if whom == "all":
            return self._around.members.signal_all(self.name, self.last_leader, number)
        if self.main is None or self.main.pid is None:
            return 0
        self.main.signal(number)
        return 1

    # up and down

    def _up(self) -> None:
        self.ready = True
        self._vigil.begin(self.service)
        self._around.came_up(self)

    async def check(self, command: Command, seconds: float) -> Status:
        """Run a health check's command."""
        return await tracking.run(self._around.launcher, self._phases.program(command, None), seconds)

    def sick(self, result: str, why: str, *, stop: bool = False) -> None:
        """Its watchdog or its health check gives it up; with `stop` for good."""
        self.why = why
        self.happen(Event(kind="stop" if stop else "sick", result=result))

    def _down(self, *, asked: bool) -> None:
        self._forget_back_off()
        self._close_ready_fd()
        self._program = None
        self.main = None
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
            self._around.logger.close(self.name)
        self._around.went_down(self, asked=asked)

    def close(self) -> None:
        """Forget it: whatever there is of it is down."""
        self._vigil.end()
        self._phases.abort()
        self._deadline.cancel()
        self._forget_back_off()


def _chance() -> float:
    """From 0 to 1, evenly: what the random module would say, whose import takes longer than the rest of this one's."""
    return int.from_bytes(os.urandom(4), "little") / (1 << 32)
