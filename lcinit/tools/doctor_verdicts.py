"""What the doctor concludes from what it found. Pure: a finding for each fact, with the remedy where it is not well."""

from __future__ import annotations

import errno

from lcinit.plan import steps as s
from lcinit.plan.defaults import OLDEST_KERNEL
from lcinit.plan.network import interfaces_to_move
from lcinit.plan.rebooting import unanswered
from lcinit.record import Record
from lcinit.tools.doctor_meanings import (
    GRANT,
    KERNEL,
    NEEDED_CAPABILITIES,
    NO_CHROOT,
    PARTS,
    TRIALS,
    USEFUL_CAPABILITIES,
    Meaning,
)
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
        says = f"{what}: this is an initramfs; lcinit lays a copy of / over it and pivots from that"
        remedy = "none is needed; a boot root on a file system of its own would be pivoted away"
        return Finding(group="kernel", subject=trial.name, verdict="weaker", says=says, remedy=remedy)
    return Finding(
        group="kernel",
        subject=trial.name,
        verdict="missing" if needed else "weaker",
        says=f"{what}: {trial.error}; {meaning.lost}",
        remedy=_remedy(examined.machine, trial, meaning),
        needed=needed,
    )


def _remedy(machine: Machine, trial: Trial, meaning: Meaning) -> str:
    if trial.number == errno.ENOSPC:
        return "raise /proc/sys/user/max_*_namespaces, here and in every outer user namespace"
    if trial.number == errno.EINVAL and trial.error.startswith("mount_setattr") and "idmap" not in trial.name:
        return NO_CHROOT  # "/" is no mount point whose propagation could be changed
    if trial.number == errno.EPERM and not machine.can("sys_admin"):
        return "run as root with CAP_SYS_ADMIN"
    if trial.number in (errno.ENOSYS, errno.ENODEV) and meaning.remedy == GRANT:
        return KERNEL
    return meaning.remedy


def _privilege(examined: Examination) -> list[Finding]:
    held = examined.machine.capabilities or frozenset()
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
            found.append(Finding(group="privilege", subject=f"cap_{name}", verdict="weaker", says=lost, remedy=remedy))
    if "sys_boot" in held:
        found.append(_reboot(unanswered(examined.machine)))
    return found


def _reboot(because: str) -> Finding:
    if not because:
        says = "the guest's poweroff, halt and reboot reach the manager as what they are, with an id map too"
        return Finding(group="privilege", subject="reboot", verdict="ok", says=says)
    return Finding(
        group="privilege",
        subject="reboot",
        verdict="weaker",
        says=f"reboot(2) cannot be answered for a guest with an id map: {because}. Its reboot looks like its poweroff, "
        "and sysvinit, OpenRC, runit, finit and dinit are refused in a handoff",
        remedy="use exec.mode: tolerant for such a guest",
    )


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
            says = f"{step.what()}; {step.why}"
            remedy = "have the manager mount cgroup2 writable, or delegate a cgroup" if step.how == "none" else ""
            found.append(_fact("cgroup", "weaker" if remedy else "ok", says, remedy))
        elif isinstance(step, s.ConsoleStep):
            found.append(_fact("console", "ok", step.what() + (f"; {step.why}" if step.why else "")))
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
        # the question is what PID 1 would do, whoever asks it
        moved, why = interfaces_to_move(examined.config, examined.machine.replace(pid=1))
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


def _python(examined: Examination) -> list[Finding]:
    found = []
    for part in examined.parts:
        lost, remedy = PARTS[part.name]
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
