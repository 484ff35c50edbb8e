"""What a manager does for its container, and nobody for a machine's first process. Pure."""

from __future__ import annotations

from lcinit.config.values import Config
from lcinit.plan import steps as s
from lcinit.plan.facts import Machine

# As the machine's own file systems are mounted by most distributions.
FILE_SYSTEMS = (
    ("proc", "proc", ("nosuid", "nodev", "noexec")),
    ("sysfs", "sys", ("nosuid", "nodev", "noexec")),
    ("devtmpfs", "dev", ("nosuid",)),
)

ENDS_IN_PANIC = (
    "this is the machine's first process: with an id map the guest ends it by exiting, and then the kernel panics; "
    "boot it with panic=-1 to restart the machine then, or start lcinit in a container"
)


def first_steps(config: Config, machine: Machine, root: str) -> list[s.Step]:
    """The steps before all commands that bring the boot root to where a manager would have had it; none under one."""
    steps: list[s.Step] = []
    if machine.initramfs and config.root.mode == "pivot" and root != "/":
        why = "the kernel's own root cannot be pivoted away"
        steps.append(s.CoverInitramfs(phase="setup.before", why=why))
    if not machine.first:
        return steps
    for fstype, target, attributes in FILE_SYSTEMS:
        if fstype in machine.missing:
            steps.append(
                s.MountNew(
                    phase="setup.before",
                    fstype=fstype,
                    target=target,
                    side="outside",
                    attributes=attributes,
                    aside=True,
                    why="nobody else mounts it here",
                )
            )
    if "devtmpfs" in machine.missing and not machine.console.terminal:
        steps.append(s.OpenConsole(phase="setup.before", why="the kernel could not"))
    return steps
