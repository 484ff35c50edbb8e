"""The steps that make the guest's namespaces, on the leader's and on the helper's side."""

from __future__ import annotations

import os

from lcinit.boot.world import World
from lcinit.config.values import IdRange
from lcinit.errors import SystemFailure
from lcinit.linux import namespaces, process
from lcinit.linux.signals import SIGKILL
from lcinit.plan import steps as s
from lcinit.supervisor.dumping import forbid_dumping
from lcinit.supervisor.userns import any_procfs

FLAGS = {
    "user": namespaces.CLONE_NEWUSER,
    "mount": namespaces.CLONE_NEWNS,
    "pid": namespaces.CLONE_NEWPID,
    "uts": namespaces.CLONE_NEWUTS,
    "ipc": namespaces.CLONE_NEWIPC,
    "network": namespaces.CLONE_NEWNET,
    "cgroup": namespaces.CLONE_NEWCGROUP,
}


def unshare(world: World, step: s.Unshare) -> None:
    """All of the guest's namespaces in one call; with a user namespace only a single-threaded process may."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise SystemFailure(f"cannot unshare: lcinit has {threads} threads and must have one")
    flags = 0
    for name in step.namespaces:
        flags |= FLAGS[name]
    namespaces.unshare(flags)
    if "mount" in step.namespaces:
        world.reopen_root()


def set_hostname(_world: World, step: s.SetHostname) -> None:
    """That of the new UTS namespace."""
    process.sethostname(step.name)


def clone_leader(world: World, step: s.CloneLeader) -> tuple[int, int]:
    """The guest's PID 1, born in its namespaces and its cgroup: `(pid, pidfd)`, and in it `(0, -1)`.

    It is a child of PID 1, not of the builder that calls this (CLONE_PARENT), so that its end is PID 1's to learn.
    """
    forbid_dumping()
    flags = namespaces.CLONE_PARENT | namespaces.CLONE_PIDFD
    for name in step.namespaces:
        flags |= FLAGS[name]
    # with CLONE_PARENT the signal at its end is the caller's own, and must not be given (clone(2))
    cgroup = world.guest_cgroup if world.guest_cgroup >= 0 else None
    pid, pidfd = namespaces.clone3(flags, cgroup_fd=cgroup, exit_signal=0)
    if pid == 0:
        process.set_pdeathsig(SIGKILL)
        world.reopen_root()
    return pid, pidfd


def become_root(world: World) -> None:
    """After the maps are written: uid and gid 0 of the new user namespace, no supplementary groups."""
    leave_groups()
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    world.inside = True
    if world.report is not None:
        process.set_pdeathsig(SIGKILL)  # the change of ids has undone what clone_leader did
    forbid_dumping()


def leave_groups() -> None:
    """Drop the supplementary groups, where the user namespace lets anybody do that.

    Below one whose gid map an ordinary user wrote nobody may (user_namespaces(7), /proc/PID/setgroups): a group can
    also take rights away (CVE-2014-8989). The groups stay then, and are nobody's inside.
    """
    try:
        os.setgroups([])
    except PermissionError:
        with open("/proc/self/setgroups", encoding="utf-8") as file:
            if file.read().strip() != "deny":
                raise


def write_id_map(step: s.WriteIdMap, leader: int) -> None:
    """The helper's part: both maps through a procfs of its own, one write each, read back and compared."""
    procfs = any_procfs()
    try:
        for name, ranges in (("uid_map", step.id_map.users), ("gid_map", step.id_map.groups)):
            wanted = [(r.inside, r.outside, r.size) for r in ranges]
            namespaces.write_proc_file(procfs, leader, name, namespaces.format_id_map(wanted))
            _check_map(name, ranges, namespaces.read_proc_file(procfs, leader, name))
    finally:
        os.close(procfs)


def _check_map(name: str, ranges: tuple[IdRange, ...], text: bytes) -> None:
    # The kernel keeps the order up to five ranges and sorts more than that.
    got = sorted(tuple(int(word) for word in line.split()) for line in text.splitlines())
    if got != sorted((r.inside, r.outside, r.size) for r in ranges):
        raise SystemFailure(f"the kernel's {name} is not what was written")
