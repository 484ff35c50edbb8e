"""What a boot carries from step to step."""

from __future__ import annotations

import os
import time

from lcinit.linux import files
from lcinit.supervisor.reaper import Reaper
from lcinit.supervisor.watch import SignalWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.boot.helper import Helper
    from lcinit.boot.report import Report
    from lcinit.config.values import Config
    from lcinit.plan.build import Plan
    from lcinit.plan.facts import Machine
    from lcinit.plan.steps import ExecInit, RunCommand


class World:
    """The boot's state: handles and ids that one step makes and another uses.

    `root` is the guest root's path, trusted because the boot root is; `root_fd` a handle of it, made anew whenever the
    mount namespace changes. `mounted` has the device number of each file system that was mounted at a path of the
    guest root. `owner` is the outer uid and gid of the guest's root. `inside` is true once PID 1 is in
    the guest's user namespace, `pivoted` once the boot root is out of reach. `main` is lcinit's own entry point, for
    commands that are tools of ours. `report` tells PID 1 what the builder and the leader of a nested guest have done;
    `guest_cgroup` is the directory in which that leader is born, `service_cgroup` that below which services get
    theirs. `control` is where the control socket stands, None for none. `machine` is what the plan was made for.
    `oom_score_adj` is what PID 1 was given where it has another one now.
    """

    def __init__(
        self, config: Config, plan: Plan, owner: tuple[int, int], root: str, main: Callable[[list[str]], int]
    ) -> None:
        self.config = config
        self.main = main
        self.plan = plan
        self.owner = owner
        self.root = root
        self.root_fd = -1
        self.mounted: dict[str, int] = {}
        self.inside = False
        self.pivoted = False
        self.left_keyring = False
        self.init_kind = "plain"
        self.helper: Helper | None = None
        self.report: Report | None = None
        self.guest_cgroup = -1
        self.service_cgroup = -1
        self.control: str | None = "/run/lcinit/control"
        self.keeper_needed = False
        self.initctl_directory = -1
        self.console_own = False
        self.console_master = -1
        self.console_slave = -1
        self.reboot_calls = -1
        self.keeper_parent = -1
        self.machine: Machine | None = None
        self.oom_score_adj: int | None = None
        self.outer_environment = dict(os.environ)
        self.reaper = Reaper()
        self.watch: SignalWatch | None = None
        self.supervised = False  # whether somebody else takes the signals from here on
        self.phase_started: dict[str, float] = {}
        self.phase_seconds: dict[str, float] = {}

    @property
    def guest_environment(self) -> tuple[tuple[str, str], ...]:
        """The whole environment of the guest's init, which the commands in its root get too."""
        last: ExecInit = self.plan.steps[-1]  # type: ignore[assignment]
        return last.environment

    def phase_left(self, step: RunCommand) -> float | None:
        """Seconds until the phase of a command must be over; None without a limit."""
        if step.deadline is None:
            return None
        started = self.phase_started.setdefault(step.key.partition("[")[0].partition(".")[0], time.monotonic())
        return max(0.0, step.deadline - (time.monotonic() - started))

    def forget_processes(self) -> None:
        """In a fork: children and signals are the parent's."""
        self.reaper = Reaper()
        self.watch = None

    def listen(self) -> None:
        """Begin to take signals from the loop that runs now: children are reaped, a stop request ends the boot."""
        if self.watch is None and not self.supervised:
            self.watch = SignalWatch(self.reaper)
            self.watch.start()

    def reopen_root(self) -> int:
        """A fresh handle of the guest root in the current mount namespace."""
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1
        self.root_fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self.root_fd

    def open_guest(self, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
        """A handle of something in the guest root, reached without following any link. Raises OSError."""
        return files.open_in_root(self.root_fd, path or ".", flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
