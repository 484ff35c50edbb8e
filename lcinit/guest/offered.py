"""What PID 1 offers to those who come by the control socket: see control.manager.Supervised."""

from __future__ import annotations

import os

from lcinit import log
from lcinit.boot import cgroup_control as cgroup
from lcinit.errors import EX_UNAVAILABLE, LcinitError
from lcinit.guest import status
from lcinit.linux.signals import SIGKILL
from lcinit.plan import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lcinit.guest.console import Console
    from lcinit.guest.start import Start
    from lcinit.guest.supervisor import Supervisor
    from lcinit.supervisor.events import EventLog


class Offered:
    """One supervisor's face to the control socket."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.events: EventLog = supervisor.events

    @property
    def console(self) -> Console:
        """The guest's console."""
        return self._supervisor.console

    def request(self, word: str, origin: str, *, at_once: bool = False) -> None:
        """Have the guest stopped or started again; returns at once. Raises LcinitError when that cannot be."""
        self._supervisor.request(word, origin, at_once=at_once)

    def signal(self, number: int, whom: str = "init") -> int:
        """Signal the guest's init, or "all" its processes; how many were signalled. Raises LcinitError for no guest."""
        current = running(self._supervisor)
        if whom == "init":
            current.signal(number)
            return 1
        if number == SIGKILL and cgroup.kill(current.cgroup_fd):
            return len(cgroup.processes(current.cgroup_fd)) or 1
        return _signal_all(current, number)

    def freeze(self) -> None:
        """Stop every process of the guest until `thaw`. Raises LcinitError where the kernel cannot."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let the guest go on."""
        self._set_frozen(False)

    def set_log_level(self, level: str) -> None:
        """Say more or less from now on."""
        log.set_level(level)
        self._supervisor.events.record("log-level-changed", level=level)

    def reexec(self) -> None:
        """Replace this lcinit by the one that is installed now, without touching the guest."""
        self._supervisor.reexec()

    def status(self) -> dict[str, Any]:
        """Everything that is known of the guest, for JSON."""
        return status.as_data(self._supervisor)

    def plan(self) -> dict[str, Any]:
        """The steps of every start, as `lcinit plan --json` prints them."""
        return show.as_data(self._supervisor.world.plan, os.getpid())

    def _set_frozen(self, frozen: bool) -> None:
        if not cgroup.set_frozen(running(self._supervisor).cgroup_fd, frozen):
            raise LcinitError(
                "the guest has no cgroup that can be frozen",
                hint="it takes a cgroup2 hierarchy that PID 1 may write to, see `lcinit doctor`",
                exit_code=EX_UNAVAILABLE,
            )
        if self._supervisor.frozen != frozen:
            self._supervisor.frozen = frozen
            self._supervisor.events.record("frozen" if frozen else "thawed")


def running(supervisor: Supervisor) -> Start:
    """The guest that runs now. Raises LcinitError when none does."""
    if supervisor.current is None or supervisor.current.started is None:
        raise LcinitError("there is no running guest", exit_code=EX_UNAVAILABLE)
    return supervisor.current


def _signal_all(current: Start, number: int) -> int:
    count = 0
    for pid in cgroup.processes(current.cgroup_fd) or [current.pid]:
        try:
            os.kill(pid, number)
            count += 1
        except ProcessLookupError:
            continue
    return count
