"""The varlink protocol without a connection: bytes in, calls out, and replies as bytes. Pure. https://varlink.org

A message is one JSON object and a NUL. Both sides of it are bounded before anything is parsed: its length, and how
deeply it nests, because the parser recurses.
"""

from __future__ import annotations

import json

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Never

    Parameters = dict[str, Any]

SERVICE = "org.varlink.service"
MESSAGE_LIMIT = 64 * 1024
DEPTH_LIMIT = 32
_OPENING, _CLOSING, _QUOTE, _BACKSLASH = b"{[", b"}]", ord('"'), ord("\\")


class BrokenMessage(Exception):
    """What came is no call: the connection has no meaning from here on."""


class MethodError(Exception):
    """A method's error reply: its full `name` and its parameters."""

    def __init__(self, name: str, /, **parameters: Any) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


class Call(Record):
    """One call: the method's full name, its parameters without those that are null, and how it wants its reply."""

    method: str
    parameters: Parameters
    more: bool = False
    oneway: bool = False
    upgrade: bool = False

    def split(self) -> tuple[str, str]:
        """Interface and method."""
        interface, _, method = self.method.rpartition(".")
        return interface, method


class Framer:
    """Cuts a stream into messages. `limit` bounds what is held: a message with its NUL, or several that wait."""

    def __init__(self, limit: int = MESSAGE_LIMIT) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._searched = 0

    @property
    def room(self) -> int:
        """How many bytes may come before some are taken out."""
        return self._limit - len(self._bytes)

    def feed(self, data: bytes) -> None:
        """Take bytes, no more than there is room for."""
        self._bytes += data

    def next(self) -> bytes | None:
        """The next whole message without its NUL, None if there is none yet. BrokenMessage if there can be none."""
        end = self._bytes.find(0, self._searched)
        if end < 0:
            self._searched = len(self._bytes)
            if self.room <= 0:
                raise BrokenMessage(f"it is longer than {self._limit} bytes")
            return None
        message = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return message

    def rest(self) -> bytes:
        """Everything that is left: for a connection that leaves the protocol."""
        rest = bytes(self._bytes)
        self._bytes.clear()
        self._searched = 0
        return rest

    @property
    def unfinished(self) -> bool:
        """Whether the beginning of a message is held."""
        return bool(self._bytes)


def nests_too_deeply(message: bytes) -> bool:
    """Whether objects and arrays nest deeper than DEPTH_LIMIT, strings left out. Right for what is JSON."""
    if message.count(b"{") + message.count(b"[") <= DEPTH_LIMIT:
        return False  # nearly every message: not looked at byte by byte
    level = 0
    in_string = escaped = False
    for byte in message:
        if in_string:
            if escaped:
                escaped = False
            elif byte == _BACKSLASH:
                escaped = True
            elif byte == _QUOTE:
                in_string = False
        elif byte == _QUOTE:
            in_string = True
        elif byte in _OPENING:
            level += 1
            if level > DEPTH_LIMIT:
                return True
        elif byte in _CLOSING:
            level -= 1
    return False


def parse(message: bytes) -> dict[str, Any]:
    """The JSON object of a message. Raises BrokenMessage."""
    if nests_too_deeply(message):
        raise BrokenMessage(f"it nests deeper than {DEPTH_LIMIT}")
    try:
        value = json.loads(message.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BrokenMessage(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BrokenMessage("it is not a JSON object")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. ValueError for a key that comes twice: two readers could take it for two different messages."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key comes twice")
    return value


def _no_number(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")


def parse_call(message: bytes) -> Call:
    """The call that a message is. Raises BrokenMessage."""
    value = parse(message)
    method = value.pop("method", None)
    parameters = value.pop("parameters", None)
    if not isinstance(method, str) or "." not in method:
        raise BrokenMessage("it names no method")
    if not isinstance(parameters, (dict, type(None))):
        raise BrokenMessage("its parameters are no object")
    flags = {name: value.pop(name, False) for name in ("more", "oneway", "upgrade")}
    if value or not all(isinstance(flag, bool) for flag in flags.values()):
        raise BrokenMessage("it holds what no call has")
    given = {name: each for name, each in (parameters or {}).items() if each is not None}
    return Call(method=method, parameters=given, **flags)


def message(value: Parameters) -> bytes:
    """A message's bytes, in ASCII: nothing of it can move a terminal's cursor."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\0"


class Reply:
    """The answer to one call, given once, or many times and then once for a call that takes more.

    `send` takes the bytes of each message. A call that is oneway gets none.
    """

    def __init__(self, call: Call, send: Callable[[bytes], object]) -> None:
        self.call = call
        self.done = False
        self._send = send

    def more(self, **parameters: Any) -> None:
        """One reply of several; only for a call that takes more."""
        if self.done or not self.call.more:
            raise RuntimeError(f"{self.call.method}: no further reply is expected")
        self._put({"parameters": parameters, "continues": True})

    def end(self, **parameters: Any) -> None:
        """The only reply, or the last."""
        self._finish({"parameters": parameters})

    def fail(self, error: MethodError) -> None:
        """The error as the last reply."""
        self._finish({"error": error.name, "parameters": error.parameters})

    def _finish(self, value: Parameters) -> None:
        if self.done:
            raise RuntimeError(f"{self.call.method}: answered twice")
        self._put(value)
        self.done = True

    def _put(self, value: Parameters) -> None:
        data = message(value)  # in any case: what cannot be said is found out
        if not self.call.oneway:
            self._send(data)


class Taker:
    """A call's parameters, taken one by one with their types checked; what is wrong is varlink's InvalidParameter."""

    def __init__(self, call: Call) -> None:
        self._left = dict(call.parameters)

    def boolean(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self._left.pop(name, default)
        return value if isinstance(value, bool) else self._wrong(name)

    def integer(self, name: str, default: int | None, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number within the bounds, which are part of it; needed where `default` is None."""
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._wrong(name)
        return value

    def string(self, name: str, default: str | None = None) -> str:
        """A string; needed where there is no default."""
        value = self._left.pop(name, default)
        return value if isinstance(value, str) else self._wrong(name)

    def number(self, name: str, *, least: float = 0.0, most: float = 2.0**53) -> float | None:
        """A number within the bounds, which are part of it; None where it is not given."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            self._wrong(name)
        return float(value)

    def strings(self, name: str) -> tuple[str, ...] | None:
        """An array of strings, each once; None where it is not given."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._wrong(name)
        return tuple(dict.fromkeys(value))

    def end(self) -> None:
        """Refuse whatever was not taken."""
        for name in self._left:
            self._wrong(name)

    def _wrong(self, name: str) -> Never:
        raise MethodError(f"{SERVICE}.InvalidParameter", parameter=name)
