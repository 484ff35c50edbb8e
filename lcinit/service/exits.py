"""How a service's process ended, and whether that is well: codes, signals, and who sent them. Pure.

Sources: systemd.service(5), "SuccessExitStatus=" and "Restart="; wait(2); cgroup v2, memory.events.
"""

from __future__ import annotations

from lcinit.linux.signals import SIGKILL, signal_name
from lcinit.record import Record
from lcinit.supervisor.reaper import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.service_values import Service

UNKNOWN = Status(-1)
"""Of a process whose parent is another one, which alone is told."""
CLEAN_SIGNALS = frozenset(("SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"))
"""A daemon that is ended by one of these has ended well; a oneshot, which has work to finish, has not."""


class Exit(Record):
    """The end of a main process.

    `result` is a word of machine.RESULTS, `code` what a shell would show (the exit code or 128 + the signal), `signal`
    the signal's name or None, `core` whether it left a core dump. `prevent`: it rules an automatic restart out.
    """

    result: str
    code: int = 0
    signal: str | None = None
    core: bool = False
    prevent: bool = False

    def words(self, *, early: bool = False) -> str:
        """For people: `exit code 3`, `signal SIGSEGV, core dumped`. `early`: before it had said that it was ready."""
        if early and self.result == "success":
            return f"{self.words()} before it said that it was ready"
        if self.code == UNKNOWN:
            return "an end that its own parent alone was told"
        if self.signal is None:
            return f"exit code {self.code}"
        if self.result == "oom-kill":
            return f"signal {self.signal}, by the kernel for want of memory"
        return f"signal {self.signal}{', core dumped' if self.core else ''}"


def exit_of(service: Service, status: Status, *, oom_kills: int = 0) -> Exit:
    """What an end means for a service. `oom_kills`: how many processes of its cgroup the kernel has killed for want of
    memory since it was started.
    """
    name = signal_name(status.signal) if status.signal else None
    code = int(status)
    listed: int | str = name if name is not None else code
    prevent = listed in service.restart_prevent_exit_status
    if code == 0 or listed in service.success_exit_status:
        result = "success"
    elif name is None:
        result = "exit-code"
    elif name in CLEAN_SIGNALS and service.type != "oneshot":
        result = "success"
    elif status.signal == SIGKILL and oom_kills:
        result = "oom-kill"
    else:
        result = "core-dump" if status.core else "signal"
    return Exit(result=result, code=code, signal=name, core=status.core, prevent=prevent)
