"""One start that was asked of the spawner, as PID 1 follows it."""

from __future__ import annotations

import fcntl
import os
from collections import deque

from lcinit.supervisor import spawn
from lcinit.supervisor.spawner_messages import NO_SLOT, Packet, packets

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from lcinit.errors import CommandFailed
    from lcinit.supervisor.program import Program


class Starting:
    """One start. `pid` is None until the process exists, which `Spawner.drain` finds out, and `take` too.

    `done` once its program has been executed, or never will be: `failure` says why then. A process that could not be
    executed ends by itself; where `pid` is still None then there has never been one. `fileno` can be read when there
    is something to `take`.
    """

    def __init__(
        self,
        name: str,
        request: tuple[Any, ...],
        descriptors: Sequence[int],
        drain: Callable[[], None],
        program: Program | None = None,
        laid_out: bytes = b"",
    ) -> None:
        """`descriptors` are duplicated, and so may be closed by the caller at once. Raises OSError."""
        self.name = name
        self.request = request
        self.program = program
        self._drain = drain
        self._laid_out = laid_out
        self.pid: int | None = None
        self.done = False
        self.failure: CommandFailed | None = None
        self.slot = NO_SLOT
        self.descriptors: list[int] = []
        self._packets: deque[Packet] = deque()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for fd in descriptors:
                self.descriptors.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        except BaseException:
            self.let_go()
            self.close()
            raise

    def fileno(self) -> int:
        """For an event loop; -1 once closed."""
        return self._reader

    def take(self) -> None:
        """Take what was told, if anything: sets `done` and `failure`, and `pid` before those."""
        if self.pid is None:
            self._drain()
        if self.done:
            return
        try:
            report = os.read(self._reader, spawn.REPORT_MOST)
        except BlockingIOError:
            return
        self.done = True
        if report:
            self.failure = spawn.failure_of(self.name, report)

    def close(self) -> None:
        """No more of it is of interest. It comes to be nevertheless."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    # for the spawner

    def send(self, channel: socket.socket) -> None:
        """Send what has not been sent of the request. Raises OSError, BlockingIOError where there is no room now."""
        if not self._packets:
            self._packets.extend(packets(self.slot, self.request, [*self.descriptors, self.writer], self._laid_out))
        while self._packets:
            self._packets[0].send(channel)
            self._packets.popleft()

    def born(self, pid: int) -> None:
        """It exists: only its own end of the pipe is left, whose closing is the exec."""
        self.pid = pid
        self.let_go()

    def unborn(self, number: int) -> None:
        """It could not be forked, because of this errno."""
        self.done = True
        self.failure = spawn.failure_of(self.name, spawn.report_of("fork", OSError(number, "")))
        self.let_go()

    def let_go(self) -> None:
        """Close what is needed until there is a process."""
        os.close(self.writer)
        self.writer = -1
        self.program = None
        self._laid_out = b""
        while self.descriptors:
            os.close(self.descriptors.pop())
        while self._packets:
            self._packets.popleft().close()
