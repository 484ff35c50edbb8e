"""When a service that has ended is started again: intervals that grow, jitter, and a limit of starts. Pure.

The first restart after a quiet time is immediate: most deaths are single. From the second in a row on there are
`restart_delay` seconds, doubled each time up to `restart_max_delay`; up for `restart_reset` seconds, it begins anew.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.service_values import Service

MOST_DOUBLINGS = 30


class Restarts:
    """One service's starts. Times are those of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.total = 0
        self._starts: list[float] = []

    def started(self, service: Service, now: float) -> bool:
        """Count a start; false where it is one too many of `start_limit_burst` in `start_limit_interval`."""
        burst = service.start_limit_burst
        if burst is None:
            return True
        self._starts = [at for at in self._starts[-burst:] if now - at < service.start_limit_interval]
        if len(self._starts) >= burst:
            return False
        self._starts.append(now)
        return True

    def delay(self, service: Service, lived: float, chance: float) -> float:
        """Seconds until it is started again after an end; it had been up for `lived`. `chance` from 0 to 1 spreads the
        delays of services that ended together by `restart_jitter` of them to either side.
        """
        if lived >= service.restart_reset:
            self.in_a_row = 0
        row, self.in_a_row = self.in_a_row, self.in_a_row + 1
        self.total += 1
        if not row:
            return 0.0
        delay = min(service.restart_delay * 2.0 ** min(row - 1, MOST_DOUBLINGS), service.restart_max_delay)
        return delay * (1 + service.restart_jitter * (2 * chance - 1))

    def forget(self) -> None:
        """Begin anew: somebody has looked at it (reset-failed, or a start by hand)."""
        self.in_a_row = 0
        self._starts.clear()
