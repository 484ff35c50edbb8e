"""What is to be done on the loop, sooner or later: timers that are forgotten together, tasks whose errors are said."""

from __future__ import annotations

import asyncio

from lcinit import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task, TimerHandle
    from collections.abc import Callable, Coroutine
    from typing import Any


class Chores:
    """One owner's timers and tasks."""

    def __init__(self) -> None:
        self._timers: list[TimerHandle] = []
        self._tasks: set[Task[None]] = set()

    def later(self, delay: float, call: Callable[[], object]) -> None:
        """Call it in `delay` seconds."""
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > _now()]
        self._timers.append(asyncio.get_running_loop().call_later(delay, call))

    def forget_timers(self) -> None:
        """None of them is wanted any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def spawn(self, work: Coroutine[Any, Any, None]) -> Task[None]:
        """Begin it as a task, which is held until its end; an exception of it ends nothing else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.unexpected("in PID 1", task.exception())


def _now() -> float:
    return asyncio.get_running_loop().time()
