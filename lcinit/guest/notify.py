"""Readiness: what the guest's init says on its $NOTIFY_SOCKET, and what lcinit says on its own (sd_notify(3)).

A datagram is believed if the kernel says that the guest's init sent it; all others may say what they like.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from lcinit import log
from lcinit.control.ratelimit import RateLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from lcinit.guest.start import Start

LARGEST = 4096  # bytes of one message; systemd's own are below that
BATCH = 16  # messages that are taken before the loop sees to others
BURST, PAUSE = 64, 0.02  # batches without a pause, and seconds between two from then on: who floods waits, not PID 1
_CREDENTIALS = struct.Struct("=iII")  # struct ucred of unix(7)


class NotifyListener:
    """The receiving end of a guest's socket. `take` is called with the assignments of each message of the init."""

    def __init__(self, fd: int, init: int, take: Callable[[dict[str, str]], None]) -> None:
        """`init` is the PID of the guest's init, as this process numbers it."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0, fd)
        self._socket.setblocking(False)
        self._init = init
        self._take = take

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def ready(self) -> None:
        """Take what has come by now."""
        for _ in range(BATCH):
            try:
                data, control, _, _ = self._socket.recvmsg(LARGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            sender = 0
            for level, kind, content in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    sender = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
            if sender == self._init:
                self._take(parse(data))

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()


class Readiness:
    """When one start of a guest is ready. systemd says so itself; of all others it is known that they run.

    lcinit's own manager is told the same.
    """

    def __init__(self, start: Start, on_ready: Callable[[], None], *, told: bool = False) -> None:
        """Takes the descriptor of `start`'s socket over. `on_ready` is called once, for an init that says so; not if
        it was `told` before.
        """
        self._on_ready = on_ready
        self._told = told
        self._listener: NotifyListener | None = None
        self._pace = RateLimit(BURST, PAUSE)
        self._rest: TimerHandle | None = None
        if start.kind != "systemd" or start.notify_fd < 0:
            if not told:
                tell_manager("READY=1")
            self._told = True
        else:
            self._listener, start.notify_fd = NotifyListener(start.notify_fd, start.pid, self._take), -1
            self._listen()

    def _listen(self) -> None:
        self._rest = None
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._ready)

    def _ready(self) -> None:
        """One batch; all of the guest may send as fast as it likes."""
        if self._listener is None:
            return
        loop = asyncio.get_running_loop()
        if not self._pace.take(loop.time()):
            loop.remove_reader(self._listener.fileno())
            self._rest = loop.call_later(PAUSE, self._listen)
        self._listener.ready()

    def _take(self, said: dict[str, str]) -> None:
        if said.get("READY") == "1" and not self._told:
            self._told = True
            self._on_ready()
            tell_manager("READY=1")

    def fileno(self) -> int:
        """The descriptor of the socket; -1 for none."""
        return -1 if self._listener is None else self._listener.fileno()

    def close(self) -> None:
        """The start is over."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None


def parse(data: bytes) -> dict[str, str]:
    """`NAME=VALUE` lines; what is none is left out."""
    lines = data.decode("utf-8", "replace").split("\n")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def tell_manager(text: str) -> None:
    """Say it on lcinit's own $NOTIFY_SOCKET, where its manager has given it one. Never waits."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        try:
            channel.sendto(text.encode(), address)
        except OSError as error:
            log.warning(f"cannot tell the manager on NOTIFY_SOCKET {path}: {error.strerror}")
