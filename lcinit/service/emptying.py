"""Waiting until those of a service that were killed have ended: they may hold a port, a lock or a file until then."""

from __future__ import annotations

import asyncio
import time

INTERVAL, PATIENCE = 0.002, 2.0  # seconds between looks at a cgroup that was killed, and until they are given up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from lcinit.service.cgroups import Cgroups


class Emptying:
    """Of one service. Needs the running loop."""

    def __init__(self, cgroups: Cgroups, name: str) -> None:
        self._cgroups = cgroups
        self._name = name
        self._timer: TimerHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether something is still to be done."""
        return self._timer is not None

    def then(self, do: Callable[[], None]) -> None:
        """Do it, and nothing else any more, when they are gone or do not go: at once where there are none."""
        self.forget()
        self._look(do, time.monotonic() + PATIENCE)

    def _look(self, do: Callable[[], None], until: float) -> None:
        self._timer = None
        if self._cgroups.emptying(self._name) and time.monotonic() < until:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look, do, until)
        else:
            do()

    def forget(self) -> None:
        """Wait no longer, and do nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def emptied(cgroups: Cgroups, seconds: float) -> None:
    """Wait until all who were killed have ended, so long at most: before, their cgroups cannot be removed."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    until = time.monotonic() + seconds
    left = list(cgroups.killed())

    def look() -> None:
        while left and not cgroups.emptying(left[-1]):
            left.pop()
        if left and time.monotonic() < until:
            loop.call_later(INTERVAL, look)
        else:
            done.set_result(None)

    look()
    await done
