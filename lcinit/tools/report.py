"""What a running lcinit says of itself, for its reader at a terminal: state, events, log records. Pure but for gmtime.

Everything that is shown may hold what the guest chose: whatever could move a cursor is shown escaped.
"""

from __future__ import annotations

import json
import shlex
import textwrap
import time

from lcinit.log import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_LABEL = 11
_RUNS = 5


def status_text(report: dict[str, Any], now: float, width: int = 80) -> str:
    """The interface's Report in lines of at most `width` columns. `now` is the unix time."""
    manager = report["manager"] or "no manager"
    lines = [printable(f"lcinit {report['version']}, process {report['pid']} under {manager}, guest {report['mode']}")]
    for label, value in _facts(report, now):
        lines += wrapped(label, printable(value), width)
    runs = report["history"]
    if runs:
        lines += ["", "runs that ended" + (f" (the last {_RUNS} of {len(runs)})" if len(runs) > _RUNS else "")]
        for run in runs[-_RUNS:]:
            lines += wrapped("", printable(_run(run)), width, indent=2)
    return "\n".join(lines) + "\n"


def _facts(report: dict[str, Any], now: float) -> Iterable[tuple[str, str]]:
    yield "state", f"{report['state']} since {moment(report['since'])}, {duration(now - report['since'])}"
    services = report.get("services")
    if services is not None:
        yield "runlevel", report.get("runlevel") or "none"
        yield "services", _services(services)
    guest = report["guest"]
    if guest is not None:
        yield "guest", _guest(guest)
        command = guest.get("command")
        if command and command != [guest.get("init")]:
            yield "command", shlex.join(map(str, command)) if isinstance(command, list) else str(command)
        if guest.get("id_map"):
            yield "ids", _ids(guest["id_map"])
        yield "cgroup", _cgroup(guest)
    stop = report["stop"]
    if stop is not None:
        text = f"{stop['request']} asked by {stop['origin']} {duration(stop['elapsed'])} ago"
        if stop["timeout"] is not None:
            text += f", killed in {duration(max(0.0, stop['timeout'] - stop['elapsed']))}"
        yield "stop", text
    yield "starts", str(report["starts"])
    if report["timings"]:
        yield "timings", ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in report["timings"].items())
    yield "log level", report["log_level"]


def _services(counts: dict[str, int]) -> str:
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    return f"{counts['up']} of {counts['total']} up{failed}"


def _guest(guest: dict[str, Any]) -> str:
    parts = [f"{guest.get('init') or 'init'} ({guest.get('kind') or 'unknown'})"]
    if guest.get("pid") is not None:
        parts.append(f"process {guest['pid']}")
    if guest.get("uptime") is not None:
        parts.append(f"up {duration(guest['uptime'])}")
    if guest.get("ready") is not None:
        parts.append("ready" if guest["ready"] else "not ready")
    if guest.get("frozen"):
        parts.append("frozen")
    return ", ".join(parts)


def _cgroup(guest: dict[str, Any]) -> str:
    parts = [guest.get("cgroup") or "none of its own"]
    if guest.get("processes") is not None:
        parts.append("1 process" if guest["processes"] == 1 else f"{guest['processes']} processes")
    if guest.get("memory") is not None:
        parts.append(f"{guest['memory'] / (1 << 20):.1f} MiB")
    return ", ".join(parts)


def _ids(ranges: list[list[int]]) -> str:
    """Ranges as the configuration has them: first id inside, first id outside, how many."""
    return ", ".join(" ".join(str(number) for number in each) for each in ranges)


def _run(run: dict[str, Any]) -> str:
    ended = moment(run["ended"]) if run.get("ended") is not None else "?"
    parts = [f"{ended}  {run.get('reason') or 'ended'}"]
    if run.get("reason") == "failed" and run.get("status") is not None:
        parts.append(f"exit code {run['status']}")
    if run.get("request") is not None:
        parts.append(f"{run['request']} was asked for")
    if run.get("started") is not None and run.get("ended") is not None:
        parts.append(f"after {duration(run['ended'] - run['started'])}")
    if run.get("oom_kills"):
        parts.append(f"{run['oom_kills']} killed for want of memory")
    return ", ".join(parts)


def wrapped(label: str, text: str, width: int, indent: int = _LABEL) -> list[str]:
    """A labelled fact in as many lines as it takes."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=label.ljust(indent),
        subsequent_indent=" " * (indent + (2 if not label else 0)),
        break_on_hyphens=False,
    )


def event_text(event: dict[str, Any]) -> str:
    """One line for the interface's Event, without its end."""
    facts = "".join(f" {name}={_fact(value)}" for name, value in event["facts"].items())
    return printable(f"{moment(event['time'])} #{event['seq']} {event['kind']}{facts}")


def _fact(value: Any) -> str:
    """A fact as a word: in quotes where it could be taken for more than one."""
    if isinstance(value, str) and value and not any(c.isspace() or c in "\"'=" for c in value):
        return value
    return json.dumps(value, ensure_ascii=False)


def record_text(record: dict[str, Any]) -> str:
    """One line for the interface's LogRecord, without its end."""
    return printable(f"{moment(record['time'])} {record['level']}: {record['message']}")


def moment(seconds: float) -> str:
    """A time, in UTC: the container's own idea of local time is the guest's affair."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def duration(seconds: float) -> str:
    """A duration by its two largest units: `2 h 4 min`, `35 s`, `12 ms`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"
