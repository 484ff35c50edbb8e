"""Waiting until those of a service that were killed have ended: they may hold a port, a lock or a file until then."""

from __future__ import annotations

import asyncio

INTERVAL, MOST_LOOKS = 0.002, 1000  # seconds between looks at a cgroup that was killed, and how many

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
        self._look(do, MOST_LOOKS)

    def _look(self, do: Callable[[], None], looks: int) -> None:
        self._timer = None
        if looks and self._cgroups.emptying(self._name):
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look, do, looks - 1)
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

    def look(looks: int) -> None:
        if looks and cgroups.any_emptying():
            loop.call_later(INTERVAL, look, looks - 1)
        else:
            done.set_result(None)

    look(int(seconds / INTERVAL))
    await done
