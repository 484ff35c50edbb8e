"""One service out of the parts that say something of it, and what one key demands of another.

Nothing that a user wrote is ever ignored: what would have no effect is refused.
"""

from __future__ import annotations

from lcinit.config.service_values import Service, ServiceLog
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lcinit.config.service_values import ServicePart

_FITTING = {
    "notify_fd": ("notify-fd",),
    "notify_access": ("notify",),
    "pid_file": ("forking",),
    "remain_after_exit": ("oneshot",),
    "watchdog": ("notify",),
}
"""Keys that mean something for some types alone."""


class Mistake(Record):
    """What is wrong between keys: the key that is told, the file that gave it, and what would be right."""

    origin: str
    key: str
    what: str
    right: str

    def text(self) -> str:
        """`FILE: KEY: what is wrong; what would be right`."""
        return f"{self.origin}: {self.key}: {self.what}; {self.right}"


def merge(name: str, parts: Sequence[ServicePart]) -> tuple[Service, tuple[Mistake, ...]]:
    """The service, later parts over earlier ones key by key, and all that is wrong between its keys."""
    values: dict[str, Any] = {}
    given_by: dict[str, str] = {}
    for part in parts:
        for key, value in part.given:
            values[key] = value
            given_by[key] = part.origin
    origin = parts[-1].origin if parts else ""
    service = Service(name=name, origin=origin, **values)
    return service, tuple(_mistakes(service, given_by, origin))


def _mistakes(service: Service, given_by: dict[str, str], origin: str) -> list[Mistake]:
    found: list[Mistake] = []

    def wrong(key: str, what: str, right: str) -> None:
        found.append(Mistake(origin=given_by.get(key, origin), key=key, what=what, right=right))

    given = given_by.keys()
    if not service.command:
        wrong("command", "the key is missing", "write the program and its arguments")
    for key, types in _FITTING.items():
        asks = key in given and getattr(service, key) is not None
        if asks and service.type not in types:
            wrong(key, f"has no effect for type {service.type}", f"write type: {types[0]}, or leave it out")
    if service.type == "forking" and service.pid_file is None:
        wrong("type", "a forking service needs a pid_file", "write pid_file, or have it stay in the foreground")
    if service.type == "oneshot":
        if service.restart == "always":
            wrong("restart", "a oneshot that always restarts never ends", "write restart: on-failure, or another type")
        if service.health is not None:
            wrong("health", "has no effect for type oneshot", "leave it out")
        if service.reload or service.reload_signal is not None:
            wrong("reload" if service.reload else "reload_signal", "has no effect for type oneshot", "leave it out")
    if service.restart == "on-watchdog" and service.watchdog is None and service.health is None:
        wrong("restart", "on-watchdog without a watchdog", "write watchdog, or restart: on-failure")
    if service.restart_max_delay < service.restart_delay:
        wrong("restart_max_delay", "is below restart_delay", "write at least as much")
    if service.groups and service.user is None and service.group is None:
        wrong("groups", "there is no user whose groups they would be", "write user, or leave it out")
    if service.tty is not None and "log" in given and service.log != ServiceLog():
        wrong("log", "has no effect beside tty: it prints on the terminal", "leave one of them out")
    if service.log.to in ("console", "none"):
        before = ServiceLog()
        for key in ("max_size", "max_age", "max_files"):
            if getattr(service.log, key) != getattr(before, key):
                wrong(f"log.{key}", f"has no effect with log.to: {service.log.to}", "write log.to: file, or both")
    if service.log.format == "json" and service.log.to in ("file", "none"):
        wrong("log.format", "is that of the console", "write log.to: console or both, or leave it out")
    _relations(service, wrong)
    return found


def _relations(service: Service, wrong: Any) -> None:
    for key in ("requires", "wants", "start_after", "start_before"):
        if service.name in getattr(service, key):
            wrong(key, "names the service itself", "leave it out")
    for name in service.start_before:
        for key in ("requires", "wants", "start_after"):
            if name in getattr(service, key):
                wrong("start_before", f"{name} stands in {key}, too", "keep one of them")
    if not service.runlevels:
        wrong("runlevels", "is an empty list", "write a runlevel; a service that is not enabled does not start")
