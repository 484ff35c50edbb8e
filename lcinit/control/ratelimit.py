"""How often something may be said. Pure: the time is an argument."""

from __future__ import annotations


class RateLimit:
    """Lets `burst` events pass at once and one more every `every` seconds (a token bucket); the others are counted."""

    def __init__(self, burst: int = 5, every: float = 10.0) -> None:
        self._burst = burst
        self._every = every
        self._room = float(burst)
        self._last: float | None = None
        self._left_out = 0

    def take(self, now: float) -> bool:
        """Whether the event may pass. `now` is in seconds, from any clock that never goes back."""
        if self._last is not None:
            self._room = min(self._room + (now - self._last) / self._every, self._burst)
        self._last = now
        if self._room >= 1:
            self._room -= 1
            return True
        self._left_out += 1
        return False

    def left_out(self) -> int:
        """How many did not pass since this was asked last."""
        count, self._left_out = self._left_out, 0
        return count
