"""Readiness: what the guest's init says on its $NOTIFY_SOCKET, and what lcinit says on its own (sd_notify(3)).

A datagram is believed if the kernel says that the guest's init sent it; all others may say what they like.
"""

from __future__ import annotations

import asyncio
import socket

from lcinit.control.notify import Datagrams, tell_manager
from lcinit.service.notifications import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.guest.start import Start


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
        self._init = start.pid
        self._datagrams: Datagrams | None = None
        if start.kind != "systemd" or start.notify_fd < 0:
            if not told:
                tell_manager("READY=1")
            self._told = True
        else:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0, start.notify_fd)
            start.notify_fd = -1
            self._datagrams = Datagrams(channel, self._take)
            self._datagrams.start(asyncio.get_running_loop())

    def _take(self, pid: int, _uid: int, data: bytes) -> None:
        if pid == self._init and not self._told and parse(data).ready:
            self._told = True
            self._on_ready()
            tell_manager("READY=1")

    def fileno(self) -> int:
        """The descriptor of the socket; -1 for none."""
        return -1 if self._datagrams is None else self._datagrams.fileno()

    def close(self) -> None:
        """The start is over."""
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
