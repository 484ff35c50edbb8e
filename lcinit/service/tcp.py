"""A TCP connection to a literal address on a non-blocking socket, the same on every event loop.

Not the loop's own connections: those may ask a resolver, which is code of the guest's, and keep what a server sends.
"""

from __future__ import annotations

import asyncio
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from asyncio import Future
    from collections.abc import Callable
    from typing import Self
else:
    import _socket as socket  # without the half that imports enum and selectors

_CHUNK = 4096


class Stream:
    """One connection. Whoever made it closes it."""

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel

    @classmethod
    async def connect(cls, address: str, port: int) -> Self:
        """A new one. Raises OSError when it is refused, ValueError for what is no IPv4 or IPv6 address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            socket.inet_pton(family, address)
        except OSError as error:
            raise ValueError(f"{address!r} is no IP address") from error
        channel = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            number = channel.connect_ex((address, port))
            if number == errno.EINPROGRESS:
                await _until_writable(channel.fileno())
                number = channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number))
        except BaseException:
            channel.close()
            raise
        return cls(channel)

    async def send(self, data: bytes) -> None:
        """All of it. Raises OSError."""
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                await _until_writable(self._socket.fileno())

    async def receive(self) -> bytes:
        """What has come, once something has; empty at the end. Raises OSError."""
        while True:
            try:
                return self._socket.recv(_CHUNK)
            except BlockingIOError:
                await _until_readable(self._socket.fileno())

    def close(self) -> None:
        """Close it, any number of times."""
        self._socket.close()


async def _until_writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _until(fd, loop.add_writer, loop.remove_writer)


async def _until_readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _until(fd, loop.add_reader, loop.remove_reader)


async def _until(fd: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    waiter: Future[None] = asyncio.get_running_loop().create_future()
    add(fd, _wake, waiter)
    try:
        await waiter
    finally:
        remove(fd)


def _wake(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
