"""An HTTP check (RFC 9112): one GET on a connection of its own, healthy if the status is 200 to 399.

The server is the guest's and may be slow, endless or no HTTP at all: the caller bounds the time, this the bytes.
"""

from __future__ import annotations

import asyncio

from lcinit.record import Record
from lcinit.service.notifications import number, text
from lcinit.service.tcp import Stream

LARGEST_HEAD = 16 * 1024  # bytes of all heads together: interim responses have one each
_HEALTHY = range(200, 400)
_SMALL_BODY, _PATIENCE = 64 * 1024, 0.5  # bytes, and seconds


class Target(Record):
    """Where a URL leads: a literal address, and what the request says. `host` is the Host field's value."""

    address: str
    port: int
    host: str
    path: str


def parse_url(url: str) -> Target:
    """`http://ADDRESS[:PORT][/PATH][?QUERY]`, an IPv6 address in brackets. ValueError says what is wrong with it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "http":
        raise ValueError("it begins with http://")
    if not rest.isascii() or not rest.isprintable() or " " in rest:
        raise ValueError("it holds a blank or a character that a URL cannot have")
    rest = rest.partition("#")[0]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    host, path = rest[:end], rest[end:]
    if host.startswith("["):
        address, bracket, after = host[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError("an IPv6 address is written in brackets")
        port_text = after[1:]
    else:
        address, _, port_text = host.partition(":")
    port = number(port_text, 65535, 1) if port_text else 80
    if port is None or not address:
        raise ValueError("it holds an address and a port from 1 to 65535")
    return Target(address=address, port=port, host=host, path=path if path.startswith("/") else f"/{path}")


def request(target: Target) -> bytes:
    """The bytes of the request."""
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host}",
        "User-Agent: lcinit",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


class ResponseHead:
    """Takes a response in pieces of any size, until the head of the final one is whole."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._taken = 0
        self._searched = 0

    def feed(self, data: bytes) -> tuple[bool, str] | None:
        """The result once it is known: healthy or not, and why in words. Empty `data` is the end of the connection."""
        if not data:
            return False, "the server closed the connection before its response was whole"
        room = LARGEST_HEAD - self._taken - len(self._data)
        self._data += data[:room]
        while True:
            end, after = self._end()
            if end < 0:
                break
            line = bytes(self._data[:end]).partition(b"\n")[0].rstrip(b"\r")
            result = _judged(line.decode("latin-1"))
            if result is not None:
                return result
            del self._data[:after]  # an interim response (1xx): the final one follows
            self._taken += after
            self._searched = 0
        if self._taken + len(self._data) >= LARGEST_HEAD:
            return False, f"the response's head has more than {LARGEST_HEAD} bytes"
        return None

    def _end(self) -> tuple[int, int]:
        """Where the head ends, and what comes after it begins; -1 while it is not whole. Bare newlines pass, too."""
        found = [
            (at, at + len(mark))
            for mark in (b"\r\n\r\n", b"\n\n")
            if (at := self._data.find(mark, self._searched)) >= 0
        ]
        self._searched = max(0, len(self._data) - 3)
        return min(found, default=(-1, -1))


def _judged(line: str) -> tuple[bool, str] | None:
    """What a status line means; None for an interim response."""
    version, _, rest = line.partition(" ")
    code = number(rest[:3], 999, 100)
    if not version.startswith("HTTP/1.") or code is None or rest[3:4] not in ("", " "):
        return False, f'the server does not speak HTTP/1: "{text(line, 60)}"'
    if code < 200 and code != 101:
        return None
    return code in _HEALTHY, f"HTTP status {text(rest, 60)}"


class Exchange:
    """One request and its response. To be closed by whoever made it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stream: Stream | None = None

    async def result(self) -> tuple[bool, str]:
        """Whether the server is healthy, and why in words. Lasts as long as the server makes it. Raises OSError."""
        self._stream = await Stream.connect(self._target.address, self._target.port)
        await self._stream.send(request(self._target))
        head = ResponseHead()
        while True:
            result = head.feed(await self._stream.receive())
            if result is not None:
                return result

    async def take_rest(self) -> None:
        """Read a small body to its end: a server whose last bytes find the connection closed complains about that."""
        if self._stream is None:
            return
        taken = 0
        try:
            async with asyncio.timeout(_PATIENCE):
                while taken < _SMALL_BODY and (data := await self._stream.receive()):
                    taken += len(data)
        except OSError:  # and TimeoutError: the result is known, and what comes now changes nothing
            return

    def close(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
