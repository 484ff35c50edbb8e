"""daemon-reload: all files are read again, and what differs is done; files that are wrong change nothing."""

from __future__ import annotations

import asyncio

from lcinit import log
from lcinit.control.waiting import Waiting
from lcinit.errors import EX_UNAVAILABLE, ConfigError, LcinitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.service_values import Catalogue
    from lcinit.service.changes import Change
    from lcinit.service.reader import Reader
    from lcinit.service.supervisor import Supervisor


class Reloading:
    """Reads again through `reader`; `root_fd` is a handle of the guest's root. One at a time."""

    def __init__(self, supervisor: Supervisor, reader: Reader, root_fd: int) -> None:
        self._supervisor = supervisor
        self._reader = reader
        self._root_fd = root_fd
        self._task: asyncio.Task[None] | None = None
        self._once_more = False

    def begin(self, *, dry_run: bool = False) -> Waiting:
        """Its result, in time: {"changes": [...]}, or the error."""
        if self._supervisor.word is not None:
            raise LcinitError("daemon-reload is not possible now: lcinit stops", exit_code=EX_UNAVAILABLE)
        if self._task is not None:
            raise LcinitError("a daemon-reload is under way", hint="try again", exit_code=EX_UNAVAILABLE)
        waiting = Waiting()
        self._task = asyncio.get_running_loop().create_task(self._reload(waiting, dry_run))
        return waiting

    def quietly(self) -> None:
        """For SIGHUP and initctl's q, which nobody waits for: what comes of it is logged."""
        if self._task is not None:
            self._once_more = True  # files may have changed since they were read
            return
        waiting = self.begin()
        waiting.subscribe(lambda: log.error(str(waiting.error)) if waiting.error is not None else None)

    async def _reload(self, waiting: Waiting, dry_run: bool) -> None:
        try:
            catalogue = await self._reader.read_again(self._root_fd)
            if catalogue.broken:
                raise ConfigError("\n".join(broken.text for broken in catalogue.broken), hint="nothing was changed")
            found = self._supervisor.differences(catalogue)
            if not dry_run and self._supervisor.word is None:
                self._apply(catalogue, found)
            waiting.finish({"changes": [_as_data(change) for change in found]})
        except Exception as error:
            waiting.fail(error)
        finally:
            self._task = None
            if self._once_more and self._supervisor.word is None:
                self._once_more = False
                self.quietly()

    def _apply(self, catalogue: Catalogue, found: tuple[Change, ...]) -> None:
        self._supervisor.events.record("reloaded", changes=len(found))
        for change in found:
            log.info(f"{change.name} {change.kind}{_keys(change)}: {_effect(change)}")
        self._supervisor.apply(catalogue, found)


def _keys(change: Change) -> str:
    return f" ({', '.join(change.keys)})" if change.keys else ""


def _effect(change: Change) -> str:
    return {"none": "nothing to do", "restart": "restarting", "start": "starting", "stop": "stopping"}[change.effect]


def _as_data(change: Change) -> dict[str, object]:
    return {"name": change.name, "kind": change.kind, "keys": list(change.keys), "effect": change.effect}
