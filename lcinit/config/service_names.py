"""Shapes of single values that only services have: names of services, runlevels, sizes, addresses, masks."""
# ruff: noqa: D102 - read, json and takes mean what Shape says of them

from __future__ import annotations

from lcinit.config.diagnostics import Unfit, quoted
from lcinit.config.document import FLAG, NUMBER, TEXT
from lcinit.config.mounts import parse_path
from lcinit.config.shapes import AnyText, Choice, Forms, Number, Shape, Text, Then, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from lcinit.config.document import Node
    from lcinit.config.shapes import Json, Reading

NAME: Final = "[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}"
"""Pattern of a service's name; RESERVED are lcinit's own. To match it takes a module that takes long to import."""
RESERVED: Final = frozenset(("exec.command", "lcinit"))
_FIRST: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_LATER: Final = _FIRST | set(".@-")
_LONGEST: Final = 64
_NAME_EXPECTS: Final = "a service's name: letters, digits, _ . @ -"
MAX_SIZE: Final = 2**62
MAX_DESCRIPTION: Final = 200
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE_EXPECTS: Final = "bytes, or a number with K, M, G or T (of 1024)"
_TCP_EXPECTS: Final = "a port, ADDRESS:PORT or [ADDRESS]:PORT"
_HTTP_EXPECTS: Final = "http://ADDRESS[:PORT]/PATH"
_RUNLEVEL_EXPECTS: Final = "a runlevel: 1 to 5, or S"
_MOST_RUNLEVELS: Final = 6


def parse_name(text: str) -> str:
    """A service's name. Unfit for what cannot be one, and for those that lcinit has taken."""
    if not _fits(text):
        raise Unfit(f"{quoted(text)} does not fit", f"write {_NAME_EXPECTS}")
    if text in RESERVED:
        raise Unfit(f"{quoted(text)} is lcinit's own name", "choose another one")
    return text


def is_name(text: str) -> bool:
    """Whether a service may have this name."""
    return _fits(text) and text not in RESERVED


def _fits(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text[0] in _FIRST and _LATER.issuperset(text)


def parse_size(text: str) -> int:
    """Bytes of `512M`. Unfit when it is none, or too large."""
    size = int(text[:-1]) * _UNITS[text[-1].upper()]
    if not 0 < size <= MAX_SIZE:
        raise Unfit(f"{quoted(text)} is out of range", f"write {_SIZE_EXPECTS}")
    return size


def parse_umask(text: str) -> int:
    """A mask of octal digits."""
    return int(text, 8)


def parse_percentage(text: str) -> int:
    """Hundredths of a processor in `150%`."""
    percentage = int(text[:-1])
    if not 1 <= percentage <= 100_000:
        raise Unfit(f"{quoted(text)} is out of range", "write 1% to 100000%")
    return percentage


def parse_tcp(text: str) -> tuple[str, int]:
    """Address and port. Unfit for a host name: PID 1 looks no names up."""
    host, _, port = text.rpartition(":")
    return parse_address(host), _parse_port(port)


def _parse_port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < number < 65536:
        raise Unfit(f"{quoted(text)} is no port", "write a port from 1 to 65535")
    return number


def parse_address(host: str) -> str:
    """A literal IP address; localhost is 127.0.0.1. Unfit for any other name."""
    import ipaddress

    if host == "localhost":
        return "127.0.0.1"
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        if "%" in bare:
            raise ValueError("a zone, whose interface would have to be found")
        address = ipaddress.ip_address(bare)
    except ValueError:
        right = "write an IP address or localhost: PID 1 looks no names up, for that would load the guest's code"
        raise Unfit(f"{quoted(host)} is no IP address", right) from None
    if (address.version == 6) != (bare != host):
        raise Unfit(f"{quoted(host)} does not fit", f"write {_TCP_EXPECTS}; brackets belong to IPv6")
    return bare


def parse_http(text: str) -> str:
    """A URL of http and a literal address. Unfit for others."""
    rest = text.removeprefix("http://")
    if rest == text:
        raise Unfit(f"{quoted(text)} is no http:// URL", f"write {_HTTP_EXPECTS}; TLS is not spoken")
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if any(c <= " " or c > "~" for c in text) or "#" in text or "@" in authority:
        raise Unfit(f"{quoted(text)} does not fit", f"write {_HTTP_EXPECTS} in ASCII, without user and #")
    host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    address = parse_address(host if colon else authority)
    shown = f"[{address}]" if ":" in address else address
    return f"http://{shown}{f':{_parse_port(port)}' if colon else ''}{path}"


def parse_environment_file(text: str) -> str:
    """An absolute path, behind a `-` where it may be missing."""
    dash = "-" if text.startswith("-") else ""
    return dash + parse_path(text.removeprefix("-"))


def parse_device_path(text: str) -> str:
    """An absolute path below /dev."""
    path = parse_path(text)
    if not path.startswith("/dev/"):
        raise Unfit(f"{quoted(text)} is not below /dev", 'write a terminal such as "/dev/console"')
    return path


class Quoted(Text):
    """Text that a number is easily written for: `form` makes the text that was meant of the number's digits."""

    def __init__(self, expects: str, pattern: str, convert: Callable[[str], Any], form: Callable[[str], str]) -> None:
        super().__init__(expects, pattern, convert)
        self.form = form

    def takes(self, node: Node) -> bool:
        return node.kind in (TEXT, NUMBER)

    def mismatch(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind != NUMBER:
            return super().mismatch(node, path, reading)
        return reading.problem(node, path, describe(node), f"write {quoted(self.form(node.raw))}, with the quotes")


class OneLine(AnyText):
    """One line for people, the empty one too: nothing that changes how a terminal shows it."""

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind != TEXT:
            return self.mismatch(node, path, reading)
        text = node.value
        if not text.isprintable():
            what = "holds a line break or another character that cannot be shown"
            return reading.problem(node, path, what, f"write {self.expects}")
        if len(text) > MAX_DESCRIPTION:
            return reading.problem(node, path, f"has {len(text)} characters", f"write {self.expects}")
        return text

    def json(self) -> Json:
        return {"type": "string", "maxLength": MAX_DESCRIPTION}


class Pause(Number):
    """The 0 that a duration cannot be."""

    def __init__(self) -> None:
        super().__init__(0, 0, "0", decimals=True)

    def takes(self, node: Node) -> bool:
        return node.kind in self.kinds and node.value == 0


class Restart(Choice):
    """When a service is started again. YAML reads a bare `no` as a boolean."""

    kinds = (TEXT, FLAG)

    def takes(self, node: Node) -> bool:
        return (node.kind == FLAG and node.value is False) or super().takes(node)

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        return "no" if node.kind == FLAG and node.value is False else super().read(node, path, reading)

    def json(self) -> Json:
        return {"enum": [*self.words, False]}


class Runlevel(Shape):
    """A runlevel that services can run in, as text."""

    kinds = (NUMBER, TEXT)
    expects = _RUNLEVEL_EXPECTS

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind not in self.kinds:
            return self.mismatch(node, path, reading)
        raw = node.raw
        if node.kind == NUMBER and 1 <= node.value <= 5:
            return raw
        if raw in ("S", "s"):
            return "S"
        right = f"write {_RUNLEVEL_EXPECTS}"
        if raw in ("0", "6"):
            right = "0 and 6 are the way down, on which nothing starts; leave it out"
        elif 1 < len(raw) <= _MOST_RUNLEVELS and set(raw.upper()) <= set("12345S"):
            right = f"write [{', '.join(raw.upper())}]"
        elif node.kind == TEXT and raw in ("1", "2", "3", "4", "5"):
            right = f"write {raw} without quotes"
        return reading.problem(node, path, f"{quoted(raw)} is no runlevel", right)

    def json(self) -> Json:
        return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 5}, {"enum": ["S", "s"]}]}


SERVICE_NAME: Final = Text(_NAME_EXPECTS, convert=parse_name, shown=f"^(?:{NAME})$")
SIZE: Final = Forms(
    _SIZE_EXPECTS,
    Number(1, MAX_SIZE, _SIZE_EXPECTS),
    Text(_SIZE_EXPECTS, "[0-9]{1,18}[KMGTkmgt]", parse_size),
)
UMASK: Final = Quoted(
    'three octal digits in quotes, such as "022"', "0?[0-7]{3}", parse_umask, lambda digits: digits.zfill(3)
)
CPU: Final = Quoted('a percentage such as "150%"', "[0-9]{1,6}%", parse_percentage, lambda digits: f"{digits}%")
DESCRIPTION: Final = OneLine(f"one line of at most {MAX_DESCRIPTION} characters")
TCP: Final = Forms(
    _TCP_EXPECTS,
    Then(Number(1, 65535, "a port from 1 to 65535"), lambda port: ("127.0.0.1", port)),
    Text(_TCP_EXPECTS, r".+:[0-9]{1,5}", parse_tcp),
)
HTTP: Final = Text(_HTTP_EXPECTS, convert=parse_http, shown="^http://")
ENVIRONMENT_FILE: Final = Text("an absolute path, or one behind a -", convert=parse_environment_file, shown="^-?/")
DEVICE_PATH: Final = Text("a path below /dev", convert=parse_device_path, shown="^/dev/")
