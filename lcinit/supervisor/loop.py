"""Running a coroutine with as little loop as it needs.

Importing asyncio takes longer than everything else a handoff does, so the boot is one coroutine that is first driven
by hand. The first time it has something to wait for it asks for the loop (`loop_needed`); asyncio is imported then,
while the command it waits for runs on another core, and the same coroutine goes on as an ordinary task.
"""

from __future__ import annotations

import os
import sys

from lcinit import log
from lcinit.errors import SystemFailure
from lcinit.supervisor.lean import import_asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from asyncio import AbstractEventLoop
    from collections.abc import Coroutine, Generator
    from types import ModuleType
    from typing import Any, TypeVar

    T = TypeVar("T")
else:
    import _signal as signal  # without the half that imports enum

_ASK = object()


class _LoopNeeded:
    def __await__(self) -> Generator[Any, None, None]:
        if not _loop_is_running():
            yield _ASK


def _loop_is_running() -> bool:
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


async def loop_needed() -> None:
    """Return once an event loop runs the caller."""
    await _LoopNeeded()


def new_loop(*, fast: bool = False) -> AbstractEventLoop:
    """asyncio's own loop; with `fast` a uvloop where it imports. LCINIT_EVENT_LOOP=asyncio or uvloop overrules that.

    A uvloop takes a third of the time for an event, and 5 MiB and as long again to import: it is for those whose work
    is events.
    """
    module = import_loop(fast=fast)
    loop: AbstractEventLoop = module.new_event_loop() if module.__name__ == "uvloop" else _asyncio_loop()
    return _quiet(loop)


def _asyncio_loop() -> AbstractEventLoop:
    """asyncio's own; one that cannot be made is told by the OSError alone.

    The finaliser of its class would close what was never opened, and print a traceback about that.
    """
    import asyncio

    class Loop(asyncio.SelectorEventLoop):
        def __del__(self) -> None:
            """Nothing: it lasts as long as the process."""

    return Loop()


def import_loop(*, fast: bool = False) -> ModuleType:
    """The module that makes new_loop's loops, imported: before anything else imports asyncio, whose choice it is.

    Also for who may not be able to read files later.
    """
    wanted = os.environ.get("LCINIT_EVENT_LOOP") or ("uvloop" if fast else "asyncio")
    if wanted == "uvloop":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            return uvloop  # type: ignore[no-any-return, unused-ignore]
    return import_asyncio()


def _quiet(loop: AbstractEventLoop) -> AbstractEventLoop:
    """Errors in callbacks go to the log: asyncio's own way prints lines of source, from files of the guest by then. Its
    debug mode reads and imports for every callback.
    """
    loop.set_exception_handler(_log_error)
    loop.set_debug(False)
    return loop


def _log_error(_loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    what = "" if error is None else f": {type(error).__name__}: {error}"
    log.error(f"unexpected, on the event loop: {context.get('message')}{what}")


def forget_loop() -> None:
    """In a fork of a process whose loop runs: that loop is the parent's, and nothing of it is touched."""
    events = sys.modules.get("asyncio.events")
    if events is not None:
        events._set_running_loop(None)
        # uvloop has set one of the parent's descriptors, and a loop of the fork's own would set it again at its end
        signal.set_wakeup_fd(-1)


def run(coroutine: Coroutine[Any, None, T], *, fast: bool = False) -> T:
    """The coroutine's result. A loop is made only if it asks for one; it must not wait for anything before.

    `fast` is new_loop's.
    """
    try:
        asked = coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    if asked is not _ASK:
        raise RuntimeError("the coroutine waited for something before it asked for the loop")
    try:
        loop = new_loop(fast=fast)
    except OSError as error:
        coroutine.close()
        raise SystemFailure.from_os_error("make an event loop", error) from error
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except OSError as error:
        if task.done():
            raise
        # the loop's own failure: the task never ended, and asyncio would complain about that later
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        raise SystemFailure.from_os_error("run the event loop", error) from error
