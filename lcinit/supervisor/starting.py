"""One start that was asked of the spawner, as PID 1 follows it."""

from __future__ import annotations

import fcntl
import os
from collections import deque

from lcinit.supervisor import spawn
from lcinit.supervisor.spawner_messages import NO_SLOT, Packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from lcinit.errors import CommandFailed
    from lcinit.supervisor.asked import Asked
    from lcinit.supervisor.spawner import Spawner


class Starting:
    """One start. `pid` is None until the process exists, which `Spawner.drain` finds out, and `take` too.

    `done` once its program has been executed, or never will be: `failure` says why then. A process that could not be
    executed ends by itself; where `pid` is still None then there has never been one. `fileno` can be read when there
    is something to `take`.
    """

    def __init__(self, asked: Asked, spawner: Spawner) -> None:
        """Descriptors are duplicated, and so may be closed by the caller at once. Raises OSError."""
        self.name = asked.name
        self.pid: int | None = None
        self.done = False
        self.failure: CommandFailed | None = None
        self.asked = asked
        self.slot = NO_SLOT
        self.descriptors: list[int] = []
        self._spawner = spawner
        self._report = b""
        self._packets: deque[Packet] = deque()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for fd in asked.numbers:
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
            self._spawner.drain()
        while not self.done:
            try:
                report = os.read(self._reader, spawn.REPORT_MOST)
            except BlockingIOError:
                return
            self._report += report
            if not report:
                self.failure = self.asked.failure(self._report)
                self._end()

    def close(self) -> None:
        """No more of it is of interest. It comes to be nevertheless."""
        if self._reader < 0:
            return
        if self.slot != NO_SLOT and self.asked.holds_slot and not self.done:
            self._spawner.leave(self)
        else:
            os.close(self._reader)
            self._reader = -1

    # for the spawner

    def send(self, channel: socket.socket) -> None:
        """Send what has not been sent of it. Raises OSError, BlockingIOError where there is no room now."""
        if not self._packets:
            self._packets.extend(self.asked.packets(self.slot, [*self.descriptors, self.writer]))
        while self._packets:
            self._packets[0].send(channel)
            self._packets.popleft()

    def born(self, pid: int) -> None:
        """It exists: only its own end of the pipe is left, whose closing is the exec."""
        self.pid = pid
        self.let_go()

    def unborn(self, number: int) -> None:
        """It could not be made, because of this errno."""
        self.failure = spawn.failure_of(self.name, spawn.report_of("fork", OSError(number, "")))
        self.let_go()
        self._end()

    def ask(self, asked: Asked) -> None:
        """In another way."""
        before, self.asked = self.asked, asked
        self.forget_packets()
        self._spawner.over(self, before)

    def _end(self) -> None:
        self.done = True
        self._spawner.over(self, self.asked)

    def let_go(self) -> None:
        """Close what is needed until there is a process."""
        os.close(self.writer)
        self.writer = -1
        while self.descriptors:
            os.close(self.descriptors.pop())
        self.forget_packets()

    def forget_packets(self) -> None:
        """They are not sent."""
        while self._packets:
            self._packets.popleft().close()
