"""One start of the nested guest as PID 1 sees it: the builder, the leader, what they tell, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import time

from lcinit import log
from lcinit.boot import builder
from lcinit.boot import cgroup_control as cgroup
from lcinit.linux import process
from lcinit.linux.signals import SIGKILL, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from lcinit.boot.report import Message, Reports
    from lcinit.boot.world import World
    from lcinit.errors import LcinitError
    from lcinit.guest.early import Heard
    from lcinit.guest.reexec import Handed
    from lcinit.supervisor.reaper import Child, Reaper, Status

BUILDER_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for a builder that runs a command


class Start:
    """`pid`, `pidfd`, `root_fd` and `cgroup_fd` are the leader's, -1 while not known. `started` is when its init was
    executed (time.monotonic), `kind` which init it is.

    `on_started` is called once the guest's init was executed, `on_failed` with an exit code when it never will be,
    `on_console` with the master of its pty, `on_ended` with the status of an init that was executed.
    """

    def __init__(self, world: World, forked: tuple[int, Reports] | None, heard: Heard | None = None) -> None:
        """`forked` is the builder, `heard` what it has told already; None for a start that is taken over."""
        self.kind = "plain"
        self.owner = world.owner
        self.pid = self.pidfd = self.root_fd = self.cgroup_fd = self.notify_fd = -1
        self.prepared = time.monotonic()
        self.started: float | None = None
        self.started_at: float | None = None  # unix time
        self.phases: dict[str, float] = {}
        self.error: LcinitError | None = None
        self.on_started: Callable[[], None]
        self.on_failed: Callable[[int], None]
        self.on_console: Callable[[int], None]
        self.on_ended: Callable[[Status], None]
        self._builder_pid = -1 if forked is None else forked[0]
        self._reports: Reports | None = None if forked is None else forked[1]
        self._reaper: Reaper = world.reaper
        self._builder: Child | None = None
        self._leader: Child | None = None
        self._about_to_exec = False
        self._told_all = False
        self._over = False
        self._killed = False
        self._heard = heard

    @classmethod
    def taken_over(cls, world: World, handed: Handed) -> Self:
        """The start that another lcinit made and a reexec has handed on: its guest runs."""
        start = cls(world, None)
        facts = handed.facts["start"]
        start.kind, start.pid = facts["kind"], facts["pid"]
        start.started, start.started_at, start.phases = facts["started"], facts["started_at"], facts["phases"]
        start.owner = tuple(facts["owner"])
        start.pidfd = handed.descriptor("pidfd")
        start.root_fd = handed.descriptor("root")
        start.cgroup_fd = handed.descriptor("cgroup")
        start.notify_fd = handed.descriptor("notify")
        start._told_all = start._about_to_exec = True
        return start

    def facts(self) -> dict[str, Any]:
        """What `taken_over` needs, as JSON types."""
        return {
            "kind": self.kind,
            "pid": self.pid,
            "started": self.started,
            "started_at": self.started_at,
            "phases": self.phases,
            "owner": list(self.owner),
        }

    @property
    def builder_is_done(self) -> bool:
        """Whether nothing but the guest is left of the start."""
        return self._told_all and (self._builder is None or self._builder.status is not None)

    @property
    def init_kind(self) -> str:
        """Which init it is; see plan.inits."""
        return self.kind

    @property
    def name(self) -> str:
        """The init in words."""
        return "command" if self.kind == "plain" else self.kind

    @property
    def everybody(self) -> str:
        """The init and how many other processes there are, in words."""
        found, whole = cgroup.count(self.cgroup_fd)
        others = found - 1
        least = "" if whole else "at least "
        more = "" if others < 1 else f" and {least}{others} more process{'' if others == 1 else 'es'}"
        return f"the guest's {self.name}{more}"

    def watch(self) -> None:
        """Hear what is told, from the running loop on."""
        if self._reports is None:
            self._leader = self._reaper.register(self.pid)
            self._leader.on_end = lambda _status: self.listen()
            self.listen()
            return
        self._builder = self._reaper.register(self._builder_pid)
        self._builder.on_end = lambda _status: self.listen()
        heard, self._heard = self._heard, None
        asyncio.get_running_loop().add_reader(self._reports.fileno(), self.listen)
        if heard is not None:
            self._hear(heard.messages, at_end=heard.at_end)
        self.listen()

    def listen(self) -> None:
        """Take what was told by now."""
        if self._reports is not None and not self._told_all:
            messages, at_end = self._reports.read()
            self._hear(messages, at_end=at_end)
        self._judge()

    def _hear(self, messages: list[Message], *, at_end: bool) -> None:
        for message in messages:
            self._take(message)
        if at_end:
            self._end_of_reports()

    def _add(self, phases: dict[str, float]) -> None:
        """What phases took, in seconds; a microsecond is the least that means something."""
        self.phases.update((name, round(seconds, 6)) for name, seconds in phases.items())

    def _take(self, message: Message) -> None:
        facts, descriptors = message.facts, message.descriptors
        if message.kind == "leader":
            self._add(facts["phases"])
            self.pid = facts["pid"]
            self._leader = self._reaper.register(self.pid)
            self._leader.on_end = lambda _status: self.listen()
            self.pidfd = descriptors.pop(0)
            if descriptors:
                self.cgroup_fd = descriptors.pop()
            if self._killed:
                self.kill()  # it was on its way when the others were killed
        elif message.kind == "init":
            self.kind = facts["init"]
            self._add(facts["phases"])
            self._about_to_exec = True
        elif message.kind == "root":
            self.root_fd = descriptors.pop()
        elif message.kind == "notify":
            self.notify_fd = descriptors.pop()
        elif message.kind == "console":
            self.on_console(descriptors.pop())
        elif message.kind == "error":
            self.error = message.error()
        for fd in descriptors:
            os.close(fd)

    def _end_of_reports(self) -> None:
        self._reaper.remember = False
        self._close_reports()
        if self._about_to_exec and self.error is None:
            self.started, self.started_at = time.monotonic(), time.time()
            self.on_started()

    def _judge(self) -> None:
        """Whether it is over, and how: the order in which messages and ends come does not matter."""
        if self._over or not self._told_all:
            return
        leader_ended = self._leader is None or self._leader.status is not None
        builder_ended = self._builder is None or self._builder.status is not None
        if self.started is not None and self._leader is not None:
            if self._leader.status is not None:
                self._over = True
                self.on_ended(self._leader.status)
        elif leader_ended and builder_ended:
            self._over = True
            status = self.error.exit_code if self.error is not None else builder.NO_START
            self.on_failed(status)

    def signal(self, number: int) -> None:
        """Send the guest's init a signal. Raises ProcessLookupError when there is none."""
        if self.pidfd < 0:
            raise ProcessLookupError("the guest has no init yet")
        process.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """Everything in the guest, and what prepares it. Ending PID 1 of its namespace ends all the others."""
        self._killed = True
        if self._leader is not None and self._leader.status is None:
            _kill(self._leader, SIGKILL)
        try:
            cgroup.kill(self.cgroup_fd)
        except OSError as error:
            log.warning(f"the guest's cgroup cannot be killed: {error.strerror}")  # its PID namespace was, by now
        if self._builder is not None and self._builder.status is None and self.started is None:
            _kill(self._builder, SIGTERM)
            asyncio.get_running_loop().call_later(BUILDER_GRACE, _kill, self._builder, SIGKILL)

    async def remove_cgroup(self) -> None:
        """Remove its cgroup with those below it, once the kernel has let go of the last process there."""
        if self.cgroup_fd < 0:
            return
        for delay in cgroup.EMPTYING:
            await asyncio.sleep(delay)
            if await self._emptied():
                return
        log.warning("cgroups of the guest are left: somebody is still in them")

    async def _emptied(self) -> bool:
        pieces = cgroup.emptying(self.cgroup_fd)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return bool(end.value)
            await asyncio.sleep(0)

    def close(self) -> None:
        """Let go of what belonged to it."""
        for fd in (self.pidfd, self.root_fd, self.cgroup_fd, self.notify_fd):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.root_fd = self.cgroup_fd = self.notify_fd = -1
        if not self._told_all:
            self._close_reports()

    def _close_reports(self) -> None:
        self._told_all = True
        if self._reports is not None:
            asyncio.get_running_loop().remove_reader(self._reports.fileno())
            self._reports.close()


def _kill(child: Child, number: int) -> None:
    """Signal an own child; until it is reaped the number is its."""
    if child.status is None:
        try:
            os.kill(child.pid, number)
        except OSError as error:
            log.unexpected(f"when process {child.pid} was to be killed", error)
