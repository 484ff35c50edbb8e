"""Readiness as s6 has it: the service writes a line to a descriptor of its own when it is ready."""

from __future__ import annotations

import asyncio
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

_CHUNK = 512
MOST = 64 * 1024  # bytes without a newline: that is no readiness any more, and PID 1 has other things to read


class ReadyFd:
    """The pipe. `writer` is the end that the service gets, whoever starts it.

    `ready` is called at the first newline; `closed` when every writer has closed the pipe before, or MOST bytes had
    none: it will never be ready that way. One of the two is called, once, and the pipe is closed before.
    """

    def __init__(self, ready: Callable[[], object], closed: Callable[[], object]) -> None:
        """Raises OSError where there is no pipe to be had."""
        self._ready = ready
        self._closed = closed
        self._left = MOST
        self._loop: AbstractEventLoop | None = None
        self._fd, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)

    def handed(self) -> None:
        """The service has its end, or will not get it any more: this process' copy is closed, and the pipe watched.

        Needs the running loop. What was written before counts, too.
        """
        if self._fd >= 0 and self._loop is None:
            self._close_writer()
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._readable)

    def close(self) -> None:
        """The start is over: neither is called any more."""
        self._close_writer()
        if self._fd < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def _readable(self) -> None:
        if self._fd < 0:
            return
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        self._left -= len(data)
        if b"\n" in data:
            self.close()
            self._ready()
        elif not data or self._left <= 0:
            self.close()
            self._closed()
