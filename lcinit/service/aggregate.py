"""What lcinit's own manager is told of all services together (sd_notify(3)). Pure: `tell` says it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Aggregate:
    """READY=1 once, when every service of the boot's runlevel is up or has failed for good; a STATUS whenever the
    numbers change; STOPPING=1 once.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        """`tell` is ManagerSocket.tell."""
        self._tell = tell
        self._ready = False
        self._stopping = False
        self._numbers = (-1, -1, -1)

    def update(self, up: int, failed: int, total: int) -> None:
        """How many of the `total` services of the runlevel are up, and how many have failed for good."""
        if (up, failed, total) == self._numbers:
            return
        self._numbers = (up, failed, total)
        lines = []
        if not self._ready and not self._stopping and up + failed >= total:
            self._ready = True
            lines.append("READY=1")
        lines.append(f"STATUS={summary(up, failed, total)}")
        self._tell("\n".join(lines))

    def stopping(self) -> None:
        """The container is about to end."""
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1")


def summary(up: int, failed: int, total: int) -> str:
    """`3 of 5 services are up, 1 has failed`."""
    if total == 0:
        return "there are no services"
    services = "1 service" if total == 1 else f"{total} services"
    text = f"{up} of {services} {'is' if up == 1 else 'are'} up"
    if failed:
        text += f", {failed} {'has' if failed == 1 else 'have'} failed"
    return text
