"""What the plan must know of the machine: filled in by `boot.probe`, by hand in tests. Facts only, no decisions."""

from __future__ import annotations

from lcinit.record import Record


class Interface(Record):
    """One network interface other than the loopback; `hardware` when a device of the machine stands behind it."""

    name: str
    hardware: bool


class Cgroup(Record):
    """The cgroup2 cgroup that PID 1 is in, seen from its cgroup namespace.

    `alone`: no other process in it; `empty`: no child cgroups; `root`: the hierarchy's real root, which nobody may
    own; `writable`: a child could be made or its owner changed; `controllers`: there are some to give to children.
    """

    path: str
    alone: bool
    empty: bool
    root: bool
    writable: bool
    controllers: bool = False


class Console(Record):
    """What PID 1's standard streams are.

    `own`: the terminal is of a devpts instance that the manager made for this container, so that changing its owner
    changes nothing outside. `lent`: the guest's init is to have these very streams, whatever init it is.
    """

    terminal: bool
    own: bool
    name: str = ""
    lent: bool = False


class Guest(Record):
    """What stands at the guest root now, before `setup.before`: `init` is the kind of its command (see inits)."""

    init: str
    resolved: str


class Machine(Record):
    """Everything a plan depends on beside the configuration.

    `first`: this is PID 1 of the machine itself, which the kernel started, and its end is a panic. `missing`: which of
    proc, sysfs and devtmpfs nobody has mounted for it at /proc, /sys and /dev. `initramfs`: "/" is the kernel's own
    root, which cannot be pivoted away. `foreign`: of its namespaces ("pid", "network", "ipc", "cgroup") those that
    belong to a user namespace above its own, so that the file systems which show them cannot be mounted here.
    `no_listener`: why no seccomp listener can be had, empty where it can.
    """

    kernel: tuple[int, int] = (6, 1)
    pid: int = 1
    first: bool = False
    missing: tuple[str, ...] = ()
    manager: str = "generic"
    container: str | None = None
    container_uuid: str | None = None
    capabilities: frozenset[str] | None = None
    initial_network: bool = False
    interfaces: tuple[Interface, ...] = ()
    console: Console = Console(terminal=False, own=False)
    cgroup: Cgroup | None = None
    initramfs: bool = False
    foreign: frozenset[str] = frozenset()
    no_listener: str = ""
    guest: Guest | None = None
    environment: tuple[tuple[str, str], ...] = ()
    resolv_conf: bool = False
    kernel_cgroup_delegate: tuple[str, ...] = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")

    def can(self, capability: str) -> bool:
        """Whether PID 1 has the capability (lower case, without `cap_`) in its effective set."""
        return self.capabilities is None or capability in self.capabilities
