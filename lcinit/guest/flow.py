"""Bytes from one descriptor to another, for who watches both with poll(2): nothing waits and nothing is lost."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import termios
import time

from lcinit.control.relay import open_nonblocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

CHUNK = 64 * 1024
ESCAPE = b"\x1d"  # ctrl-]
ESCAPES = 3
ESCAPE_GAP = 0.5  # seconds between two of them at most
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
        elif self._own >= 0 and self._blocking:  # another stream of the same description may have been first
            os.set_blocking(self._own, True)
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

    def step(self, ready: dict[int, int]) -> None:
        """Move what can be moved."""
        received = b""
        if ready.get(self.source, 0) & (select.POLLIN | _BROKEN) and self.source in self.wanted():
            received = self._read()
        if self._held and ready.get(self.sink, 0) | bool(received):
            self._write()
        elif ready.get(self.sink, 0) & select.POLLERR and not self._held:
            self.broken = True

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


class KeyFlow(Flow):
    """What is typed. ctrl-] three times is the way out, as machinectl(1) has it: `escaped` is true from then on.

    One that may be the first of three is held back for as long as another could follow: nobody wants to type it, on
    the way out, into the program that is left.
    """

    escaped = False
    _since = 0.0
    _escapes = 0

    def _read(self) -> bytes:
        received = super()._read()
        if not received:
            return b""
        del self._held[len(self._held) - len(received) :]
        now = time.monotonic()
        self.release(now)
        for byte in received:
            if byte == ESCAPE[0]:
                self._escapes += 1
                self._since = now
                self.escaped |= self._escapes == ESCAPES
            else:
                self._held += ESCAPE * self._escapes + bytes([byte])
                self._escapes = 0
        return received

    @property
    def due(self) -> float | None:
        """When what is held back is to be let through; None while there is nothing."""
        return self._since + ESCAPE_GAP if self._escapes else None

    def release(self, now: float) -> None:
        """Let through what has been held back for too long to be the way out."""
        if self.due is not None and now >= self.due:
            self._held += ESCAPE * self._escapes
            self._escapes = 0


def wait(flows: Collection[Flow], also: Iterable[int], timeout: float | None) -> dict[int, int]:
    """Which descriptors of the flows, and which of `also` (for reading), are ready; `timeout` is in seconds."""
    wanted = dict.fromkeys(also, select.POLLIN)
    for flow in flows:
        for fd, events in flow.wanted().items():
            wanted[fd] = wanted.get(fd, 0) | events
    for flow in flows:
        if isinstance(flow, TerminalFlow) and flow.resting:
            timeout = _sooner(timeout, REST)
            if wanted.get(flow.source) == 0:  # another flow's sink: poll(2) would tell of its hang-up all the time
                del wanted[flow.source]
        if isinstance(flow, KeyFlow) and flow.due is not None:
            timeout = _sooner(timeout, max(0, flow.due - time.monotonic()))
        if flow.hasty:
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
        if isinstance(flow, KeyFlow):
            flow.release(time.monotonic())
    return ready


def _sooner(timeout: float | None, other: float) -> float:
    return other if timeout is None else min(timeout, other)


def pending(fd: int) -> int:
    """How many bytes a pipe holds (FIONREAD, pipe(7))."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
