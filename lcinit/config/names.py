"""Shapes of single values: ids, durations, paths, and the names that the kernel and its manuals give to things."""

from __future__ import annotations

from lcinit.config.compound import Field, Fields
from lcinit.config.diagnostics import Unfit, closest, quoted, shortened
from lcinit.config.mounts import parse_path
from lcinit.config.shapes import Choice, Exactly, Forms, Number, Text, Then
from lcinit.config.values import Limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

MAX_ID: Final = 2**32 - 2
"""The largest uid or gid: 2³²-1 means "no id" to the kernel."""
MAX_DURATION: Final = 7 * 24 * 3600
"""Seconds. A week: nothing that a container's start or stop waits for takes longer."""
HOST_NAME_MAX: Final = 64
"""Bytes of a host name (gethostname(2))."""
IFNAMSIZ: Final = 16
"""Bytes of an interface's name with its final NUL (netdevice(7))."""
RLIMITS: Final = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue"),
    *("nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)
"""The resources of setrlimit(2), without RLIMIT_, in lower case."""

_SECONDS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_AMOUNT: Final = "[0-9]{1,9}"
_DURATION: Final = (
    f"(?=[0-9])(?:{_AMOUNT}d)?(?:{_AMOUNT}h)?(?:{_AMOUNT}m(?!s))?"
    rf"(?:{_AMOUNT}(?:\.{_AMOUNT})?s)?(?:{_AMOUNT}ms)?"
)
_DURATION_EXPECTS: Final = "seconds above 0 as a number, or 1m30s, 500ms, 2h; a week at most"


def parse_duration(text: str) -> float:
    """The seconds in `1m30s`: units d, h, m, s and ms, each at most once and in this order. Unfit otherwise."""
    import re

    if not re.fullmatch(_DURATION, text):
        raise Unfit(f"{quoted(text)} is no duration", f"write {_DURATION_EXPECTS}")
    seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in re.findall(r"([0-9.]+)(ms|[dhms])", text))
    if not 0 < seconds <= MAX_DURATION:
        raise Unfit(f"{quoted(text)} is out of range", f"write {_DURATION_EXPECTS}")
    return seconds


def parse_root(text: str) -> str:
    """The path of a guest root. Unfit as parse_path, and for `/`."""
    if text == "none":
        raise Unfit('"none" is a relative path', "write null to keep the boot root")
    if not text.startswith("/"):
        right = "write an absolute path: a relative one, as p5-lcboot took it, depends on where the manager starts init"
        raise Unfit(f"{quoted(text)} is a relative path", right)
    path = parse_path(text)
    if path == "/":
        raise Unfit("/ is the boot root", "write null to keep the boot root, or the guest root's path")
    return path


def parse_hostname(text: str) -> str:
    """A host name of hostname(7). Unfit when it is longer than HOST_NAME_MAX."""
    if len(text) > HOST_NAME_MAX:
        raise Unfit(f"{quoted(text)} has {len(text)} characters", f"write at most {HOST_NAME_MAX}")
    return text


def parse_interface(text: str) -> str:
    """An interface's name as dev_valid_name of Linux takes it, and nothing that looks like an option."""
    if len(text.encode()) >= IFNAMSIZ:
        raise Unfit(f"{quoted(text)} is longer than {IFNAMSIZ - 1} bytes", "write the interface's name")
    if text in (".", "..", "lo"):
        raise Unfit(f"{quoted(text)} cannot be moved", "write an interface's name other than lo")
    return text


def parse_device(text: str) -> str:
    """A name or glob relative to /dev; `/dev/` in front is taken off. Unfit for any other absolute path, and `..`."""
    name = text[5:].lstrip("/") if text.startswith("/dev/") else text
    parts = name.split("/")
    if name.startswith("/") or not name.strip("/"):
        raise Unfit(f"{quoted(text)} is not in /dev", 'write a name such as "/dev/fuse" or "fuse"')
    if ".." in parts:
        raise Unfit(f"{quoted(text)} holds ..", "write the name without ..")
    return "/".join(part for part in parts if part not in ("", "."))


def parse_expression(text: str) -> str:
    """A regular expression of Python. Unfit when it does not compile."""
    import re

    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise Unfit(f"{quoted(text)} is no regular expression: {error}", "see the re module of Python") from None
    return text


def parse_signal(text: str) -> str:
    """A signal as `SIGTERM` or `SIGRTMIN+3`, in this canonical form. Unfit when there is no such signal."""
    from lcinit.linux.signals import signal_number

    try:
        signal_number(text)
    except ValueError:
        raise Unfit(f"{quoted(text)} is no signal", "write a name such as SIGTERM or SIGRTMIN+4") from None
    name = text.upper()
    return name if name.startswith("SIG") else f"SIG{name}"


def parse_capability(text: str) -> str:
    """A capability's name in lower case without `cap_`. Unfit when capabilities(7) has none of that name."""
    from lcinit.linux.capabilities import CAPABILITIES

    name = text.lower().removeprefix("cap_")
    if name not in CAPABILITIES:
        near = closest(name, CAPABILITIES)
        hint = f"did you mean {near}?" if near else "write a name of capabilities(7), such as sys_time"
        raise Unfit(f"{quoted(text)} is no capability", hint)
    return name


def parse_limit_pair(text: str) -> tuple[int | None, int | None]:
    """Soft and hard limit in `1024:4096`, None for infinity."""
    soft, _, hard = text.partition(":")
    return _amount(soft), _amount(hard)


def make_limit(name: str, value: Any) -> Limit:
    """The limit that one entry of `limits` means. Unfit when soft is above hard."""
    soft, hard = value
    if hard is not None and (soft is None or soft > hard):
        what = f"the soft limit {'infinity' if soft is None else soft} is above the hard limit {hard}"
        raise Unfit(what, "write soft at most hard")
    return Limit(name=name, soft=soft, hard=hard)


def _amount(text: str) -> int | None:
    if text in ("infinity", "unlimited"):
        return None
    if len(text) > 18:
        raise Unfit(f"{shortened(text)} is too large", "write infinity")
    return int(text)


def account(expects: str) -> Forms:
    """A user or group: an id, or a name of the guest's passwd(5) or group(5)."""
    return Forms(expects, Number(0, MAX_ID, expects), Text(f"{expects}, an id without quotes", ACCOUNT_NAME))


ACCOUNT_NAME: Final = r"(?![0-9]*$)[^-:/,\s\x00-\x1f][^:/,\s\x00-\x1f]{0,255}"

DURATION: Final = Forms(
    _DURATION_EXPECTS,
    Then(Number(0, MAX_DURATION, _DURATION_EXPECTS, decimals=True, above_low=True), float),
    Text(_DURATION_EXPECTS, _DURATION, parse_duration),
)
PATH: Final = Text("an absolute path", convert=parse_path, shown="^/")
ROOT_PATH: Final = Text("an absolute path", convert=parse_root, shown="^/")
HOSTNAME: Final = Text(
    "labels of letters, digits and hyphens, with dots between",
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    parse_hostname,
)
INTERFACE: Final = Text("an interface's name", r"[^-/:\s\x00-\x1f\x7f][^/:\s\x00-\x1f\x7f]*", parse_interface)
DEVICE: Final = Text('a name in /dev, such as "/dev/fuse", or a glob', convert=parse_device)
EXPRESSION: Final = Text("a regular expression", convert=parse_expression)
SIGNAL: Final = Text("a signal's name", r"(?:[Ss][Ii][Gg])?[A-Za-z][A-Za-z0-9]*(?:[+-][0-9]{1,2})?", parse_signal)
CAPABILITY: Final = Text("a capability's name", "[A-Za-z_]+", parse_capability)
VARIABLE: Final = Text("a name of letters, digits and _, not beginning with a digit", "[A-Za-z_][A-Za-z0-9_]*")
GLOB: Final = Text("a variable's name, or a glob", r"[^=\s\x00-\x1f]+")

_LIMIT_EXPECTS: Final = "a number, infinity, soft:hard, or {soft, hard}"
_ONE_LIMIT: Final = Forms(
    "a number or infinity",
    Number(0, 2**63 - 1, "a number from 0 on"),
    Choice({"infinity": None, "unlimited": None}),
)
LIMIT: Final = Forms(
    _LIMIT_EXPECTS,
    Then(_ONE_LIMIT, lambda amount: (amount, amount)),
    Text(_LIMIT_EXPECTS, "(?:[0-9]+|infinity|unlimited):(?:[0-9]+|infinity|unlimited)", parse_limit_pair),
    Fields(
        lambda soft, hard: (soft, hard),
        "{soft, hard}",
        Field("soft", _ONE_LIMIT, "What the kernel enforces.", required=True),
        Field("hard", _ONE_LIMIT, "How far the guest may raise the soft limit.", required=True),
    ),
)
NOTHING: Final = Exactly(None, None)
