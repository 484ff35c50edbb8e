"""Bytes from one descriptor to another, for who watches both with poll(2): nothing waits and nothing is lost."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import termios

from lcinit.control.relay import open_nonblocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

CHUNK = 64 * 1024
REST = 0.1  # seconds between looks at a terminal that no process has open
_GONE = (errno.EIO, errno.EPIPE, errno.ECONNRESET, errno.ENXIO)
_BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Stream:
    """One of the caller's standard streams, used without waiting and given back as it was."""

    def __init__(self, fd: int, flags: int) -> None:
        """`flags` is O_RDONLY or O_WRONLY."""
        self._own = fd
        self._blocking = os.get_blocking(fd)
        self.fd = open_nonblocking(fd, flags)

    def close(self) -> None:
        """Undo what was changed of the descriptor's open file description, which others may share."""
        if self.fd != self._own:
            os.close(self.fd)
        elif self._own >= 0:
            os.set_blocking(self._own, self._blocking)
        self.fd = self._own = -1

    def abandon(self) -> None:
        """Close it for good, so that who is at its other end learns of that; its number stays taken."""
        if self._own < 0:
            return
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, self._own)
        os.close(null)
        if self.fd != self._own:
            os.close(self.fd)
        self.fd = self._own = -1


class Flow:
    """From `source` to `sink`. `ended` when the source has ended and all that it held is written, or nobody reads.

    `broken` then says that it was for want of a reader. `limit` is how many bytes are still to be read, None for all.
    """

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.broken = False
        self.limit: int | None = None
        self._held = bytearray()
        self._source_ended = False
        self._resting = False

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.broken or (self._source_ended and not self._held)

    def wanted(self) -> dict[int, int]:
        """What poll(2) is to look for: only what can be used, and of the sink always whether anybody reads."""
        if self.ended:
            return {}
        wanted = {self.sink: select.POLLOUT if self._held else 0}
        if not self._source_ended and not self._resting and len(self._held) < CHUNK:
            wanted[self.source] = wanted.get(self.source, 0) | select.POLLIN
        return wanted

    @property
    def hasty(self) -> bool:
        """Whether to read without waiting for there to be anything: only trying tells that there is no more."""
        return self.limit is not None and not self._source_ended and not self.broken and len(self._held) < CHUNK

    def hold(self, data: bytes) -> None:
        """Put before all else what was read already."""
        self._held[:0] = data

    def step(self, ready: dict[int, int]) -> bytes:
        """Move what can be moved; returns what was read, for who looks into it."""
        received = b""
        if ready.get(self.source, 0) & (select.POLLIN | _BROKEN) and self.source in self.wanted():
            received = self._read()
        if self._held and ready.get(self.sink, 0) | bool(received):
            self._write()
        elif ready.get(self.sink, 0) & select.POLLERR and not self._held:
            self.broken = True
        return received

    def _read(self) -> bytes:
        size = CHUNK if self.limit is None else min(CHUNK, self.limit)
        try:
            received = os.read(self.source, size) if size else b""
        except BlockingIOError:
            self._source_ended = self.limit is not None
            return b""
        except OSError as error:
            if error.errno not in _GONE:
                raise
            received = b""
        if not received:
            self._source_ended = True
        if self.limit is not None:
            self.limit -= len(received)
        self._held += received
        return received

    def _write(self) -> None:
        try:
            del self._held[: os.write(self.sink, self._held)]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.broken = True

    def drain(self, limit: int | None = None) -> None:
        """Nothing more is to come but what the source holds now: a pipe tells how much, else `limit` bytes at most."""
        self._resting = False
        self.limit = pending(self.source) if limit is None else limit
        if not self.limit:
            self._source_ended = True


class TerminalFlow(Flow):
    """From the master of a terminal. With no slave open it says EIO, which is not its end: one may be opened yet."""

    def _read(self) -> bytes:
        received = super()._read()
        if not received and self.limit is None:
            self._source_ended, self._resting = False, True
        return received

    @property
    def resting(self) -> bool:
        """Whether to look again a little later: a master without slaves is ready all the time."""
        return self._resting

    def rested(self) -> None:
        """Look again."""
        self._resting = False


def wait(flows: Collection[Flow], also: Iterable[int], timeout: float | None) -> dict[int, int]:
    """Which descriptors of the flows, and which of `also` (for reading), are ready; `timeout` is in seconds."""
    wanted = dict.fromkeys(also, select.POLLIN)
    for flow in flows:
        for fd, events in flow.wanted().items():
            wanted[fd] = wanted.get(fd, 0) | events
    for flow in flows:
        if isinstance(flow, TerminalFlow) and flow.resting:
            timeout = REST if timeout is None else min(timeout, REST)
            if wanted.get(flow.source) == 0:  # another flow's sink: poll(2) would tell of its hang-up all the time
                del wanted[flow.source]
    if any(flow.hasty for flow in flows):
        timeout = 0
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    ready = dict(poll.poll(None if timeout is None else timeout * 1000))
    for flow in flows:
        if flow.hasty:
            ready[flow.source] = ready.get(flow.source, 0) | select.POLLIN
        if isinstance(flow, TerminalFlow) and not ready:
            flow.rested()
    return ready


def pending(fd: int) -> int:
    """How many bytes a pipe holds (FIONREAD, pipe(7))."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
