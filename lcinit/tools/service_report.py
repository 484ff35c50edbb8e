"""What a running lcinit says of its services, for a reader at a terminal. Pure but for gmtime.

Names, reasons and what services say of themselves may hold anything: whatever could move a cursor is shown escaped.
"""

from __future__ import annotations

import shlex

from lcinit.log import printable
from lcinit.tools.report import duration, moment, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

COLOURS = {"active": "32", "reloading": "32", "activating": "33", "deactivating": "33", "failed": "31;1"}
AWAITED = {"ready": ("active", "reloading", "failed"), "stopped": ("inactive", "failed")}
_NAME = 24  # columns for a name; a longer one moves what follows it
_SAYS_NOTHING_NEW = ("success", "exit-code", "signal")  # of how it ended: status and signal tell it
_BECOME = {
    "changed": "is changed",
    "added": "is new",
    "removed": "is gone",
    "enabled": "is enabled",
    "disabled": "is disabled",
}
_EFFECTS = {"start": "started", "stop": "stopped", "restart": "restarted", "reload": "reloaded"}


def overview_text(services: list[dict[str, Any]], now: float, width: int = 80, *, colour: bool = False) -> str:
    """One line for each service, of at most `width` columns where its name leaves room. `now` is the unix time."""
    if not services:
        return "there are no services\n"
    rows = [
        (printable(each["name"]), _state(each), duration(now - each["since"]), printable(_note(each)))
        for each in services
    ]
    name, state, since = (max(len(row[column]) for row in rows) for column in range(3))
    name = min(name, _NAME)
    lines = []
    for each, row in zip(services, rows, strict=True):
        painted = _paint(row[1], each["state"], colour) + " " * (state - len(row[1]))
        note = _cut(row[3], width - max(name, len(row[0])) - state - since - 6)
        lines.append(f"{row[0]:<{name}}  {painted}  {row[2]:>{since}}  {note}".rstrip())
    return "\n".join(lines) + "\n"


def details_text(service: dict[str, Any], now: float, width: int = 80, *, colour: bool = False) -> str:
    """Everything about one service."""
    title = service["name"] + (f" - {service['description']}" if service["description"] else "")
    lines = [_cut(printable(title), width)]
    for label, value in _facts(service, now):
        lines += wrapped(label, printable(value), width)
    state = _state(service)
    lines[1] = lines[1].replace(state, _paint(state, service["state"], colour), 1)
    return "\n".join(lines) + "\n"


def _facts(service: dict[str, Any], now: float) -> Iterable[tuple[str, str]]:
    yield "state", f"{_state(service)} since {moment(service['since'])}, {duration(now - service['since'])}"
    if service["reason"]:
        yield "reason", service["reason"]
    elif service["waits_for"]:
        yield "waits for", ", ".join(service["waits_for"])
    if service["status_text"]:
        yield "says", service["status_text"]
    if service["pid"] is not None:
        started = service["started"]
        since = "" if started is None else f", started {moment(started)}"
        yield "process", f"{service['pid']}{since}"
    if ended := _end(service):
        yield "ended", ended
    if service["restarts"]:
        yield "restarts", str(service["restarts"])
    if used := _used(service):
        yield "cgroup", used
    levels = " ".join(service["runlevels"])
    enabled = "yes" if service["enabled"] else "no"
    yield (
        "enabled",
        f"{enabled}, runlevel{'s' if len(service['runlevels']) > 1 else ''} {levels}" if levels else enabled,
    )
    for label in ("requires", "wants"):
        if service[label]:
            yield label, ", ".join(service[label])
    others = [name for name in service["after"] if name not in (*service["requires"], *service["wants"])]
    if others:
        yield "after", ", ".join(others)
    if service["command"]:
        yield "command", f"{shlex.join(service['command'])} ({service['type']})"
    yield "output", service["log"]
    if service["origin"]:
        yield "file", service["origin"]


def _state(service: dict[str, Any]) -> str:
    """systemctl's way to say it: `active (running)`."""
    state, sub = printable(service["state"]), printable(service["sub"])
    return state if state == sub else f"{state} ({sub})"


def _note(service: dict[str, Any]) -> str:
    """What matters most about it now."""
    if service["reason"]:
        return str(service["reason"])
    return str(service["status_text"] or service["description"])


def _end(service: dict[str, Any]) -> str:
    """How it ended last."""
    parts = []
    if service["result"] not in _SAYS_NOTHING_NEW:
        parts.append(service["result"])
    if service["signal"] is not None:
        parts.append(f"signal {service['signal']}")
    elif service["status"] is not None:
        parts.append(f"exit code {service['status']}")
    return ", ".join(parts)


def _used(service: dict[str, Any]) -> str:
    parts = [service["cgroup"]] if service["cgroup"] else []
    if service["processes"] is not None:
        parts.append("1 process" if service["processes"] == 1 else f"{service['processes']} processes")
    if service["memory"] is not None:
        parts.append(f"{service['memory'] / (1 << 20):.1f} MiB")
    return ", ".join(parts)


def failure_text(result: dict[str, Any], method: str) -> str:
    """One line for a Result that is not what was asked for with the method."""
    name, reason = result["name"], f": {result['reason']}" if result["reason"] else ""
    if method == "Reload":
        return f"{name} was not reloaded{reason}"
    if result["state"] == "failed":
        return f"{name} has failed{reason}"
    return f"{name} is not {'down' if method == 'Stop' else 'up'} ({result['sub']}){reason}"


def waiting_text(services: list[dict[str, Any]], names: list[str], aim: str, seconds: float) -> str:
    """Which of the services are not yet what is waited for, and what those wait for themselves."""
    left = [each for each in services if each["state"] not in AWAITED[aim]]
    words = [_with_what_it_waits_for(each) for each in left] or names
    return printable(f"waiting for {', '.join(words)} ({duration(max(1.0, seconds))})")


def _with_what_it_waits_for(service: dict[str, Any]) -> str:
    others = service["waits_for"]
    return f"{service['name']} (after {', '.join(others)})" if others else str(service["name"])


def changes_text(changes: list[dict[str, Any]], *, dry_run: bool) -> str:
    """What daemon-reload has found, or with `dry_run` would do."""
    if not changes:
        return "nothing has changed\n"
    lines = []
    for change in changes:
        keys = f" in {', '.join(change['keys'])}" if change["keys"] else ""
        effect = ""
        if change["effect"] in _EFFECTS:
            effect = f": {'would be' if dry_run else 'is'} {_EFFECTS[change['effect']]}"
        lines.append(printable(f"{change['name']} {_BECOME[change['kind']]}{keys}{effect}"))
    return "\n".join(lines) + "\n"


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return f"{text[: width - 3]}..." if width > 3 else ""


def _paint(text: str, state: str, colour: bool) -> str:
    code = COLOURS.get(state) if colour else None
    return text if code is None else f"\x1b[{code}m{text}\x1b[0m"
