"""What a configuration means: frozen, typed values, every default filled in. Pure: no I/O, no clock."""

from __future__ import annotations

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from lcinit.config.service_values import ServicePart

    RootMode = Literal["pivot", "chroot", "none"]


class IdRange(Record):
    """`size` ids: `inside` and following of the guest are `outside` and following of the boot root's namespace."""

    inside: int
    outside: int
    size: int = 1


class IdMap(Record):
    """A uid map and a gid map (user_namespaces(7))."""

    users: tuple[IdRange, ...]
    groups: tuple[IdRange, ...]

    def outer_user(self, inside: int) -> int | None:
        """The outer uid of a guest's uid; None when it is not mapped."""
        return _outer(self.users, inside)

    def outer_group(self, inside: int) -> int | None:
        """The outer gid of a guest's gid; None when it is not mapped."""
        return _outer(self.groups, inside)


def _outer(ranges: tuple[IdRange, ...], inside: int) -> int | None:
    for r in ranges:
        if r.inside <= inside < r.inside + r.size:
            return r.outside + inside - r.inside
    return None


class Command(Record):
    """One command of a phase. `timeout` is in seconds; without `input` stdin is /dev/null."""

    argv: tuple[str, ...]
    input: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    user: str | int | None = None
    group: str | int | None = None
    timeout: float | None = None
    ignore_errors: bool = False


class Root(Record):
    """The guest root; `path` None means that the boot root is kept (`mode` is then none).

    With `id_map` its files, owned by 0 and up as in any image, are mounted as the ids that the guest's map gives them.
    """

    path: str | None = "/mnt/root"
    mode: RootMode = "pivot"
    read_only: bool = False
    id_map: bool = False


class Devices(Record):
    """What the guest's /dev holds beyond the fixed list. Names are relative to /dev; globs as in glob(7)."""

    include: tuple[str, ...] = ()
    inherit: bool = False
    exclude: tuple[str, ...] = ()
    rexclude: tuple[str, ...] = ()
    read_only: bool = False


class Namespaces(Record):
    """Which namespaces are made for the guest, beside mount, user (with an id map) and pid (nested)."""

    uts: bool = True
    ipc: bool = True
    cgroup: bool = True
    network: bool = True


class Network(Record):
    """`interfaces` is "auto", "all", "none" or the names to move; `resolv_conf` is "auto", "keep" or a path."""

    interfaces: str | tuple[str, ...] = "auto"
    loopback: bool = True
    resolv_conf: str = "auto"


class Mount(Record):
    """One extra mount: `target` inside the guest root, `source` outside it. `type` None means a bind mount."""

    source: str | None = None
    target: str
    type: str | None = None
    options: tuple[str, ...] = ()
    id_map: IdMap | None = None


class Capabilities(Record):
    """Changes to the default bounding set, by name without the `cap_` prefix, lower case."""

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


class Limit(Record):
    """One rlimit of setrlimit(2); None means infinity."""

    name: str
    soft: int | None
    hard: int | None


class Setup(Record):
    """`mode` is auto, none, generic or a manager's name. `timeout` in seconds bounds all commands of the phase."""

    mode: str = "auto"
    before: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()
    outside: tuple[Command, ...] = ()
    timeout: float | None = None


class Exec(Record):
    """What runs in the guest root. `stop` maps poweroff, halt and reboot to a signal's name."""

    before: tuple[Command, ...] = ()
    command: tuple[str, ...] = ("/sbin/init",)
    command_given: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    mode: Literal["handoff", "tolerant"] = "handoff"
    pid: Literal["nested", "shared"] = "nested"
    user: str | int | None = None
    group: str | int | None = None
    groups: tuple[str | int, ...] = ()
    on_reboot: Literal["auto", "restart", "propagate", "exit"] = "auto"
    on_exit: Literal["exit", "restart"] = "exit"
    on_failure: Literal["exit", "shell"] = "exit"
    forward_to: Literal["process", "group"] = "process"
    stop: tuple[tuple[str, str], ...] = ()


class Shutdown(Record):
    """`timeout` in seconds; None means auto."""

    timeout: float | None = None
    after: tuple[Command, ...] = ()


class Log(Record):
    """Where lcinit's own messages go beside the console, and how much of them."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    file: str | None = None


class Config(Record):
    """One whole configuration file."""

    root: Root = Root()
    id_map: IdMap | None = None
    allow_outer_root: bool = False
    initctl: Literal["auto"] | bool = "auto"
    devices: Devices = Devices()
    namespaces: Namespaces = Namespaces()
    hostname: str | None = None
    network: Network = Network()
    mounts: tuple[Mount, ...] = ()
    fstab: str | None = None
    capabilities: Capabilities = Capabilities()
    limits: tuple[Limit, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    pass_environment: str | tuple[str, ...] = "auto"
    setup: Setup = Setup()
    exec: Exec = Exec()
    shutdown: Shutdown = Shutdown()
    services: tuple[ServicePart, ...] | None = None
    services_dir: str = "/etc/lcinit/services"
    runlevel: str = "3"
    log: Log = Log()
