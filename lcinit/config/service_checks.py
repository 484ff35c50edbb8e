"""One service out of the parts that say something of it, and what one key demands of another.

Nothing that a user wrote is ever ignored: what would have no effect is refused. But a later file may take the sense
from what an earlier one says (`restart: no` over a restart_delay): that is no mistake, and the earlier key is left out.
"""

from __future__ import annotations

from lcinit.config.diagnostics import Problem
from lcinit.config.service_values import Service
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lcinit.config.service_values import ServicePart

_FITTING = {
    "notify_fd": "notify-fd",
    "notify_access": "notify",
    "pid_file": "forking",
    "remain_after_exit": "oneshot",
    "watchdog": "notify",
    "watchdog_signal": "notify",
}
"""Keys that mean something for one type alone."""
_OF_RESTARTS = ("restart_delay", "restart_max_delay", "restart_jitter", "restart_reset", "restart_prevent_exit_status")
_COMMANDS = ("start_pre", "start_post", "stop", "stop_post", "reload")
_OUT = "or leave it out"


class Mistake(Record):
    """What is wrong between `keys`: the file that it is told of, and the problem there."""

    origin: str
    problem: Problem
    keys: tuple[str, ...]

    def text(self) -> str:
        """`FILE:LINE:COLUMN: KEY.PATH: what is wrong; what would be right`."""
        return self.problem.text(self.origin)


class _Merging:
    """The keys of a service, each with the part that had the last word on it."""

    def __init__(self, parts: Sequence[ServicePart]) -> None:
        self.parts = parts
        self.values: dict[str, Any] = {}
        self.mistakes: list[Mistake] = []
        self._given: dict[str, tuple[int, int]] = {}
        for rank, part in enumerate(parts):
            for at, (key, value) in enumerate(part.given):
                self.values[key] = value
                self._given[key] = (rank, at)

    def __getitem__(self, key: str) -> Any:
        """Its value, given or not."""
        return self.values[key] if key in self.values else getattr(Service, key)

    def given(self, key: str) -> bool:
        """Whether somebody wrote it."""
        return key in self._given

    def asks(self, key: str) -> bool:
        """Whether it was given, and for something."""
        return self.values.get(key) not in (None, ())

    def _rank(self, key: str) -> int:
        return self._given.get(key, (-1, 0))[0]

    def _place(self, key: str) -> tuple[int, int]:
        rank, at = self._given[key]
        return self.parts[rank].places[at] if self.parts[rank].places else self.parts[rank].place

    def wrong(self, keys: tuple[str, ...], what: str, right: str) -> None:
        """Note a mistake between keys: it is told of the first of those that were given last."""
        rank = max(self._rank(key) for key in keys)
        told = next(key for key in keys if self._rank(key) == rank)
        part = self.parts[rank]
        line, column = part.place if rank < 0 else self._place(told)  # nobody gave it: the last part could
        for key in keys:
            if 0 <= self._rank(key) < rank:
                other = self.parts[self._rank(key)]
                what = f"{what} ({key} stands in {other.origin}:{self._place(key)[0]})"
        path = f"{part.path}.{told}" if part.path else told
        problem = Problem(line=line, column=column, path=path, what=what, right=right)
        self.mistakes.append(Mistake(origin=part.origin, problem=problem, keys=keys))

    def no_effect(self, key: str, because: str, why: str, right: str) -> None:
        """`key` means nothing beside the value of `because`: a mistake, unless a later part said that."""
        if not self.asks(key):
            return
        if self._rank(key) < self._rank(because):
            del self.values[key], self._given[key]
        else:
            self.wrong((key, because), f"has no effect {why}", right)


def merge(name: str, parts: Sequence[ServicePart]) -> tuple[Service, tuple[Mistake, ...]]:
    """The service, later parts over earlier ones key by key, and all that is wrong between its keys."""
    merging = _Merging(parts)
    _by_type(merging)
    _restarts(merging)
    _output(merging)
    _relations(name, merging)
    if not merging["command"]:
        known = "write the program and its arguments"
        if len(parts) == 1 and parts[0].path:
            known = f"{known}, or the name of a service that has a file"
        merging.wrong(("command",), "the key is missing", known)
    return Service(name=name, origin=parts[-1].origin, **merging.values), tuple(merging.mistakes)


def within(part: ServicePart) -> tuple[Problem, ...]:
    """What is wrong within one part, whatever others say."""
    given = {key for key, _ in part.given}
    return tuple(each.problem for each in merge(part.name, (part,))[1] if given.issuperset(each.keys))


def _by_type(its: _Merging) -> None:
    type_ = its["type"]
    for key, fitting in _FITTING.items():
        if type_ != fitting:
            its.no_effect(key, "type", f"for type {type_}", f"write type: {fitting}, {_OUT}")
    if type_ == "forking" and its["pid_file"] is None:
        right = "write pid_file, or have it stay in the foreground, as another type"
        its.wrong(("type", "pid_file"), "a forking service needs a pid_file", right)
    if type_ != "oneshot":
        return
    if its["restart"] == "always":
        right = "write restart: on-failure, or another type"
        its.wrong(("restart", "type"), "a oneshot that always restarts never ends", right)
    for key in ("health", "reload", "reload_signal"):
        its.no_effect(key, "type", "for type oneshot", "leave it out")
    if not its["remain_after_exit"]:
        its.no_effect(
            "stop", "remain_after_exit", "without remain_after_exit: it is never up", "write stop_post instead"
        )


def _restarts(its: _Merging) -> None:
    health = its["health"]
    cures = health is not None and health.action == "restart"
    if its["restart"] == "no" and not cures:
        for key in _OF_RESTARTS:
            its.no_effect(key, "restart", "with restart: no", f"write restart: on-failure, {_OUT}")
    if its["restart"] == "on-watchdog" and its["watchdog"] is None and not cures:
        right = "write watchdog, or restart: on-failure"
        its.wrong(("restart", "watchdog", "health", "type"), "it restarts on-watchdog, and there is no watchdog", right)
    if its["restart_delay"] == 0:
        for key in ("restart_max_delay", "restart_jitter"):
            its.no_effect(key, "restart_delay", "with restart_delay: 0", "leave it out")
    elif not its.given("restart_max_delay"):
        its.values["restart_max_delay"] = max(its["restart_max_delay"], its["restart_delay"])
    elif not its.given("restart_delay"):
        its.values["restart_delay"] = min(its["restart_max_delay"], its["restart_delay"])
    elif its["restart_max_delay"] < its["restart_delay"]:
        least, most = its["restart_delay"], its["restart_max_delay"]
        longer = f"{least:g} s of restart_delay are more than {most:g} s of restart_max_delay"
        its.wrong(("restart_delay", "restart_max_delay"), longer, "write restart_max_delay at least as long")
    if its["start_limit_burst"] is None:
        right = f"write start_limit_burst, {_OUT}"
        its.no_effect("start_limit_interval", "start_limit_burst", "without a limit", right)


def _output(its: _Merging) -> None:
    """What it prints goes to its terminal, but for that of its commands."""
    health = its["health"]
    commands = any(its[key] for key in _COMMANDS) or (health is not None and health.exec is not None)
    if its["tty"] is not None and not commands:
        its.no_effect("log", "tty", "beside tty: all that it prints is on the terminal", "leave one of them out")


def _relations(name: str, its: _Merging) -> None:
    for key in ("requires", "wants", "start_after", "start_before"):
        if name in its[key]:
            its.wrong((key,), "names the service itself", "leave it out")
    earlier = {key: frozenset(its[key]) for key in ("requires", "wants", "start_after")}
    for other in dict.fromkeys(its["start_before"]):
        for key, names in earlier.items():
            if other in names:
                its.wrong(("start_before", key), f"{other} stands in {key}, too", "keep one of them")
