"""The steps of a plan: commands, checks, namespaces and the end. `boot` has one function for each class.

Those that mount are in `file_steps`; both are used as one set, by this module's name.
"""

from __future__ import annotations

from lcinit.config.values import Command, IdMap, Limit
from lcinit.plan.file_steps import (
    AttachRoot,
    ConsoleStep,
    CopyDevices,
    HostInfo,
    MakeInitctl,
    MakeLink,
    MakeNode,
    MakeTargets,
    MaskPaths,
    MountExtra,
    MountFstab,
    MountNew,
    ResolvConf,
    SetReadOnly,
)
from lcinit.plan.step import PHASES, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from lcinit.plan.file_steps import Side as Side
    from lcinit.plan.step import PhaseName as PhaseName

__all__ = [
    "PHASES",
    "AttachRoot",
    "ChangeRoot",
    "CheckInit",
    "CheckRoot",
    "CloneLeader",
    "ConsoleStep",
    "CopyDevices",
    "CoverInitramfs",
    "DropCapabilities",
    "ExecInit",
    "ForkBuilder",
    "HostInfo",
    "KeepCommand",
    "KeepServices",
    "LoopbackUp",
    "MakeInitctl",
    "MakeLink",
    "MakeNode",
    "MakeTargets",
    "MaskPaths",
    "MountExtra",
    "MountFstab",
    "MountNew",
    "MoveInterfaces",
    "OpenConsole",
    "ResolvConf",
    "RunCommand",
    "SetHostname",
    "SetReadOnly",
    "StartHelper",
    "Step",
    "TakeCgroup",
    "Unshare",
    "UnshareMounts",
    "WriteIdMap",
    "quote",
]


class UnshareMounts(Step):
    """unshare(CLONE_NEWNS), and nothing that is mounted from here on reaches the outside."""

    kind = "unshare-mounts"

    def what(self) -> str:
        """The call."""
        return "make a private mount namespace"

    def where(self) -> str:
        """All mounts."""
        return "/"


class CoverInitramfs(Step):
    """A copy of "/" with all below it, over the initramfs, becomes the root: that one can be pivoted away."""

    kind = "cover-initramfs"

    def what(self) -> str:
        """The mount."""
        return "lay a copy of / over the initramfs and enter it"

    def where(self) -> str:
        """The root."""
        return "/"


class ForkBuilder(Step):
    """PID 1 stays behind from here on: all that follows is done by a fork of it, anew for every start of the guest."""

    kind = "builder"

    def what(self) -> str:
        """The process."""
        return "start the builder; PID 1 goes on supervising"


class OpenConsole(Step):
    """Standard streams of the machine's first process where the kernel found no /dev/console to give it."""

    kind = "open-console"

    def what(self) -> str:
        """The device."""
        return "open /dev/console as the standard streams"

    def where(self) -> str:
        """Whose streams."""
        return "PID 1"


class RunCommand(Step):
    """A command of the configuration. `key` is its place there; `place` says in which world it runs."""

    kind = "run"
    key: str
    command: Command
    place: Literal["boot root", "guest namespaces", "outside", "guest root"]
    deadline: float | None = None

    def what(self) -> str:
        """The words of the command, quoted where they need it."""
        return "run " + " ".join(quote(word) for word in self.command.argv)

    def where(self) -> str:
        """The world it runs in."""
        return self.place


class CheckRoot(Step):
    """The guest root must be a directory now; else exit code 71."""

    kind = "check-root"
    path: str

    def what(self) -> str:
        """The check."""
        return "check that the guest root is there"

    def where(self) -> str:
        """The guest root."""
        return self.path


class CheckInit(Step):
    """The guest's init must be there and, where reboot(2) will be refused to it, be able to end without."""

    kind = "check-init"
    command: str
    needs_no_reboot: bool
    shared: bool = False

    def what(self) -> str:
        """The check."""
        return "check the guest's init" + (" (it must end without reboot(2))" if self.needs_no_reboot else "")

    def where(self) -> str:
        """The command."""
        return self.command


class TakeCgroup(Step):
    """The guest's cgroup: PID 1's own, a new child of it, or none. `files` are given to the guest with it.

    A "leaf" is a child that PID 1 does not enter: the guest is born there. With `controllers` PID 1 enters another one
    beside it, because a cgroup that gives controllers to its children may hold no process (cgroup v2, "No Internal
    Process Constraint").

    `controllers`: all that the kernel has are enabled for the child first, as nobody else does on a machine of one's
    own.
    """

    kind = "cgroup"
    how: Literal["own", "child", "leaf", "none"]
    path: str
    files: tuple[str, ...] = ()
    chown: bool = False
    controllers: bool = False

    def what(self) -> str:
        """Whose cgroup it is."""
        what = {
            "own": "use PID 1's cgroup",
            "child": "make a child cgroup",
            "leaf": "make a child cgroup for the guest",
            "none": "no cgroup of its own",
        }[self.how]
        what += " with every controller" if self.controllers else ""
        return what + (", owned by the guest's root" if self.chown else "")

    def where(self) -> str:
        """Its path in the hierarchy."""
        return self.path


class StartHelper(Step):
    """Fork the process that stays outside, and make both undumpable."""

    kind = "helper"

    def what(self) -> str:
        """The process."""
        return "start the helper; no process may be dumped or traced from here on"


class CloneLeader(Step):
    """One clone3(2): the guest's PID 1, in new namespaces and in the guest's cgroup, a child of lcinit's PID 1."""

    kind = "clone"
    namespaces: tuple[str, ...]

    def what(self) -> str:
        """The namespaces."""
        return "make the guest's PID 1 in new namespaces: " + ", ".join(self.namespaces)


class Unshare(Step):
    """unshare(2) of the guest's namespaces in one call."""

    kind = "unshare"
    namespaces: tuple[str, ...]

    def what(self) -> str:
        """The namespaces."""
        return "make namespaces: " + ", ".join(self.namespaces)


class WriteIdMap(Step):
    """The helper writes the maps and reads them back; the leader becomes uid and gid 0 of them."""

    kind = "id-map"
    id_map: IdMap

    def what(self) -> str:
        """Both maps."""

        def text(ranges: tuple[Any, ...]) -> str:
            return ", ".join(f"{r.inside} {r.outside} {r.size}" for r in ranges)

        return f"map users {text(self.id_map.users)}; groups {text(self.id_map.groups)}; become 0:0"


class SetHostname(Step):
    """sethostname(2) in the new UTS namespace."""

    kind = "hostname"
    name: str

    def what(self) -> str:
        """The name."""
        return f"set the host name {self.name}"


class MoveInterfaces(Step):
    """Network interfaces go into the guest's network namespace with addresses, routes, MTU and state."""

    kind = "interfaces"
    names: tuple[str, ...]

    def what(self) -> str:
        """Which."""
        return "move network interfaces " + " ".join(self.names)


class LoopbackUp(Step):
    """The loopback interface of the new network namespace."""

    kind = "loopback"

    def what(self) -> str:
        """The change."""
        return "bring the loopback interface up"


class ChangeRoot(Step):
    """The guest root becomes "/"."""

    kind = "change-root"
    mode: Literal["pivot", "chroot"]
    path: str

    def what(self) -> str:
        """The call."""
        if self.mode == "chroot":
            return "chroot into the guest root (the old root stays reachable for a privileged guest)"
        return "pivot into the guest root, detach the old one"

    def where(self) -> str:
        """The guest root."""
        return self.path


class DropCapabilities(Step):
    """Capabilities that leave the bounding set, so that no exec of the guest can have them."""

    kind = "capabilities"
    names: tuple[str, ...]

    def what(self) -> str:
        """Which."""
        return "drop from the bounding set: " + " ".join(self.names)


class AnswerReboot(Step):
    """A seccomp filter on reboot(2) alone, for PID 1 and all that it makes; the keeper answers the calls."""

    kind = "answer-reboot"
    command: str
    machine: bool = False

    def what(self) -> str:
        """Who does it, and what it ends."""
        return "have the keeper answer reboot(2)" + (": it ends the machine" if self.machine else "")

    def where(self) -> str:
        """The guest's init."""
        return self.command


class ExecInit(Step):
    """The clean exec of the guest's init; PID 1 is the guest's from here on."""

    kind = "exec"
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    limits: tuple[Limit, ...] = ()
    user: str | int | None = None
    group: str | int | None = None
    groups: tuple[str | int, ...] = ()
    cwd: str | None = None
    stop: tuple[tuple[str, str], ...] = ()

    def what(self) -> str:
        """The words of the command."""
        return "exec " + " ".join(quote(word) for word in self.argv)

    def where(self) -> str:
        """The world."""
        return "PID 1"


class KeepCommand(ExecInit):
    """The command becomes a child of PID 1, which reaps, forwards signals and ends with it."""

    kind = "keep"

    def what(self) -> str:
        """The words of the command."""
        return "run, and stay with it: " + " ".join(quote(word) for word in self.argv)

    def where(self) -> str:
        """The world."""
        return "child of PID 1"


class KeepServices(KeepCommand):
    """Services become children of PID 1, which is the guest's init; and the command, where there is one."""

    kind = "supervise"
    runlevel: str = "3"
    services: tuple[str, ...] = ()

    def what(self) -> str:
        """Which are named, and the words of the command."""
        named = f" ({', '.join(self.services)} and those that the guest enables)" if self.services else ""
        command = f", then run {' '.join(quote(word) for word in self.argv)}" if self.argv else ""
        return f"supervise the services of runlevel {self.runlevel}{named}{command}"

    def where(self) -> str:
        """The world."""
        return "children of PID 1"
