"""How long a service may take for what it does now."""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable


class Deadline:
    """One at a time. `expired` is called with its name and how many seconds it was. Needs the running loop."""

    __slots__ = ("_expired", "_name", "_timer")

    def __init__(self, expired: Callable[[str, float], None]) -> None:
        self._expired = expired
        self._timer: TimerHandle | None = None
        self._name = ""

    def arm(self, name: str, seconds: float | None) -> None:
        """It runs from now on, in place of the one before; None: there is none."""
        self.cancel()
        self._name = name
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._fire, seconds)

    def extend(self, seconds: float) -> None:
        """The one that runs ends so many seconds from now."""
        if self._timer is not None:
            self.arm(self._name, seconds)

    def hurry(self, seconds: float) -> None:
        """The same, where it would end later; one without an end gets this."""
        if self._timer is None or self._timer.when() > asyncio.get_running_loop().time() + seconds:
            self.arm(self._name or "stop", seconds)

    def cancel(self) -> None:
        """None runs any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self, seconds: float) -> None:
        self._timer = None
        self._expired(self._name, seconds)
