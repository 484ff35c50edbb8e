"""What a newly read set of services changes: which are new, gone or different, and what each difference costs. Pure."""

from __future__ import annotations

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    from lcinit.config.service_values import Service

POLICY = frozenset(
    (
        *("origin", "description", "requires", "wants", "start_after", "start_before", "runlevels"),
        *("start_post", "stop", "stop_post", "reload", "reload_signal", "start_timeout", "stop_timeout", "stop_signal"),
        *("kill_mode", "restart", "restart_delay", "restart_max_delay", "restart_jitter", "restart_reset"),
        *("start_limit_burst", "start_limit_interval", "success_exit_status", "restart_prevent_exit_status"),
        *("essential", "health", "cgroup", "log", "remain_after_exit", "start_pre", "notify_access", "watchdog_signal"),
    )
)
"""Fields that say how lcinit deals with a service: they apply to one that runs. All others are its process' own."""


class Change(Record):
    """One service that differs. `keys` are the fields, `effect` what happens to it now."""

    name: str
    kind: Literal["added", "removed", "changed", "enabled", "disabled"]
    keys: tuple[str, ...] = ()
    effect: Literal["none", "restart", "start", "stop"] = "none"


def changes(
    old: Mapping[str, Service],
    new: Mapping[str, Service],
    *,
    up: Iterable[str],
    old_members: frozenset[str],
    new_members: frozenset[str],
) -> tuple[Change, ...]:
    """The differences by name. `up` are those that run or are about to; the members of the runlevel are those before
    and after: one that comes to it is started, one that leaves it is stopped.
    """
    running = frozenset(up)
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            effect: Literal["none", "restart", "start", "stop"] = "stop" if name in running else "none"
            found.append(Change(name=name, kind="removed", effect=effect))
        elif name not in old:
            found.append(Change(name=name, kind="added", effect="start" if name in new_members else "none"))
        else:
            found += _changed(name, differing(old[name], new[name]), running, old_members, new_members)
    return tuple(found)


def _changed(
    name: str, keys: tuple[str, ...], running: frozenset[str], old: frozenset[str], new: frozenset[str]
) -> list[Change]:
    leaves, comes = name in old - new, name in new - old
    if leaves and name in running:
        return [Change(name=name, kind="changed" if keys else "disabled", keys=keys, effect="stop")]
    if comes and name not in running:
        return [Change(name=name, kind="changed" if keys else "enabled", keys=keys, effect="start")]
    if keys:
        restarts = name in running and not POLICY.issuperset(keys)
        return [Change(name=name, kind="changed", keys=keys, effect="restart" if restarts else "none")]
    if leaves or comes:
        return [Change(name=name, kind="disabled" if leaves else "enabled")]
    return []


def differing(old: Service, new: Service) -> tuple[str, ...]:
    """The names of the fields that differ."""
    before, after = old.values(), new.values()
    return tuple(name for name in before if before[name] != after[name])
