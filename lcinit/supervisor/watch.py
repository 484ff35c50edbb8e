"""Signals on the loop: every signal is blocked and comes through a signalfd, under asyncio and uvloop alike."""

from __future__ import annotations

from lcinit import log
from lcinit.errors import LcinitError
from lcinit.linux import signals
from lcinit.linux.signals import SIGRTMIN, SignalFd, SignalInfo, signal_name
from lcinit.supervisor.reaper import Reaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable
    from typing import Any

STOP = frozenset(
    (
        *(signals.SIGTERM, signals.SIGINT, signals.SIGQUIT, signals.SIGPWR, signals.SIGHUP),
        *(SIGRTMIN + n for n in (3, 4, 5, 6, 13, 14, 15, 16)),
    )
)


class SignalWatch:
    """Reaps on SIGCHLD; on the first stop request it notes it in `stopped_by` and cancels the task that started it."""

    def __init__(self, reaper: Reaper) -> None:
        self.reaper = reaper
        self.stopped_by: SignalInfo | None = None
        self._fd = SignalFd()
        self._task: Task[Any] | None = None
        self._loop: AbstractEventLoop | None = None

    def start(self) -> None:
        """Attach to the running loop. Children that ended before are reaped at once."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._loop.add_reader(self._fd.fileno(), self.look)
        self.reaper.reap()

    def stop(self) -> None:
        """Detach; signals stay blocked and queue up."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd.fileno())
            self._loop = None

    def why(self) -> str:
        """The request in words: which signal, from which process."""
        asked = self.stopped_by
        if asked is None:
            return "cancelled"
        sender = f" from process {asked.pid}" if asked.pid else " from outside"
        return f"{signal_name(asked.signo)}{sender}"

    def look(self) -> None:
        """Take what has come by now; needs no loop."""
        for info in self._fd.read():
            if info.signo == signals.SIGCHLD:
                self.reaper.reap()
            elif info.signo in STOP and self.stopped_by is None:
                self.stopped_by = info
                if self._task is not None:
                    self._task.cancel()


class SignalStream:
    """Every signal, for as long as PID 1 stays: reaps on SIGCHLD, and gives each of the others to `take`.

    An error of `take` is that signal's alone.
    """

    def __init__(self, reaper: Reaper, take: Callable[[SignalInfo], None]) -> None:
        self.reaper = reaper
        self._take = take
        self._fd = SignalFd()
        self._loop: AbstractEventLoop | None = None

    def start(self) -> None:
        """Attach to the running loop; what came before is taken at once."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd.fileno(), self.look)
        self.reaper.reap()
        self.look()

    def stop(self) -> None:
        """Detach and close; signals stay blocked and queue up."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd.fileno())
            self._loop = None
        self._fd.close()

    def look(self) -> None:
        """Take what has come by now."""
        ended = False
        for info in self._fd.read():
            if info.signo == signals.SIGCHLD:
                ended = True
                continue
            try:
                self._take(info)
            except LcinitError as error:
                log.warning(f"{signal_name(info.signo)}: {error}")
            except Exception as error:
                log.unexpected(f"on {signal_name(info.signo)}", error)
        if ended:
            self.reaper.reap()
