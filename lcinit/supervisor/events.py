"""What happened to the guest and to lcinit since it started: the event stream that outsiders read."""

from __future__ import annotations

import time

from lcinit.history import History

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KINDS = (
    "guest-preparing",
    "guest-started",
    "guest-ready",
    "stop-asked",
    "stop-sent",
    "stop-refused",
    "guest-killed",
    "guest-ended",
    "guest-restarting",
    "oom-killed",
    "frozen",
    "thawed",
    "initctl-request",
    "log-level-changed",
    "reexecuted",
)
"""The kinds that the interface documents. Others may come: readers take what they do not know as it is."""


class EventLog:
    """The last `capacity` events {"seq", "time", "kind", and the event's own facts}; `clock` gives unix time."""

    def __init__(self, capacity: int = 1000, clock: Callable[[], float] = time.time) -> None:
        self._history = History(capacity, clock)

    @property
    def last(self) -> int:
        """The number of the newest event, 0 before the first."""
        return self._history.last

    def record(self, kind: str, **facts: Any) -> None:
        """Note that it happened. `facts` must be what JSON can say. Never raises because of who listens."""
        self._history.append({"kind": kind, **facts})

    def history(self, after: int = 0) -> list[dict[str, Any]]:
        """The events kept whose number is greater than `after`, oldest first."""
        return self._history.since(after)

    def restore(self, events: list[dict[str, Any]], last: int) -> None:
        """Go on where another log ended: its events, and the number of its newest."""
        self._history.restore(events, last)

    def subscribe(self, callback: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Call `callback` with every event from now on, until the function that is returned is called.

        A callback that raises is dropped, and the log says so.
        """
        return self._history.subscribe(callback)
