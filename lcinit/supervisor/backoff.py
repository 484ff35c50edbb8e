"""How long to wait before something that ended is started again. Pure."""

from __future__ import annotations

FIRST, LONGEST = 1.0, 60.0  # seconds
SETTLED = 60.0  # seconds after which a start counts as a success, and waiting begins at the first interval again


class BackOff:
    """Intervals that double with every end, up to a minute."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures  # ends in a row

    def next(self, lived: float) -> float:
        """Seconds to wait after an end; `lived` is how many seconds it had been up."""
        if lived >= SETTLED:
            self.failures = 0
        wait = min(FIRST * 2.0**self.failures, LONGEST)
        self.failures = min(self.failures + 1, 16)
        return wait
