"""What a service file means: frozen, typed values with every default filled in. Pure: no I/O, no clock.

Names and meanings are those of systemd.service(5), systemd.exec(5) and systemd.kill(5) where systemd has one.
"""

from __future__ import annotations

from lcinit.config.values import Command, Limit
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal


class CgroupLimits(Record):
    """Limits of a service's cgroup (cgroup v2); None leaves the kernel's default.

    `memory_max` and `memory_high` are in bytes, `cpu_max` in hundredths of one processor (150: one and a half),
    `cpu_weight` from 1 to 10000, `pids_max` a count.
    """

    memory_max: int | None = None
    memory_high: int | None = None
    cpu_max: int | None = None
    cpu_weight: int | None = None
    pids_max: int | None = None


class Health(Record):
    """A check that is repeated while the service is up: exactly one of `exec`, `tcp` and `http` is given.

    `tcp` is (address, port), the address a literal IP; `http` is a URL of such an address. Failures in the first
    `start_period` seconds do not count; `failures` in a row take the `action`. `interval` runs from the end of one
    check to the beginning of the next, `timeout` bounds one check.
    """

    exec: Command | None = None
    tcp: tuple[str, int] | None = None
    http: str | None = None
    start_period: float = 0.0
    interval: float = 10.0
    timeout: float = 5.0
    failures: int = 3
    action: Literal["restart", "stop", "none"] = "restart"


class ServiceLog(Record):
    """Where stdout and stderr go. A file is rotated at `max_size` bytes or when it is `max_age` seconds old, and
    `max_files` older ones are kept. More than `rate_limit_burst` lines within `rate_limit_interval` seconds are dropped
    and counted; None: no limit.
    """

    to: Literal["console", "file", "both", "none"] = "console"
    format: Literal["text", "json"] = "text"
    max_size: int = 16 << 20
    max_age: float | None = None
    max_files: int = 4
    rate_limit_burst: int | None = None
    rate_limit_interval: float = 30.0


class Service(Record):
    """One service. Durations are in seconds, None is "without limit"; `umask` is the number.

    `origin` names the file that had the last word. `capabilities` None leaves those of the guest, else they are all
    that the service has and may gain. `read_only_paths` and `private_tmp` give it a mount namespace of its own.
    """

    name: str
    origin: str = ""
    description: str = ""
    command: tuple[str, ...] = ()
    type: Literal["simple", "notify", "notify-fd", "forking", "oneshot"] = "simple"
    notify_fd: int = 3
    notify_access: Literal["main", "all"] = "main"
    pid_file: str | None = None
    remain_after_exit: bool = True
    requires: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    start_after: tuple[str, ...] = ()
    start_before: tuple[str, ...] = ()
    runlevels: tuple[str, ...] = ("2", "3", "4", "5")
    start_pre: tuple[Command, ...] = ()
    start_post: tuple[Command, ...] = ()
    stop: tuple[Command, ...] = ()
    stop_post: tuple[Command, ...] = ()
    reload: tuple[Command, ...] = ()
    reload_signal: str | None = None
    start_timeout: float | None = 90.0
    stop_timeout: float | None = 10.0
    stop_signal: str = "SIGTERM"
    kill_mode: Literal["mixed", "control-group", "process"] = "mixed"
    restart: Literal["no", "on-failure", "always", "on-watchdog"] = "on-failure"
    restart_delay: float = 0.2
    restart_max_delay: float = 60.0
    restart_jitter: float = 0.1
    restart_reset: float = 60.0
    start_limit_burst: int | None = 10
    start_limit_interval: float = 60.0
    success_exit_status: tuple[int | str, ...] = ()
    restart_prevent_exit_status: tuple[int | str, ...] = ()
    essential: bool = False
    watchdog: float | None = None
    watchdog_signal: str = "SIGABRT"
    health: Health | None = None
    user: str | int | None = None
    group: str | int | None = None
    groups: tuple[str | int, ...] = ()
    umask: int = 0o022
    cwd: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    environment_file: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    nice: int | None = None
    oom_score_adj: int | None = None
    capabilities: tuple[str, ...] | None = None
    no_new_privileges: bool = False
    private_tmp: bool = False
    read_only_paths: tuple[str, ...] = ()
    cgroup: CgroupLimits = CgroupLimits()
    tty: str | None = None
    log: ServiceLog = ServiceLog()


class ServicePart(Record):
    """What one file, or the inline mapping, says of a service: only the fields that it names, and where they stand.

    `given` are pairs of a field of Service and its value; later parts go over earlier ones, field by field. `places`
    are line and column of each of them in the file `origin`, `place` those of the whole; `path` is where the whole
    stands in that file (`services.NAME`, or nothing for a file of its own).
    """

    name: str
    origin: str
    given: tuple[tuple[str, Any], ...] = ()
    places: tuple[tuple[int, int], ...] = ()
    place: tuple[int, int] = (1, 1)
    path: str = ""


class Broken(Record):
    """A service that cannot be, and why: every problem, a line each."""

    name: str
    text: str


class GuestFiles(Record):
    """What was read of a guest: the content of its service files by name, the names that it enables, and what could not
    be read.
    """

    directory: str
    contents: tuple[tuple[str, bytes], ...] = ()
    enabled: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()


class Catalogue(Record):
    """All services that there are, the names of those that start with their runlevels, and what is wrong."""

    services: tuple[Service, ...] = ()
    enabled: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()
