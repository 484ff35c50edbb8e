"""Shapes of single values that only services have: names of services, sizes, addresses, masks."""

from __future__ import annotations

from lcinit.config.diagnostics import Unfit, quoted
from lcinit.config.mounts import parse_path
from lcinit.config.shapes import Forms, Number, Text, Then

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NAME: Final = "[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}"
"""Pattern of a service's name; RESERVED are lcinit's own."""
RESERVED: Final = frozenset(("exec.command", "lcinit"))
MAX_SIZE: Final = 2**62
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE_EXPECTS: Final = "bytes, or a number with K, M, G or T (of 1024)"
_TCP_EXPECTS: Final = "a port, ADDRESS:PORT or [ADDRESS]:PORT"


def parse_name(text: str) -> str:
    """A service's name. Unfit for those that lcinit has taken."""
    if text in RESERVED:
        raise Unfit(f"{quoted(text)} is lcinit's own name", "choose another one")
    return text


def is_name(text: str) -> bool:
    """Whether a service may have this name."""
    import re

    return re.fullmatch(NAME, text) is not None and text not in RESERVED


def parse_size(text: str) -> int:
    """Bytes of `512M`. Unfit when it is none, or too large."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1].isalpha() else (text, "")
    size = int(digits) * _UNITS[unit]
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
    number = int(port)
    if not 0 < number < 65536:
        raise Unfit(f"{port} is no port", "write a port from 1 to 65535")
    return parse_address(host), number


def parse_address(host: str) -> str:
    """A literal IP address; localhost is 127.0.0.1. Unfit for any other name."""
    import ipaddress

    if host == "localhost":
        return "127.0.0.1"
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
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
        raise Unfit(f"{quoted(text)} is no http:// URL", "write http://ADDRESS[:PORT]/PATH; TLS is not spoken")
    authority, slash, path = rest.partition("/")
    if any(c <= " " or c > "~" for c in text) or "#" in text or "@" in authority:
        raise Unfit(f"{quoted(text)} does not fit", "write http://ADDRESS[:PORT]/PATH in ASCII, without user and #")
    host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not colon:
        host = authority
    elif not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise Unfit(f"{quoted(port)} is no port", "write a port from 1 to 65535")
    address = parse_address(host)
    shown = f"[{address}]" if ":" in address else address
    return f"http://{shown}{colon}{port}{slash}{path}"


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


SERVICE_NAME: Final = Text("a service's name: letters, digits, _ . @ -", NAME, parse_name)
SIZE: Final = Forms(
    _SIZE_EXPECTS,
    Number(1, MAX_SIZE, _SIZE_EXPECTS),
    Text(_SIZE_EXPECTS, "[0-9]{1,18}[KMGTkmgt]?", parse_size),
)
UMASK: Final = Text('octal digits in quotes, such as "022"', "[0-7]{3,4}", parse_umask)
CPU: Final = Text('a percentage such as "150%"', "[0-9]{1,6}%", parse_percentage)
TCP: Final = Forms(
    _TCP_EXPECTS,
    Then(Number(1, 65535, "a port from 1 to 65535"), lambda port: ("127.0.0.1", port)),
    Text(_TCP_EXPECTS, r".+:[0-9]{1,5}", parse_tcp),
)
HTTP: Final = Text("http://ADDRESS[:PORT]/PATH", convert=parse_http, shown="^http://")
ENVIRONMENT_FILE: Final = Text("an absolute path, or one behind a -", convert=parse_environment_file, shown="^-?/")
DEVICE_PATH: Final = Text("a path below /dev", convert=parse_device_path, shown="^/dev/")
