"""The console of a handed-off guest: bytes between the master of its pty and the manager's console, both ways.

Nothing here ever blocks. Towards the guest there is back-pressure: what it does not read stays unread in the manager's
console. Towards the manager there is back-pressure too, until the reader has taken nothing for a second; from then on
the oldest output is dropped and counted, because a console that nobody reads must not stop the guest.

All descriptors are watched edge-triggered (epoll(7)). A pty master whose slaves are all closed, a hung-up terminal and
a pipe without its other end are "ready" for ever, and a level-triggered loop would spin on each of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
import termios

RING = 64 * 1024  # bytes kept for the manager
INPUT = 4096  # bytes kept for the guest: what a terminal's line discipline takes (termios(3))
CHUNK = 16 * 1024
STUCK = 1.0  # seconds without a byte taken, after which output is dropped
ROUNDS = 16  # reads and writes in a row before the loop sees to its other descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_GONE = (errno.EIO, errno.EPIPE, errno.ECONNRESET, errno.ENXIO)
_TIOCGSID = 0x5429  # asm-generic/ioctls.h; Python has no name for it


def open_nonblocking(fd: int, flags: int) -> int:
    """A descriptor for the same file that never blocks, the same number where no other is needed.

    O_NONBLOCK belongs to the open file description, which others may share: terminals and pipes are therefore opened
    anew, with `flags` O_RDONLY or O_WRONLY. Sockets cannot be; regular files never block.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.set_blocking(fd, False)
        return fd


def make_raw(fd: int) -> None:
    """Have a terminal pass every byte through, as cfmakeraw(3) does: the guest's own pty does the line editing."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(fd)
    iflag &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])


def take_terminal(fd: int) -> None:
    """Start a session and make the terminal its own, so that SIGWINCH comes here (tty_ioctl(4)).

    It is taken away from a session of PID 1, which is the guest's from now on and must not keep a terminal of the
    outside; never from anybody else's. Where it cannot be had, the size is looked at when input comes.
    """
    try:
        steal = struct.unpack("=i", fcntl.ioctl(fd, _TIOCGSID, bytes(4))) == (1,)
    except OSError:
        steal = False
    try:
        os.setsid()
        fcntl.ioctl(fd, termios.TIOCSCTTY, 1 if steal else 0)
    except OSError:
        pass


class Relay:
    """One console. `master` is the pty's master, `source` and `sink` the manager's side (usually 0 and 1).

    `tap` is called with all that the guest writes, as it is read.
    """

    def __init__(self, master: int, source: int, sink: int, tap: Callable[[bytes], None] | None = None) -> None:
        self.dropped = 0  # bytes of output, in all
        self._tap = tap
        self._master = master
        self._given = (source, sink)
        self._source = _usable(source, os.O_RDONLY)
        self._sink = _usable(sink, os.O_WRONLY)
        self._terminal = next((fd for fd in (source, sink) if _is_terminal(fd)), -1)
        self._output = bytearray()
        self._input = bytearray()
        self._master_in = self._master_out = True
        self._source_in = self._source >= 0
        self._sink_out = self._sink >= 0
        self._stuck_at: float | None = None
        self._dropping = False
        self._unreported = 0
        os.set_blocking(master, False)
        if self._terminal >= 0:
            take_terminal(self._terminal)
            make_raw(self._terminal)
            self.copy_window_size()

    def register(self, poll: select.epoll) -> tuple[int, ...]:
        """Watch the descriptors that can be watched, and name all; regular files and /dev/null are always ready."""
        for fd, events in (
            (self._master, select.EPOLLIN | select.EPOLLOUT),
            (self._source, select.EPOLLIN),
            (self._sink, select.EPOLLOUT),
        ):
            if fd < 0:
                continue
            try:
                poll.register(fd, events | select.EPOLLET)
            except FileExistsError:  # a socket that is both source and sink
                poll.modify(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
            except PermissionError:
                pass
        return (self._master, self._source, self._sink)

    def ready(self, fd: int, events: int) -> None:
        """Note what epoll said of a descriptor."""
        broken = events & (select.EPOLLHUP | select.EPOLLERR)
        if fd == self._master:
            self._master_in |= bool(events & select.EPOLLIN or broken)
            self._master_out |= bool(events & select.EPOLLOUT or broken)
        if fd == self._source:
            self._source_in |= bool(events & select.EPOLLIN or broken)
        if fd == self._sink:
            self._sink_out |= bool(events & select.EPOLLOUT or broken)

    @property
    def due(self) -> float | None:
        """When output begins to be dropped unless the reader takes some; None while it does."""
        return None if self._stuck_at is None or self._dropping else self._stuck_at + STUCK

    def pump(self, now: float) -> bool:
        """Move what can be moved; true when there may be more to move at once."""
        for _ in range(ROUNDS):
            out = self._to_manager(now)
            if not self._to_guest() and not out:
                return False
        return True

    def drained(self) -> bool:
        """Whether all that the guest has written by now was passed on, or cannot be."""
        return not self._master_in and (not self._output or self._sink < 0)

    def type(self, data: bytes) -> int:
        """Add to what the guest reads; how many bytes there was room for."""
        taken = data[: max(0, INPUT - len(self._input))]
        self._input += taken
        return len(taken)

    def held(self) -> tuple[bytes, bytes]:
        """What was read and not passed on yet: output of the guest, input for it."""
        return bytes(self._output), bytes(self._input)

    def hold(self, output: bytes, entered: bytes) -> None:
        """Begin with what another relay of the same pty held."""
        self._output[:0] = output
        self._input[:0] = entered

    def set_window_size(self, rows: int, columns: int) -> None:
        """The guest's terminal alone; the manager's stays as it is."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("=HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Close what was opened here: not the master, nor the streams that were given."""
        for fd, given in ((self._source, self._given[0]), (self._sink, self._given[1])):
            if fd >= 0 and fd != given:
                os.close(fd)
        self._source = self._sink = -1

    def copy_window_size(self) -> None:
        """Give the guest's terminal the size of the manager's; the kernel tells the guest when it has changed."""
        if self._terminal < 0:
            return
        try:
            size = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, bytes(8))
            if size[:4] != bytes(4):
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # hung up: there is no size any more

    def _to_manager(self, now: float) -> bool:
        moved = False
        if self._master_in and self._may_read(now):
            received = _read(self._master, CHUNK)
            self._master_in = received is not None
            if received:
                if self._tap is not None:
                    self._tap(received)
                self._output += received
                self._drop(len(self._output) - RING if self._dropping else 0)
                moved = True
        if self._output and self._sink_out:
            notice = (
                b"\r\n[lcinit: %d bytes of console output dropped]\r\n" % self._unreported if self._unreported else b""
            )
            taken = _write(self._sink, notice + self._output[:CHUNK])
            self._sink_out = taken is not None
            if taken:
                self._output[:0] = notice
                del self._output[:taken]
                self._stuck_at, self._dropping, self._unreported = None, False, 0
                moved = True
        return moved

    def _may_read(self, now: float) -> bool:
        """Whether there is room for the guest's output, or has been none for too long."""
        if self._dropping or len(self._output) < RING:
            return True
        if self._sink >= 0 and self._stuck_at is None:
            self._stuck_at = now
        self._dropping = self._stuck_at is None or now >= self._stuck_at + STUCK
        return self._dropping

    def _drop(self, excess: int) -> None:
        if excess > 0:
            del self._output[:excess]
            self.dropped += excess
            self._unreported += excess

    def _to_guest(self) -> bool:
        moved = False
        if self._source_in and len(self._input) < INPUT:
            received = _read(self._source, INPUT - len(self._input))
            self._source_in = received is not None
            if received:
                self._input += received
                self.copy_window_size()
                moved = True
        if self._input and self._master_out:
            taken = _write(self._master, self._input)
            self._master_out = taken is not None
            if taken:
                del self._input[:taken]
                moved = True
        return moved


def _usable(fd: int, flags: int) -> int:
    """A non-blocking descriptor for one of the manager's streams; -1 where it is closed."""
    try:
        return open_nonblocking(fd, flags)
    except OSError:
        return -1


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _read(fd: int, size: int) -> bytes | None:
    """Bytes that were there; None when there are none for now, or nobody at the other end."""
    try:
        return os.read(fd, size) or None
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _write(fd: int, output: bytes | bytearray) -> int | None:
    """How many bytes were taken; None when none can be for now, or nobody is at the other end."""
    try:
        return os.write(fd, output) or None
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
