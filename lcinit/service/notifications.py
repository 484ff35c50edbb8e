"""What one notification says (sd_notify(3)). Pure: bytes in, a value out.

Whoever is in the guest may send anything: names that are not known are ignored, values that cannot be are told and
ignored, and texts are printable and short.
"""

from __future__ import annotations

from lcinit.log import printable
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST_STATUS, _SHORT = 512, 64  # characters of a text, and of an error
MOST_LINES = 32  # of a message: there are no more than sixteen names, and a flood of long lists must cost little
LARGEST_PID = 1 << 22  # PID_MAX_LIMIT of linux/threads.h
_LARGEST_TIME = (1 << 64) - 1  # microseconds; systemd's word for "for ever"
_LARGEST_ERRNO = 4095  # MAX_ERRNO of linux/err.h
_PIECE = 16  # characters that are made printable at a time


class Notification(Record):
    """One message. Of `ready`, `reloading` and `stopping` one at most is true: the last that is said.

    `status` "" takes the text back; `watchdog_usec` 0 ends the watchdog; times are in microseconds, `monotonic_usec` by
    CLOCK_MONOTONIC. `barrier` needs nothing to be done. `problems` says what was ignored because its value cannot be.
    """

    ready: bool = False
    reloading: bool = False
    stopping: bool = False
    status: str | None = None
    main_pid: int | None = None
    watchdog: bool = False
    watchdog_trigger: bool = False
    watchdog_usec: int | None = None
    extend_timeout_usec: int | None = None
    monotonic_usec: int | None = None
    errno: int | None = None
    bus_error: str | None = None
    varlink_error: str | None = None
    exit_status: str | None = None
    barrier: bool = False
    problems: tuple[str, ...] = ()


class _NoSuchValue(ValueError):
    """Says what the value should have been."""


def parse(data: bytes) -> Notification:
    """The assignments of a datagram, one a line; of several of one name the last counts, as of the three states.

    What comes after MOST_LINES lines is told and ignored.
    """
    if data.endswith(b"\0"):
        data = data[:-1]  # some send a C string with its end
    if b"\0" in data:
        return Notification(problems=("it holds a NUL byte",))
    said: dict[str, str] = {}
    lines = data.decode("utf-8", "replace").split("\n", MOST_LINES)
    rest = lines.pop() if len(lines) > MOST_LINES else ""
    for line in lines:
        name, separator, value = line.partition("=")
        if separator and name in _NAMES:
            said.pop(name, None)  # the three states go by the order of the last of each
            said[name] = value
    found: dict[str, Any] = {}
    problems = [f"it has more than {MOST_LINES} lines"] if rest else []
    for name, value in said.items():
        try:
            _NAMES[name](found, value)
        except _NoSuchValue as error:
            problems.append(f"{name}={text(value, _SHORT)}: {error}")
    return Notification(**found, problems=tuple(problems))


def text(value: str, longest: int) -> str:
    """A foreign text in one printable line of at most `longest` characters."""
    shown = ""
    for start in range(0, min(len(value), longest + 1), _PIECE):  # what is cut off anyhow is not made printable
        shown += printable(value[start : start + _PIECE])
        if len(shown) > longest:
            return f"{shown[: longest - 3]}..."
    return shown


def number(value: str, largest: int, smallest: int = 0) -> int | None:
    """Decimal digits alone, and within bounds; else None. Surrounding blanks do not count."""
    digits = value.strip(" \t\r\n")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(largest))):
        return None
    result = int(digits)
    return result if smallest <= result <= largest else None


def _state(state: str) -> Callable[[dict[str, Any], str], None]:
    def take(found: dict[str, Any], value: str) -> None:
        if value == "1":
            found.update(ready=False, reloading=False, stopping=False)
            found[state] = True

    return take


def _watchdog(found: dict[str, Any], value: str) -> None:
    if value == "1":
        found["watchdog"] = True
    elif value == "trigger":
        found["watchdog_trigger"] = True
    else:
        raise _NoSuchValue('it is "1" or "trigger"')


def _barrier(found: dict[str, Any], value: str) -> None:
    if value == "1":
        found["barrier"] = True


def _number(field: str, largest: int, what: str, smallest: int = 0) -> Callable[[dict[str, Any], str], None]:
    def take(found: dict[str, Any], value: str) -> None:
        result = number(value, largest, smallest)
        if result is None:
            raise _NoSuchValue(f"it is {what}")
        found[field] = result

    return take


def _text(field: str, longest: int) -> Callable[[dict[str, Any], str], None]:
    def take(found: dict[str, Any], value: str) -> None:
        found[field] = text(value, longest)

    return take


_NAMES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "READY": _state("ready"),
    "RELOADING": _state("reloading"),
    "STOPPING": _state("stopping"),
    "STATUS": _text("status", LONGEST_STATUS),
    "MAINPID": _number("main_pid", LARGEST_PID, "a process id", 1),
    "WATCHDOG": _watchdog,
    "WATCHDOG_USEC": _number("watchdog_usec", _LARGEST_TIME, "a number of microseconds"),
    "EXTEND_TIMEOUT_USEC": _number("extend_timeout_usec", _LARGEST_TIME, "a number of microseconds"),
    "MONOTONIC_USEC": _number("monotonic_usec", _LARGEST_TIME, "a number of microseconds"),
    "ERRNO": _number("errno", _LARGEST_ERRNO, "a number of errno(3)"),
    "BUSERROR": _text("bus_error", _SHORT),
    "VARLINKERROR": _text("varlink_error", _SHORT),
    "EXIT_STATUS": _text("exit_status", _SHORT),
    "BARRIER": _barrier,
}
