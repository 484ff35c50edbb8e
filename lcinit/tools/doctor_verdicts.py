"""What the doctor concludes from what it found. Pure: a finding for each fact, with the remedy where it is not well."""

from __future__ import annotations

import errno

from lcinit.plan import steps as s
from lcinit.plan.build import OLDEST_KERNEL
from lcinit.plan.network import interfaces_to_move
from lcinit.record import Record
from lcinit.tools.doctor_trials import Trial
from lcinit.tools.id_ranges import WANTED, guest_range, mapped_ids, parse_id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from lcinit.config.values import Config
    from lcinit.plan.build import Plan
    from lcinit.plan.facts import Machine

    Verdict = Literal["ok", "weaker", "missing"]


class Finding(Record):
    """One line of the report. `needed`: without it no guest with an id map can be started here."""

    group: str
    subject: str
    verdict: Verdict
    says: str
    remedy: str = ""
    needed: bool = False

    @property
    def blocks(self) -> bool:
        """Whether this alone prevents a handoff with an id map."""
        return self.needed and self.verdict == "missing"


class Part(Record):
    """A Python module that lcinit can use; `error` is why it cannot be imported, empty if it can."""

    name: str
    error: str = ""


class Examination(Record):
    """Everything that was found out. `plan` is None where none could be built, and `refusal` says why.

    `uid_map` and `gid_map` are the texts of /proc/self; `covered` are mount points over parts of /proc and /sys;
    `controllers` is None without a cgroup2 hierarchy; `nofile` is the soft and the hard limit.
    """

    release: str
    machine: Machine
    config: Config
    plan: Plan | None
    refusal: str = ""
    trials: tuple[Trial, ...] = ()
    uid_map: str = ""
    gid_map: str = ""
    covered: tuple[str, ...] = ()
    file_systems: tuple[tuple[str, str], ...] = ()
    controllers: tuple[str, ...] | None = None
    nofile: tuple[int, int] = (1024, 524288)
    parts: tuple[Part, ...] = ()


class Meaning(Record):
    """What a trial stands for: `what` is tried, what is `lost` where it does not work, and what helps."""

    what: str
    lost: str
    remedy: str
    needed: bool = False


NEEDED_CAPABILITIES = {
    "sys_admin": "mounts and namespaces",
    "setuid": "the uid map",
    "setgid": "the gid map",
    "chown": "files of the guest's root",
    "dac_override": "what lcinit makes in directories of the guest's root",
    "fowner": "modes of files of the guest's root",
}
USEFUL_CAPABILITIES = {
    "mknod": "device nodes are bound from outside instead of made, and `devices` brings in fewer",
    "net_admin": "network interfaces cannot be moved into the guest",
    "sys_boot": "a guest without id map cannot reboot(2), and its manager sees an exit",
    "sys_chroot": "root.mode chroot and an initramfs cannot be used",
    "sys_resource": "`limits` cannot raise a hard limit",
    "sys_ptrace": "a running guest cannot be inspected from here",
}

_GRANT = "have the manager allow it: its seccomp filter, its capabilities, or run it privileged"
_KERNEL = "run a kernel with it"

TRIALS = {
    "mount-namespace": Meaning(
        what="a private mount namespace (unshare, mount_setattr)",
        lost="nothing can be mounted",
        remedy=_GRANT,
        needed=True,
    ),
    "user-namespace": Meaning(
        what="a new user namespace",
        lost="no guest can be rootless",
        remedy="allow them in the manager's seccomp filter and AppArmor profile, and start lcinit in no chroot",
        needed=True,
    ),
    "namespaces": Meaning(
        what="new mount, UTS, IPC, network and cgroup namespaces",
        lost="the guest would share them",
        remedy="allow them, or set namespaces: {NAME: false} for the one that is refused",
        needed=True,
    ),
    "id-map": Meaning(
        what="writing the id map of a guest",
        lost="no guest can be rootless",
        remedy="give lcinit CAP_SETUID and CAP_SETGID over the ids of the map",
        needed=True,
    ),
    "setns": Meaning(what="entering a namespace (setns)", lost="network interfaces cannot be moved", remedy=_GRANT),
    "clone3": Meaning(
        what="clone3 with a pidfd", lost="no id map on a mount of its own, no nested guest", remedy=_GRANT
    ),
    "openat2": Meaning(what="openat2", lost="guest roots cannot be entered safely", remedy=_GRANT, needed=True),
    "close_range": Meaning(what="close_range", lost="descriptors would leak", remedy=_GRANT, needed=True),
    "pivot_root": Meaning(
        what="pivot_root",
        lost="root.mode pivot cannot be used",
        remedy="start lcinit from a root that is a mount point (no chroot)",
        needed=True,
    ),
    "mknod": Meaning(
        what="making and opening device nodes",
        lost="nodes are bound from outside: no chmod of them in the guest changes anything",
        remedy="keep CAP_MKNOD, and allow `c 1:* rwm` and `c 5:0 rwm` in the device cgroup",
    ),
    "proc-outside": Meaning(what="mounting proc", lost="no guest has a /proc", remedy=_GRANT, needed=True),
    "tmpfs-outside": Meaning(what="mounting tmpfs", lost="no guest has a /dev", remedy=_GRANT, needed=True),
    "overlay": Meaning(what="mounting overlay", lost="the command `overlay` fails", remedy="load the module overlay"),
    "sysfs-inside": Meaning(
        what="mounting sysfs in the guest",
        lost="no /sys of the guest's own network namespace",
        remedy="have the manager leave a sysfs with nothing mounted over it, or set namespaces: {network: false}",
        needed=True,
    ),
    "devpts-inside": Meaning(what="mounting devpts in the guest", lost="no terminals", remedy=_KERNEL, needed=True),
    "mqueue-inside": Meaning(
        what="mounting mqueue in the guest",
        lost="no POSIX message queues",
        remedy="run a kernel with CONFIG_POSIX_MQUEUE",
        needed=True,
    ),
    "cgroup2-inside": Meaning(
        what="mounting cgroup2 in the guest", lost="the guest has no cgroups", remedy="run a kernel with CONFIG_CGROUPS"
    ),
    "proc-inside": Meaning(
        what="mounting proc in a nested PID namespace",
        lost="a nested guest needs a pristine proc aside",
        remedy="have the manager leave a proc with nothing mounted over it",
    ),
    "idmap-boot-root": Meaning(
        what="idmapping the boot root's file system",
        lost="its directories cannot be given shifted to a guest",
        remedy="use ext4, xfs, btrfs, tmpfs or squashfs, or chown the files to the guest's outer ids",
    ),
    "idmap-guest-root": Meaning(
        what="idmapping the guest root's file system",
        lost="a root that is not shifted on the disk cannot be shifted by a mount",
        remedy="use ext4, xfs, btrfs, tmpfs or squashfs, or chown the files to the guest's outer ids",
    ),
    "seccomp-notify": Meaning(
        what="seccomp user notification", lost="a guest's calls cannot be answered from outside", remedy=_GRANT
    ),
    "keyctl": Meaning(
        what="a session keyring for the guest (keyctl)",
        lost="the guest's processes see the manager's session keyring",
        remedy="allow keyctl in the manager's seccomp filter (nspawn: --system-call-filter=keyctl)",
    ),
    "pidfd_getfd": Meaning(
        what="pidfd_getfd", lost="nothing that a handoff uses", remedy="none is needed for a handoff"
    ),
}


def findings(examined: Examination) -> tuple[Finding, ...]:
    """Everything, in the order of the report."""
    return (
        _kernel(examined),
        *(_of_trial(examined, trial) for trial in examined.trials),
        *_privilege(examined),
        *_container(examined),
        *_python(examined),
    )


def handoff_works(found: tuple[Finding, ...]) -> bool:
    """Whether a default handoff with an id map would get through."""
    return not any(finding.blocks for finding in found)


def _kernel(examined: Examination) -> Finding:
    wanted = f"{OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]}"
    enough = examined.machine.kernel >= OLDEST_KERNEL
    return Finding(
        group="kernel",
        subject="version",
        verdict="ok" if enough else "missing",
        says=f"Linux {examined.release}" + ("" if enough else ": mount_setattr(2) is missing"),
        remedy="" if enough else f"run Linux {wanted} or later",
        needed=True,
    )


def _of_trial(examined: Examination, trial: Trial) -> Finding:
    meaning = TRIALS[trial.name]
    what = meaning.what
    if trial.name.startswith("idmap-"):
        kind = dict(examined.file_systems).get(trial.name.removeprefix("idmap-"))
        what += f" ({kind})" if kind else ""
    if trial.works:
        return Finding(group="kernel", subject=trial.name, verdict="ok", says=what, needed=meaning.needed)
    needed = meaning.needed
    if trial.name == "pivot_root" and examined.machine.initramfs:
        says = f"{what}: this is an initramfs; lcinit moves the guest root over / instead"
        remedy = "none is needed; a boot root on a file system of its own would be pivoted away"
        return Finding(group="kernel", subject=trial.name, verdict="weaker", says=says, remedy=remedy)
    return Finding(
        group="kernel",
        subject=trial.name,
        verdict="missing" if needed else "weaker",
        says=f"{what}: {trial.error}; {meaning.lost}",
        remedy=_remedy(trial, meaning),
        needed=needed,
    )


def _remedy(trial: Trial, meaning: Meaning) -> str:
    if trial.number == errno.ENOSPC and "namespace" in trial.name + meaning.what:
        return "raise /proc/sys/user/max_*_namespaces, here and in every outer user namespace"
    if trial.number == errno.ENOSPC and trial.name.endswith("-inside"):
        return "raise /proc/sys/user/max_*_namespaces, here and in every outer user namespace"
    if trial.number in (errno.ENOSYS, errno.ENODEV) and meaning.remedy == _GRANT:
        return _KERNEL
    return meaning.remedy


def _privilege(examined: Examination) -> list[Finding]:
    held = examined.machine.capabilities
    found = [_ids(examined)]
    missing = [name for name in NEEDED_CAPABILITIES if name not in held]
    if missing:
        lost = "; ".join(f"{name}: {NEEDED_CAPABILITIES[name]}" for name in missing)
        remedy = "run as root, and have the manager keep " + " ".join(f"CAP_{name.upper()}" for name in missing)
        found.append(
            Finding(
                group="privilege",
                subject="capabilities",
                verdict="missing",
                says=f"without {lost}",
                remedy=remedy,
                needed=True,
            )
        )
    else:
        says = "all that a handoff needs: " + " ".join(NEEDED_CAPABILITIES)
        found.append(Finding(group="privilege", subject="capabilities", verdict="ok", says=says, needed=True))
    for name, lost in USEFUL_CAPABILITIES.items():
        if name not in held:
            remedy = f"have the manager keep CAP_{name.upper()}"
            found.append(Finding(group="privilege", subject=name, verdict="weaker", says=lost, remedy=remedy))
    if "sys_boot" in held:
        says = "permitted here; with an id map it is refused to the guest, so its reboot looks like its poweroff"
        remedy = "none is needed for systemd and busybox; other inits need no id map, or the tolerant mode"
        found.append(Finding(group="privilege", subject="reboot", verdict="weaker", says=says, remedy=remedy))
    return found


def _ids(examined: Examination) -> Finding:
    users, groups = guest_range(examined.uid_map), guest_range(examined.gid_map)
    if users is None or groups is None:
        return Finding(
            group="privilege",
            subject="ids",
            verdict="missing",
            says="this user namespace maps no id but 0: a guest would get outer root, and that is refused",
            remedy="have the manager map a range (podman --uidmap, --userns=auto; lxc.idmap; subuid(5))",
            needed=True,
        )
    size = min(users[1], groups[1])
    total = min(mapped_ids(parse_id_map(examined.uid_map)), mapped_ids(parse_id_map(examined.gid_map)))
    proposal = f"`id_map: {{users: 0 {users[0]} {size}, groups: 0 {groups[0]} {size}}}` fits"
    if size < WANTED:
        without = "" if size > 5 else "; devpts then has no group tty (5)"
        return Finding(
            group="privilege",
            subject="ids",
            verdict="weaker",
            says=f"{total} ids here, {size} for a guest, which has up to {WANTED}{without}; {proposal}",
            remedy=f"have the manager map {2 * WANTED} ids or more",
            needed=True,
        )
    return Finding(group="privilege", subject="ids", verdict="ok", says=f"{total} ids here; {proposal}", needed=True)


def _container(examined: Examination) -> list[Finding]:
    machine = examined.machine
    return [
        _pid(machine),
        _manager(machine),
        *_of_plan(examined),
        _controllers(examined),
        _network(examined),
        _visibility(examined),
        _nofile(examined),
    ]


def _fact(subject: str, verdict: Verdict, says: str, remedy: str = "") -> Finding:
    return Finding(group="container", subject=subject, verdict=verdict, says=says, remedy=remedy)


def _pid(machine: Machine) -> Finding:
    if machine.pid == 1:
        return _fact("pid", "ok", "this is PID 1")
    return _fact("pid", "ok", f"this is process {machine.pid}; this holds for a PID 1 with the same privilege")


def _manager(machine: Machine) -> Finding:
    if machine.manager != "generic":
        return _fact("manager", "ok", f"{machine.manager} (container={machine.container})")
    given = (
        f"container={machine.container}, which is not known"
        if machine.container
        else "no container= in the environment"
    )
    remedy = "if there is a manager, have it set container=; its terminal and network interfaces are left alone else"
    return _fact("manager", "weaker", f"none recognised: {given}", remedy)


def _of_plan(examined: Examination) -> list[Finding]:
    if examined.plan is None:
        return [
            Finding(
                group="container",
                subject="plan",
                verdict="missing",
                says=examined.refusal.partition("; ")[0],
                remedy=examined.refusal.partition("; ")[2] or "correct the configuration",
                needed=True,
            )
        ]
    found = []
    for step in examined.plan.steps:
        if isinstance(step, s.TakeCgroup):
            says = f"{step.what()} ({step.why})"
            remedy = "have the manager mount cgroup2 writable, or delegate a cgroup" if step.how == "none" else ""
            found.append(_fact("cgroup", "weaker" if remedy else "ok", says, remedy))
        elif isinstance(step, s.ConsoleStep):
            found.append(_fact("console", "ok", f"{step.what()}" + (f" ({step.why})" if step.why else "")))
    return found


def _controllers(examined: Examination) -> Finding:
    if examined.controllers is None:
        remedy = "run a kernel with cgroup2; a guest works without, but nothing in it can be limited"
        return _fact("controllers", "weaker", "no cgroup2 hierarchy can be seen", remedy)
    if not examined.controllers:
        remedy = "enable them in cgroup.subtree_control above, or boot with cgroup_no_v1=all where v1 has taken them"
        return _fact("controllers", "weaker", "none here: nothing in the guest can be limited", remedy)
    return _fact("controllers", "ok", " ".join(examined.controllers))


def _network(examined: Examination) -> Finding:
    from lcinit.errors import ConfigError

    try:
        moved, why = interfaces_to_move(examined.config, examined.machine)
    except ConfigError as error:
        return _fact("network", "missing", error.message, error.hint or "correct network.interfaces")
    if moved:
        return _fact("network", "ok", f"{' '.join(moved)} would be moved into the guest ({why})")
    if not examined.machine.interfaces or not examined.config.namespaces.network:
        return _fact("network", "ok", f"no interface would be moved ({why})")
    names = " ".join(interface.name for interface in examined.machine.interfaces)
    remedy = "name those the guest shall have in network.interfaces, or set namespaces: {network: false}"
    return _fact("network", "weaker", f"{names} stay here ({why})", remedy)


def _visibility(examined: Examination) -> Finding:
    if not examined.covered:
        return _fact("proc-sys", "ok", "nothing is mounted over parts of /proc and /sys")
    shown = " ".join(examined.covered[:4]) + (f" and {len(examined.covered) - 4} more" if examined.covered[4:] else "")
    return _fact(
        "proc-sys",
        "weaker",
        f"mounted over: {shown}; lcinit mounts a pristine one aside, so that the guest may mount its own",
        "none is needed; a manager that unmasks them (podman --security-opt unmask=ALL) spares it",
    )


def _nofile(examined: Examination) -> Finding:
    soft, hard = examined.nofile
    if 0 <= hard < 65536:
        return _fact(
            "nofile",
            "weaker",
            f"{soft} descriptors a process, {hard} at most: systemd guests expect 524288",
            "raise it in the manager, or with limits: {nofile: ...} where there is CAP_SYS_RESOURCE",
        )
    return _fact("nofile", "ok", f"{soft} descriptors a process, {hard if hard >= 0 else 'any number'} at most")


_LOST_PARTS = {
    "yaml": ("no configuration file can be read", "install PyYAML built with libyaml"),
    "uvloop": ("asyncio's own event loop is used", "install uvloop"),
    "aiofiles": ("needed by the supervising phase alone", "install aiofiles"),
}


def _python(examined: Examination) -> list[Finding]:
    found = []
    for part in examined.parts:
        lost, remedy = _LOST_PARTS[part.name]
        needed = part.name == "yaml"
        bad: Verdict = "missing" if needed else "weaker"
        says = f"{part.error}: {lost}" if part.error else "with libyaml's parser" if needed else "imports"
        verdict: Verdict = bad if part.error else "ok"
        found.append(
            Finding(
                group="python",
                subject=part.name,
                verdict=verdict,
                says=says,
                remedy=remedy if part.error else "",
                needed=needed,
            )
        )
    return found
