"""The steps that fill the guest's /dev. Pure."""

from __future__ import annotations

from lcinit.config.values import Config
from lcinit.plan import steps as s

NODES = (("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0)))
LINKS = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


def device_steps(config: Config, owner: tuple[tuple[str, str], ...]) -> list[s.Step]:
    """Nodes, links and /dev/shm, then what `devices` adds; `owner` are the mount options that name the guest's root."""
    devices = config.devices
    steps: list[s.Step] = [s.MakeNode(phase="setup", name=name, device=numbers) for name, numbers in NODES]
    steps += [s.MakeLink(phase="setup", name=name, to=to) for name, to in LINKS]
    steps.append(
        s.MountNew(
            phase="setup",
            fstype="tmpfs",
            target="dev/shm",
            side="outside",
            options=(("mode", "1777"), *owner),
            attributes=("nosuid", "nodev"),
        )
    )
    if devices.inherit or devices.include:
        steps.append(
            s.CopyDevices(
                phase="setup",
                include=devices.include,
                inherit=devices.inherit,
                exclude=devices.exclude,
                rexclude=devices.rexclude,
            )
        )
    return steps
