"""PID 1's handle of a process that does what it must not do itself, see path_work: one at a time, within a time."""

from __future__ import annotations

import asyncio

from lcinit.errors import EX_UNAVAILABLE, LcinitError, SystemFailure
from lcinit.linux.signals import SIGKILL
from lcinit.service import path_messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any

    from lcinit.service.launch import Launcher, Process
else:
    import _socket as socket  # without the half that imports enum and selectors

FUNCTION = "path-work"
PATIENCE = 5.0  # seconds
_HINT = "is something mounted there that does not answer?"


class PathProcess:
    """Work of one kind at paths of the guest."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._lock = asyncio.Lock()
        self._held: Process | None = None  # the last one that was not done in time

    async def do(
        self, what: str, order: Any, descriptors: Sequence[int], doing: str, *, seconds: float = PATIENCE
    ) -> tuple[Any, list[int]]:
        """Have it done: the value, and descriptors that are the caller's from then on.

        Raises LcinitError as the work does, and SystemFailure: `cannot DOING` because of an OSError of its, or because
        it takes longer. A process that is held up goes when what holds it does; until then there is no other.
        """
        async with self._lock:
            if self._held is not None and self._held.alive:
                raise _held_up(f"cannot {doing}: an earlier try has not got an answer yet")
            own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            own.setblocking(False)
            process: Process | None = None
            try:
                try:
                    path_messages.send(own, (what, order), [*descriptors])
                    process = self._launcher.launch_function(FUNCTION, (other.fileno(),), None)
                finally:
                    other.close()
                async with asyncio.timeout(seconds):
                    answer, handed = await _answer(own)
            except OSError as error:
                if not isinstance(error, TimeoutError):
                    raise SystemFailure.from_os_error(doing, error) from error
                self._held = process
                raise _held_up(f"cannot {doing}: no answer within {seconds:g} s") from None
            finally:
                if process is not None:
                    process.signal(SIGKILL)
                own.close()
        return _result(answer, doing), handed


def _held_up(message: str) -> SystemFailure:
    return SystemFailure(message, hint=_HINT, exit_code=EX_UNAVAILABLE)


async def _answer(channel: socket.socket) -> tuple[Any, list[int]]:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(channel.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(channel.fileno())
    return path_messages.receive(channel)


def _result(answer: Any, doing: str) -> Any:
    if answer is None:
        raise SystemFailure(f"cannot {doing}: the process that was to do it has ended", hint="has somebody killed it?")
    kind, *values = answer
    if kind == "error":
        message, hint, code = values
        raise LcinitError(message, hint=hint, exit_code=code)
    if kind == "refused":
        raise SystemFailure.from_os_error(doing, OSError(*values))
    return values[0]
