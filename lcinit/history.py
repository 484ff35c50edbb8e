"""The last records of something, numbered, and those who want to hear of the next: the log's and the events' memory."""

from __future__ import annotations

from lcinit import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Entry = dict[str, Any]
    Listener = Callable[[Entry], object]


class History:
    """At most `capacity` records {"seq", "time", ...}; `seq` counts from 1 and never repeats, `time` is `clock()`.

    A listener that raises is dropped, and the log says so. Records made while listeners are told are kept and not
    told: one that logs what it hears would never come to an end.
    """

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        self.capacity = capacity
        self.last = 0
        self._clock = clock
        self._records: list[Entry] = []
        self._listeners: list[Listener] = []
        self._telling = False

    def append(self, facts: Entry) -> Entry:
        """Number and date it, keep it, tell it to the listeners; the whole record."""
        self.last += 1
        entry: Entry = {**facts, "seq": self.last, "time": round(self._clock(), 6)}
        self._records.append(entry)
        if len(self._records) > self.capacity:
            del self._records[0]
        if self._listeners and not self._telling:
            self._tell(entry)
        return entry

    def since(self, after: int = 0) -> list[Entry]:
        """The records kept whose number is greater, oldest first."""
        return [entry for entry in self._records if entry["seq"] > after]

    def restore(self, records: list[Entry], last: int) -> None:
        """Go on where another history ended: its records, and the number of its newest."""
        self._records[:0] = records
        del self._records[: -self.capacity]
        self.last = max(self.last, last)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each record from now on; call what is returned to end that (any number of times)."""

        def unsubscribe() -> None:
            if hear in self._listeners:
                self._listeners.remove(hear)

        def hear(entry: Entry) -> None:
            listener(entry)

        self._listeners.append(hear)
        return unsubscribe

    def _tell(self, entry: Entry) -> None:
        self._telling = True
        try:
            for listener in list(self._listeners):
                if listener in self._listeners:  # an earlier one may have ended it
                    self._tell_one(listener, entry)
        finally:
            self._telling = False

    def _tell_one(self, listener: Listener, entry: Entry) -> None:
        try:
            listener(entry)
        except Exception as error:
            if listener in self._listeners:
                self._listeners.remove(listener)
            log.error(f"a listener failed and hears no more: {type(error).__name__}: {error}")
