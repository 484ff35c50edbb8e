"""The console as the logger writes to it: whole lines, never waiting; what finds no room is dropped and counted."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import time

from lcinit.service.log_lines import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # without the half that imports enum and selectors

ROOM = 256 * 1024  # bytes that wait for a reader
STUCK = 1.0  # seconds without a byte taken, after which services do not wait any more, and lines are dropped
_PIECE = 4096  # PIPE_BUF: a pipe takes that many whole, so nobody else's line gets between
_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.ENOTCONN, errno.ENXIO, errno.EBADF)
_OWN = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ROUNDS = 64  # pieces in a row before the services are seen to


def notice(text: str) -> bytes:
    """A line of the logger's own. Every line of a service has a prefix: none of them looks like this."""
    return f"[lcinit: {text}]\n".encode("utf-8", "backslashreplace")


class Console:
    """A terminal, a pipe, a socket or a file behind a descriptor that others use too; -1: there is none. `procfs` is a
    handle of one.
    """

    def __init__(self, fd: int, epoll: select.epoll, procfs: int) -> None:
        self.dropped = 0  # lines, in all
        self._epoll = epoll
        self._waiting = bytearray()
        self._untold: dict[str, int] = {}  # service → lines dropped
        self._procfs = procfs
        self._fd = -1
        self._patient = self._watched = self._blocked = self._dropping = False
        self._stuck_at: float | None = None
        self._socket: socket.socket | None = None
        self.use(fd)

    def fileno(self) -> int:
        """What epoll tells of; -1 without a console."""
        return self._fd

    def use(self, fd: int) -> None:
        """From now on write there. The descriptor stays the caller's, who may close it."""
        self._forget()
        try:
            mode = os.fstat(fd).st_mode
            self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError:
            return
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=self._fd)
        elif not stat.S_ISREG(mode) and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK:
            self._open_anew()

    def _open_anew(self) -> None:
        """O_NONBLOCK belongs to the open file, which others have too: this one gets an open file of its own."""
        shared = self._fd
        try:
            own = os.open(f"self/fd/{shared}", _OWN, dir_fd=self._procfs)
        except OSError:
            self._patient = True
            return
        if os.path.samestat(os.fstat(own), os.fstat(shared)):
            self._fd, own = own, shared
        else:  # what is at /proc is no procfs
            self._patient = True
        os.close(own)

    def _forget(self) -> None:
        self._watch(False)
        if self._socket is not None:
            self._socket.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd, self._socket = -1, None
        self._patient = False

    def put(self, line: bytes, name: str, lines: int = 1) -> None:
        """Take whole lines of a service, or none of them; they are written with `flush`."""
        if not self.has_room(len(line)):
            self.drop(name, lines)
            return
        if self._untold:
            self._tell()
        self._waiting += line

    def has_room(self, size: int = 0) -> bool:
        """Whether that many bytes would be taken."""
        if self._fd >= 0 and len(self._waiting) + size > ROOM and not self._blocked:
            self.flush()
        return self._fd >= 0 and (not self._waiting or len(self._waiting) + size <= ROOM)

    def holds_up(self, now: float) -> bool:
        """Whether services should wait: much waits, for a reader that takes some. `now` is time.monotonic()'s."""
        if self._fd < 0 or len(self._waiting) < ROOM // 2:
            return False
        if self._stuck_at is None:
            self._stuck_at = now
        self._dropping = now >= self._stuck_at + STUCK
        return not self._dropping

    @property
    def due(self) -> float:
        """When waiting has taken too long."""
        return float("inf") if self._stuck_at is None or self._dropping else self._stuck_at + STUCK

    def drop(self, name: str, lines: int) -> None:
        """Count lines of a service that are not shown."""
        self.dropped += lines
        self._untold[name] = self._untold.get(name, 0) + lines

    def _tell(self) -> None:
        for name, count in self._untold.items():
            self._waiting += notice(f"{counted(count)} of {name} dropped: the console took no more")
        self._untold.clear()

    def flush(self) -> None:
        """Write what is taken now, and have epoll tell when more would be."""
        self._blocked = False
        for _ in range(_ROUNDS):
            if self._untold and not self._waiting and self._fd >= 0:
                self._tell()
            if not self._waiting:
                self._watch(False)
                return
            try:
                taken = self._write(self._piece())
            except BlockingIOError:
                self._blocked = True
                break
            except OSError as error:
                self.dropped += self._waiting.count(b"\n")
                self._waiting.clear()
                if error.errno in _GONE:
                    self._forget()
                return
            del self._waiting[:taken]
            self._stuck_at, self._dropping = None, False
        self._watch(True)

    def _piece(self) -> bytes:
        end = self._waiting.rfind(b"\n", 0, _PIECE) + 1 or _PIECE
        return bytes(self._waiting[:end])

    def _write(self, piece: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._patient and not _is_ready(self._fd, 0.0):
            raise BlockingIOError
        return os.write(self._fd, piece)

    def _watch(self, wanted: bool) -> None:
        if wanted == self._watched:
            return
        try:
            if wanted:
                self._epoll.register(self._fd, select.EPOLLOUT)
            else:
                self._epoll.unregister(self._fd)
        except OSError:
            return  # a file: it takes everything at once
        self._watched = wanted

    def drain(self, seconds: float) -> None:
        """Write all that waits, for so long at most."""
        until = time.monotonic() + seconds
        self.flush()
        while self._waiting and _is_ready(self._fd, until - time.monotonic()):
            self.flush()


def _is_ready(fd: int, seconds: float) -> bool:
    """Whether a write to it would not wait, within so long."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(max(0, int(seconds * 1000))))
