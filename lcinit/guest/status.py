"""What `Status` of the control interface tells: everything known of the guest, as JSON types."""

from __future__ import annotations

import os
import time

from lcinit import __version__, log
from lcinit.boot import cgroup_control as cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lcinit.guest.start import Start
    from lcinit.guest.supervisor import Supervisor

_STATES = {"waiting": "restarting"}


def as_data(supervisor: Supervisor) -> dict[str, Any]:
    """The whole answer."""
    plan = supervisor.world.plan
    current = supervisor.current
    return {
        "version": __version__,
        "pid": os.getpid(),
        "manager": plan.manager,
        "mode": supervisor.rules.pid,
        "state": _STATES.get(supervisor.state.name, supervisor.state.name),
        "since": supervisor.since,
        "guest": None if current is None or current.started is None else _guest(supervisor),
        "stop": _stop(supervisor),
        "starts": supervisor.starts,
        "history": list(supervisor.history),
        "timings": {} if current is None else dict(current.phases),
        "log_level": log.level(),
    }


def past_start(start: Start, reason: str, code: int, word: str | None, ooms: int) -> dict[str, Any]:
    """One entry of the history: a start that has just ended."""
    return {
        "started": start.started_at,
        "ended": time.time(),
        "reason": reason,
        "status": code,
        "request": word,
        "oom_kills": ooms,
    }


def _guest(supervisor: Supervisor) -> dict[str, Any]:
    current = supervisor.current
    assert current is not None and current.started is not None
    config = supervisor.world.config
    step = supervisor.world.plan.steps[-1]
    argv = list(step.argv)  # type: ignore[attr-defined]
    id_map = config.id_map
    ranges = () if id_map is None else id_map.users
    processes, all_of_them = cgroup.count(current.cgroup_fd)
    return {
        "pid": current.pid,
        "init": argv[0],
        "kind": current.kind,
        "started": current.started_at,
        "uptime": time.monotonic() - current.started,
        "ready": supervisor.ready,
        "frozen": supervisor.frozen,
        "cgroup": _cgroup_path(current.pid, current.cgroup_fd),
        "processes": processes if processes and all_of_them else None,
        "memory": cgroup.number(current.cgroup_fd, "memory.current"),
        "command": argv,
        "id_map": [[r.inside, r.outside, r.size] for r in ranges],
    }


def _stop(supervisor: Supervisor) -> dict[str, Any] | None:
    if supervisor.state.word is None or supervisor.stop_asked is None:
        return None
    elapsed = time.monotonic() - supervisor.stop_asked
    return {
        "request": supervisor.state.word,
        "origin": supervisor.stop_origin,
        "asked": time.time() - elapsed,
        "timeout": supervisor.rules.timeout,
        "elapsed": elapsed,
    }


def _cgroup_path(pid: int, cgroup_fd: int) -> str | None:
    """The guest's place in the cgroup2 hierarchy, as PID 1's cgroup namespace shows it.

    That of process `pid`, cut to the directory of `cgroup_fd`: an init such as systemd's moves on to one below it.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
        held = os.readlink(f"/proc/self/fd/{cgroup_fd}") if cgroup_fd >= 0 else ""
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    above = path or "/"
    while above != "/":
        if held.endswith(above):  # where it is mounted stands before it
            return above
        above = os.path.dirname(above)
    return path
