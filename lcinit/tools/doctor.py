"""`lcinit doctor`: examine this kernel, container and privilege, and tell what to do about what is not well."""

from __future__ import annotations

import os
import resource
import textwrap

from lcinit.boot import cgroups
from lcinit.boot.probe import look_at_guest, probe
from lcinit.config.load import load
from lcinit.config.values import Config, IdMap, IdRange
from lcinit.errors import EX_CONFIG, EX_OSERR, ConfigError, LcinitError, SystemFailure
from lcinit.linux import files
from lcinit.linux.mountinfo import parse_mountinfo
from lcinit.plan.build import build
from lcinit.plan.guest import command
from lcinit.plan.managers import recognise
from lcinit.tools.doctor_trials import Ids, try_all
from lcinit.tools.doctor_verdicts import Examination, Finding, Part, handoff_works
from lcinit.tools.id_ranges import guest_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lcinit.linux.mountinfo import MountInfo
    from lcinit.plan.build import Plan
    from lcinit.plan.facts import Machine

NARROWEST, WIDEST = 60, 120
_CGROUPS = "/sys/fs/cgroup"
# Directories made by sysfs_create_mount_point() and proc_create_mount_point()
_EMPTY = frozenset(
    {
        _CGROUPS,
        "/sys/fs/bpf",
        "/sys/fs/fuse/connections",
        "/sys/fs/pstore",
        "/sys/fs/selinux",
        "/sys/fs/smackfs",
        "/sys/kernel/config",
        "/sys/kernel/debug",
        "/sys/kernel/security",
        "/sys/kernel/tracing",
        "/sys/firmware/efi/efivars",
        "/proc/fs/nfsd",
        "/proc/openprom",
        "/proc/sys/fs/binfmt_misc",
    }
)
GROUPS = ("kernel", "privilege", "container", "python")


def examine(config_path: str | None) -> Examination:
    """Look at everything, and try in children what must be tried. Raises ConfigError for a wrong configuration."""
    try:
        uid_map, gid_map = _read("/proc/self/uid_map"), _read("/proc/self/gid_map")
        mounts = parse_mountinfo(_read("/proc/self/mountinfo"))
    except OSError as error:
        raise SystemFailure.from_os_error("look at this process", error, hint="mount /proc") from error
    ids = _ids(uid_map, gid_map)
    config = load(config_path) if config_path is not None else _default(ids)
    argv = command(config, (), override_exec=False)
    machine = _as_pid_1(probe())
    if config_path is not None:
        # what happens to stand at the default root is not judged
        machine = machine.replace(guest=look_at_guest(config, argv[0]))
    guest_root = config.root.path if config.root.mode != "none" else None
    if guest_root is not None and not os.path.isdir(guest_root):
        guest_root = None
    plan, refusal = _plan(config, machine, argv)
    kinds = {"boot-root": type_of("/", mounts), "guest-root": type_of(guest_root, mounts) if guest_root else ""}
    return Examination(
        release=os.uname().release,
        machine=machine,
        config=config,
        plan=plan,
        refusal=refusal,
        trials=try_all(ids, guest_root),
        uid_map=uid_map,
        gid_map=gid_map,
        covered=covered(mounts),
        file_systems=tuple(kinds.items()),
        controllers=_controllers(),
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE),
        parts=(_yaml(), _part("uvloop"), _part("aiofiles")),
    )


def exit_code(examined: Examination, found: tuple[Finding, ...], *, config_given: bool) -> int:
    """0 when a handoff with an id map would work, 78 when the given configuration's plan is refused, 71 otherwise."""
    if config_given and examined.plan is None:
        return EX_CONFIG
    return 0 if handoff_works(found) else EX_OSERR


def as_text(found: tuple[Finding, ...], width: int) -> str:
    """Aligned columns, wrapped; remedies below what they are for; the conclusion last."""
    width = max(NARROWEST, min(width, WIDEST))
    column = max(len(finding.subject) for finding in found)
    lines: list[str] = []
    for group in GROUPS:
        lines.append(f"{group}:")
        for finding in found:
            if finding.group == group:
                lines += _lines(finding, column, width)
    blocking = [finding.subject for finding in found if finding.blocks]
    weaker = [finding.subject for finding in found if finding.verdict != "ok"]
    if blocking:
        text = f"A handoff with an id map does not work here. Missing: {', '.join(blocking)}."
    else:
        text = "A handoff with an id map works here."
        text += f" Weaker than it could be: {', '.join(weaker)}." if weaker else ""
    return "\n".join([*lines, *_wrap(text, "", "", width)]) + "\n"


def _lines(finding: Finding, column: int, width: int) -> list[str]:
    indent = " " * (2 + 9 + column + 2)
    lines = _wrap(finding.says, f"  {finding.verdict:<9}{finding.subject:<{column}}  ", indent, width)
    if finding.remedy:
        lines += _wrap(finding.remedy, f"{indent}-> ", f"{indent}   ", width)
    return lines


def _wrap(text: str, first: str, rest: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def as_data(found: tuple[Finding, ...], code: int) -> dict[str, Any]:
    """For JSON."""
    return {"handoff": handoff_works(found), "exit_code": code, "findings": [finding.values() for finding in found]}


def covered(mounts: list[MountInfo]) -> tuple[str, ...]:
    """Mount points over parts of /proc and /sys that hide what is there.

    The kernel lets a user namespace mount its own proc or sysfs only where none of that is (mount_too_revealing() of
    fs/namespace.c). The directories that proc and sysfs keep empty for other file systems hide nothing.
    """
    paths = [entry.mount_point for entry in mounts if entry.mount_point.startswith(("/proc/", "/sys/"))]
    return tuple(path for path in paths if not path.startswith(f"{_CGROUPS}/") and path not in _EMPTY)


def type_of(path: str, mounts: list[MountInfo]) -> str:
    """The type of the file system that holds a path without links; empty when no mount does."""
    best = ""
    longest = -1
    for entry in mounts:
        point = entry.mount_point.rstrip("/")
        if (path == point or f"{path.rstrip('/')}/".startswith(f"{point}/")) and len(point) >= longest:
            best, longest = entry.fstype, len(point)
    return best


def _as_pid_1(machine: Machine) -> Machine:
    """The machine with the manager that PID 1 was told of: a shell in a container does not have its environment."""
    if machine.pid == 1 or machine.container is not None:
        return machine
    try:
        with open("/proc/1/environ", "rb") as environ:
            words = environ.read().split(b"\0")
    except OSError:
        return machine
    given = [os.fsdecode(word[10:]) for word in words if word.startswith(b"container=")]
    if not given:
        return machine
    return machine.replace(container=given[0], manager=recognise(given[0]))


def _ids(uid_map: str, gid_map: str) -> Ids | None:
    users, groups = guest_range(uid_map), guest_range(gid_map)
    if users is None or groups is None:
        return None
    return Ids(users=users[0], groups=groups[0], size=min(users[1], groups[1]))


def _default(ids: Ids | None) -> Config:
    """All defaults, and an id map that fits."""
    if ids is None:
        return Config()
    return Config(
        id_map=IdMap(
            users=(IdRange(inside=0, outside=ids.users, size=ids.size),),
            groups=(IdRange(inside=0, outside=ids.groups, size=ids.size),),
        )
    )


def _plan(config: Config, machine: Machine, argv: tuple[str, ...]) -> tuple[Plan | None, str]:
    """The plan, or why there is none."""
    try:
        return build(config, machine, argv), ""
    except ConfigError as error:
        return None, str(error)


def _controllers() -> tuple[str, ...] | None:
    path = cgroups.own_path()
    if path is None or "/.." in path:
        return None
    try:
        hierarchy = cgroups.open_hierarchy()
        try:
            file = files.open_in_root(hierarchy, f"{path.rstrip('/')}/cgroup.controllers", os.O_RDONLY)
        finally:
            os.close(hierarchy)
        with open(file, encoding="utf-8") as controllers:
            return tuple(controllers.read().split())
    except OSError:
        return None


def _yaml() -> Part:
    """As config.document needs it: libyaml's parser."""
    try:
        import yaml
    except ImportError as error:
        return Part(name="yaml", error=str(error))
    return Part(name="yaml", error="" if yaml.__with_libyaml__ else "PyYAML without libyaml")


def _part(name: str) -> Part:
    try:
        __import__(name)
    except (ImportError, LcinitError) as error:
        return Part(name=name, error=str(error))
    return Part(name=name)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
