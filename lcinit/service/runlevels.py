"""Runlevels as SysV means them: S is the boot's, 1 the single user's, 2 to 5 many users', 0 halts, 6 reboots. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lcinit.config.service_values import Service

BOOT = "S"
NONE = "N"
"""What runlevel(8) prints for the one before the first."""
LEVELS = ("1", "2", "3", "4", "5")


def normal(runlevel: str) -> str:
    """The runlevel by its one name: S and s, asked for by somebody, are the single user's, 1."""
    return "1" if runlevel in ("S", "s") else runlevel


def members(services: Mapping[str, Service], enabled: Iterable[str], runlevel: str) -> frozenset[str]:
    """Which services a runlevel has: the enabled ones that name it, and those of S, which stay until the halt."""
    wanted = {BOOT, runlevel}
    return frozenset(name for name in enabled if name in services and wanted.intersection(services[name].runlevels))


def of_boot(services: Mapping[str, Service], enabled: Iterable[str]) -> frozenset[str]:
    """Those that start before all others when lcinit boots."""
    return frozenset(name for name in enabled if name in services and BOOT in services[name].runlevels)
