"""Which cgroup becomes the guest's. Pure."""

from __future__ import annotations

from lcinit.plan import steps as s
from lcinit.plan.facts import Machine


def cgroup_step(machine: Machine, *, chown: bool, leaf: bool) -> s.TakeCgroup:
    """The step that takes it, with its reason. `leaf`: PID 1 stays outside of the guest's.

    PID 1's own is only taken where nobody else is in it, and never the hierarchy's root.
    """
    cgroup = machine.cgroup
    files = machine.kernel_cgroup_delegate
    if cgroup is None or not cgroup.writable:
        why = "no cgroup2 hierarchy can be seen" if cgroup is None else "the cgroup hierarchy cannot be written to"
        return s.TakeCgroup(phase="setup", how="none", path="", why=why)
    of_the_machine = cgroup.root and machine.first
    if leaf:
        split = cgroup.controllers and cgroup.alone and cgroup.empty and not cgroup.root
        why = "PID 1 stays out"
        if split:
            why = "PID 1 goes into another beside it, so that the guest can have controllers"
        return s.TakeCgroup(
            phase="setup",
            how="leaf",
            path=cgroup.path,
            files=files,
            chown=chown,
            controllers=split or of_the_machine,
            why=why,
        )
    if cgroup.alone and cgroup.empty and not cgroup.root:
        why = "PID 1 is alone in it"
        return s.TakeCgroup(phase="setup", how="own", path=cgroup.path, files=files, chown=chown, why=why)
    why = "others share PID 1's" if not cgroup.alone else "PID 1's has children" if not cgroup.empty else "root"
    return s.TakeCgroup(
        phase="setup",
        how="child",
        path=cgroup.path,
        files=files,
        chown=chown,
        controllers=of_the_machine,
        why="the machine's own hierarchy" if of_the_machine else why,
    )
