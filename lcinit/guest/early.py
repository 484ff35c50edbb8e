"""The first moments of a nested guest, before there is an event loop.

Importing the loop takes longer than all that PID 1 does for a guest which ends at once, and would take the processor
from the builder. So PID 1 first waits by hand; as soon as there is anything but a command that comes and goes, the
loop is imported and the supervisor takes over, with all that was heard by then.
"""

from __future__ import annotations

import os
import select
import time

from lcinit import log
from lcinit.boot import cgroup_control as cgroup
from lcinit.linux import signals
from lcinit.linux.signals import SignalFd
from lcinit.supervisor.guest_state import Action, Event, Rules, State, transition
from lcinit.supervisor.reaper import describe_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.report import Message, Reports
    from lcinit.boot.world import World
    from lcinit.linux.signals import SignalInfo
    from lcinit.supervisor.reaper import Status

LINGER = 0.03  # seconds that a guest has been up when the loop is imported for it


class Heard:
    """What came before the supervisor: `messages` of the start, `at_end` when there will be no more, `signals`."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.at_end = False
        self.signals: list[SignalInfo] = []


class First:
    """The first start, with what was heard of it."""

    def __init__(self, forked: tuple[int, Reports], heard: Heard) -> None:
        self.forked = forked
        self.heard = heard


class Early:
    """One wait by hand for the start `forked`."""

    def __init__(self, world: World, forked: tuple[int, Reports]) -> None:
        self.heard = Heard()
        self._world = world
        self._reports = forked[1]
        self._leader = -1
        self._told: set[str] = set()
        self._ends: float | None = None

    def wait(self) -> Action | None:
        """How lcinit is to end, where the guest came and went; None where a supervisor is needed."""
        reaper = self._world.reaper
        reaper.remember = True
        watched = SignalFd()
        poll = select.poll()
        poll.register(watched.fileno(), select.POLLIN)
        poll.register(self._reports.fileno(), select.POLLIN)
        try:
            while not self.heard.signals and "error" not in self._told and "console" not in self._told:
                status = reaper.unclaimed(self._leader)
                if self.heard.at_end and status is not None:
                    return self._end(status)
                if self._ends is not None and time.monotonic() >= self._ends:
                    return None
                left = None if self._ends is None else max(0.0, self._ends - time.monotonic()) * 1000
                for fd, _ in poll.poll(left):
                    if fd == watched.fileno():
                        self._take_signals(watched)
                    else:
                        self._listen()
                        if self.heard.at_end:
                            poll.unregister(fd)
            return None
        finally:
            watched.close()

    def _take_signals(self, watched: SignalFd) -> None:
        for info in watched.read():
            if info.signo == signals.SIGCHLD:
                self._world.reaper.reap()
            else:
                self.heard.signals.append(info)

    def _listen(self) -> None:
        messages, self.heard.at_end = self._reports.read()
        self.heard.messages += messages
        for message in messages:
            self._told.add(message.kind)
            if message.kind == "leader":
                self._leader = message.facts["pid"]
        if self.heard.at_end:
            self._ends = time.monotonic() + LINGER

    def _end(self, status: Status) -> Action | None:
        """The end of a guest whose init was executed and reaped; None if more is to be done than to end with it."""
        config = self._world.config
        rules = self._world.plan.supervision
        if "init" not in self._told or config.shutdown.after or rules is None:
            return None
        running = State(name="running", began=True)
        event = Event(kind="exited", status=status, signal=status.signal)
        _, actions = transition(running, event, Rules(on_reboot=rules.on_reboot, on_exit=rules.on_exit))
        if [action.kind for action in actions] != ["end"]:
            return None
        log.debug(f"the guest has ended: {describe_status(status)}")
        for message in self.heard.messages:
            if message.kind == "leader" and len(message.descriptors) > 1:
                for delay in cgroup.EMPTYING:
                    time.sleep(delay)
                    if cgroup.emptied(message.descriptors[1]):
                        break
            for fd in message.descriptors:
                os.close(fd)
        return actions[0]
