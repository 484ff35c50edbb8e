"""The two ends of sd_notify(3): datagrams with their senders, received at a bearable pace; and words to lcinit's own
manager.

A datagram is whoever's the kernel says (SO_PASSCRED, unix(7)). Descriptors that come with one are never received:
there is no room for them, and the kernel closes those. That also is what the sender of a BARRIER=1 waits for.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct

from lcinit import log
from lcinit.control.ratelimit import RateLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable
else:
    import _socket as socket  # without the half that imports enum and selectors

LARGEST = 4096  # bytes of one message; systemd takes no larger one either
BATCH = 16  # messages that are taken before the loop sees to others
BURST, PAUSE = 64, 0.02  # batches without a pause, and seconds between two from then on: who floods waits, not PID 1
_CREDENTIALS = struct.Struct("=iII")  # struct ucred of unix(7)
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)


class Datagrams:
    """Receives on a socket that has SO_PASSCRED, which it owns from then on.

    `take` is called with PID, uid and content of each datagram, as this process' namespaces number them; PID 0 is a
    process of an outer PID namespace. An error of it is that datagram's alone. `cut` is called with PID and uid for
    one of more than LARGEST bytes, which is not taken.
    """

    def __init__(
        self,
        channel: socket.socket,
        take: Callable[[int, int, bytes], object],
        cut: Callable[[int, int], object] | None = None,
    ) -> None:
        self._socket = channel
        self._socket.setblocking(False)
        self._take = take
        self._cut = cut
        self._pace = RateLimit(BURST, PAUSE)
        self._complaints = RateLimit()
        self._loop: AbstractEventLoop | None = None
        self._rest: TimerHandle | None = None

    def start(self, loop: AbstractEventLoop) -> None:
        """Receive from now on."""
        self._loop = loop
        self._listen()

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Receive nothing more, and close the socket."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None
        self._socket.close()

    def _listen(self) -> None:
        self._rest = None
        if self._loop is not None:
            self._loop.add_reader(self._socket.fileno(), self._ready)

    def _ready(self) -> None:
        """One batch; its senders may be as fast as they like."""
        loop = self._loop
        if loop is None:
            return
        if not self._pace.take(loop.time()):
            loop.remove_reader(self._socket.fileno())
            self._rest = loop.call_later(PAUSE, self._listen)
            return
        for _ in range(BATCH):
            try:
                data, control, flags, _ = self._socket.recvmsg(LARGEST, _ROOM)
            except BlockingIOError:
                return
            except OSError as error:
                self._complain("when notifications are received", error)
                return
            pid, uid = _sender(control)
            try:
                if not flags & socket.MSG_TRUNC:
                    self._take(pid, uid, data)
                elif self._cut is not None:
                    self._cut(pid, uid)
            except Exception as error:
                self._complain(f"on a notification of process {pid}", error)
            if self._loop is None:  # whoever took it has closed this
                return

    def _complain(self, where: str, error: Exception) -> None:
        if self._loop is None or self._complaints.take(self._loop.time()):
            log.unexpected(where, error)


def _sender(control: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid, uid, _ = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
            return pid, uid
    return 0, 0


class ManagerSocket:
    """lcinit's own $NOTIFY_SOCKET: connected once, because its path is one of the boot root and means another place
    after the pivot. Without such a manager nothing is told to nobody.
    """

    def __init__(self, path: str) -> None:
        """`path` as in the variable: absolute, or of the abstract namespace with an `@`. Any other is nobody's."""
        self._path = path
        self._socket: socket.socket | None = None
        self._complained = False
        self._waiting: dict[str, str] = {}  # assignments that found the manager's queue full
        self._loop: AbstractEventLoop | None = None  # while they wait
        if path[:1] not in ("/", "@"):
            return
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            channel.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            channel.close()
            self._complain(error)
            return
        self._socket = channel

    @classmethod
    def open(cls) -> ManagerSocket:
        """The one that the environment names. Never waits; that it cannot be reached is logged."""
        return cls(os.environ.get("NOTIFY_SOCKET", ""))

    def fileno(self) -> int:
        """The descriptor, to be left open where others are closed; -1 for none."""
        return -1 if self._socket is None else self._socket.fileno()

    def tell(self, text: str) -> None:
        """Say it: `NAME=VALUE` lines. Never waits.

        What finds the manager's queue full is said when there is room, if a loop runs: the last value of each name,
        all in one message. Other errors are logged, the first alone.
        """
        if self._socket is None:
            return
        if self._waiting:
            self._wait(text)
            return
        try:
            self._socket.send(text.encode("utf-8", "replace"))
        except BlockingIOError:
            self._wait(text)
        except OSError as error:
            self._complain(error)

    def close(self) -> None:
        """Say nothing more."""
        self._waiting.clear()
        self._stop_waiting()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _wait(self, text: str) -> None:
        for line in text.split("\n"):
            name, _, value = line.partition("=")
            self._waiting.pop(name, None)
            self._waiting[name] = value
        if self._loop is None and self._socket is not None:
            self._loop = _running_loop()
            if self._loop is None:
                self._waiting.clear()
                self._complain(BlockingIOError(errno.EAGAIN, "it does not read"))
            else:
                self._loop.add_writer(self._socket.fileno(), self._say_what_waits)

    def _say_what_waits(self) -> None:
        if self._socket is None:
            return
        text = "\n".join(f"{name}={value}" for name, value in self._waiting.items())
        try:
            self._socket.send(text.encode("utf-8", "replace"))
        except BlockingIOError:
            return
        except OSError as error:
            self._complain(error)
        self._waiting.clear()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._loop is not None and self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
        self._loop = None

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning(f"cannot tell the manager on NOTIFY_SOCKET {self._path}: {error.strerror}")


def _running_loop() -> AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def tell_manager(text: str) -> None:
    """Say it on lcinit's own $NOTIFY_SOCKET, where its manager has given it one. Never waits."""
    channel = ManagerSocket.open()
    channel.tell(text)
    channel.close()
