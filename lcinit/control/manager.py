"""The interface io.lcinit.Manager: what may be asked of a supervising lcinit; its .varlink file is the reference."""

from __future__ import annotations

import json

from lcinit import log
from lcinit.control.answers import Follow, Interfaces, Upgrade
from lcinit.control.varlink import SERVICE, MethodError
from lcinit.errors import LcinitError, SystemFailure
from lcinit.linux.signals import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from lcinit.control.answers import Answer, Closeable
    from lcinit.control.varlink import Call, Taker
    from lcinit.supervisor.events import EventLog

    class Console(Protocol):
        """The guest's console."""

        def tap(self, write: Callable[[bytes], object]) -> Closeable:
            """Call `write` with each piece of output until it is closed."""

        def scrollback(self) -> bytes:
            """The last output."""

        def type(self, data: bytes) -> int:
            """How many of the bytes the guest's terminal took."""

        def set_size(self, rows: int, columns: int) -> object:
            """The size that the guest's terminal has from now on."""

    class Supervised(Protocol):
        """What PID 1 offers in the supervising phase. Methods raise LcinitError for what cannot be done."""

        events: EventLog

        @property
        def console(self) -> Console | None:
            """The guest's console, where it has one that is shared."""

        def status(self) -> dict[str, Any]:
            """The interface's Report."""

        def plan(self) -> dict[str, Any]:
            """The plan's steps, as JSON."""

        def request(self, word: str, origin: str, *, at_once: bool = False) -> None:
            """Begin poweroff, halt, reboot or restart; returns at once."""

        def signal(self, number: int, whom: str) -> int:
            """Signal the `init` or `all`: how many processes."""

        def freeze(self) -> None:
            """Stop every process of the guest where it stands."""

        def thaw(self) -> None:
            """Let them go on."""

        def set_log_level(self, level: str) -> None:
            """Log what has at least this level."""

        def reexec(self) -> None:
            """Become the lcinit on disk."""


INTERFACE = "io.lcinit.Manager"
WHOM = ("init", "all")
REPLY_RECORDS = 100  # in one reply of a stream
REPLY_BYTES = 512 * 1024  # of records in a reply that is the only one


def failed(error: LcinitError) -> MethodError:
    """The interface's Failed."""
    return MethodError(f"{INTERFACE}.Failed", message=error.message, hint=error.hint, exit_code=error.exit_code)


def internal(call: Call, error: Exception) -> MethodError:
    """The interface's Internal; the log gets the particulars."""
    log.error(f"control: {call.method}: unexpected: {type(error).__name__}: {error}")
    return MethodError(
        f"{INTERFACE}.Internal",
        message=f"lcinit failed at {call.method} with {type(error).__name__}",
        hint="this is a fault of lcinit's own; `lcinit logs` tells more",
    )


def access_denied() -> MethodError:
    """The interface's AccessDenied."""
    return MethodError(
        f"{INTERFACE}.AccessDenied",
        message="the control socket serves root of lcinit's own user namespace alone",
        hint="run it as root in the container, outside of the guest",
    )


class Manager:
    """The methods over what PID 1 offers. `room_to_follow` says whether one more client may follow something."""

    def __init__(self, supervised: Supervised, room_to_follow: Callable[[], bool]) -> None:
        self._supervised = supervised
        self._room_to_follow = room_to_follow

    def serve_in(self, interfaces: Interfaces) -> None:
        """Add the interface to those that are served."""
        methods = {
            "Status": self._status,
            "Plan": self._plan,
            **{word.capitalize(): self._request for word in ("poweroff", "halt", "reboot", "restart")},
            "Signal": self._signal,
            "SetLogLevel": self._set_log_level,
            "Logs": self._logs,
            "Events": self._events,
            "Freeze": self._freeze,
            "Thaw": self._thaw,
            "Reexec": self._reexec,
            "OpenConsole": self._open_console,
            "SetConsoleSize": self._set_console_size,
        }
        interfaces.add(INTERFACE, {name: _in_own_errors(method) for name, method in methods.items()})

    def _status(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        return {"status": self._supervised.status()}

    def _plan(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        return {"plan": self._supervised.plan()}

    def _request(self, call: Call, taker: Taker) -> Answer:
        at_once = taker.boolean("at_once")
        taker.end()
        self._supervised.request(call.split()[1].lower(), "control", at_once=at_once)
        return {}

    def _signal(self, _call: Call, taker: Taker) -> Answer:
        name, whom = taker.string("signal"), taker.string("whom", "init")
        taker.end()
        try:
            number = signal_number(name)
        except ValueError:
            raise _invalid("signal") from None
        if whom not in WHOM:
            raise _invalid("whom")
        return {"signalled": self._supervised.signal(number, whom)}

    def _set_log_level(self, _call: Call, taker: Taker) -> Answer:
        level = taker.string("level")
        taker.end()
        if level not in log.LEVELS:
            raise _invalid("level")
        self._supervised.set_log_level(level)
        return {}

    def _logs(self, call: Call, taker: Taker) -> Answer:
        return self._records(call, taker, "records", _log_since, log.subscribe)

    def _events(self, call: Call, taker: Taker) -> Answer:
        events = self._supervised.events
        return self._records(call, taker, "events", lambda after: _typed(events.history(after)), events.subscribe)

    def _records(
        self,
        call: Call,
        taker: Taker,
        name: str,
        since: Callable[[int], list[dict[str, Any]]],
        subscribe: Callable[[Callable[[dict[str, Any]], object]], Callable[[], None]],
    ) -> Answer:
        after, follow = taker.integer("after", 0), taker.boolean("follow")
        taker.end()
        if not follow:
            records = _newest(since(after))
            return {name: records, "missed": _missed(records, after)}
        if not call.more:
            raise MethodError(f"{SERVICE}.ExpectedMore")
        self._check_room()
        reader = _Reader(name, since, after)
        return Follow(reader.take, lambda wake: subscribe(lambda _record: wake()))

    def _check_room(self) -> None:
        if not self._room_to_follow():
            raise MethodError(
                f"{INTERFACE}.Busy",
                message="as many clients as may be follow lcinit already",
                hint="end one of them (`lcinit logs -f`, `lcinit events -f`, `lcinit console`)",
            )

    def _freeze(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        self._supervised.freeze()
        return {}

    def _thaw(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        self._supervised.thaw()
        return {}

    def _reexec(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        self._supervised.reexec()
        return {}

    def _console(self) -> Console:
        console = self._supervised.console
        if console is None:
            raise MethodError(
                f"{INTERFACE}.NoConsole",
                message="the guest has no console that could be shared",
                hint="it has one while it runs with exec.pid: nested",
            )
        return console

    def _open_console(self, call: Call, taker: Taker) -> Answer:
        taker.end()
        if not call.upgrade:
            raise MethodError(f"{SERVICE}.ExpectedUpgrade")
        console = self._console()
        self._check_room()

        def open_session(write: Callable[[bytes], object]) -> Closeable:
            if seen := console.scrollback():
                write(seen)
            return console.tap(write)

        return Upgrade(open_session, console.type)

    def _set_console_size(self, _call: Call, taker: Taker) -> Answer:
        rows, columns = (taker.integer(name, None, least=1, most=2**16 - 1) for name in ("rows", "columns"))
        taker.end()
        self._console().set_size(rows, columns)
        return {}


class _Reader:
    """Where one client is in a memory of records: what it has not been given yet, and how much of that is gone."""

    def __init__(self, name: str, since: Callable[[int], list[dict[str, Any]]], after: int) -> None:
        self._name = name
        self._since = since
        self._after = after

    def take(self) -> dict[str, Any] | None:
        """The next reply's parameters, None if there is nothing new."""
        records = self._since(self._after)[:REPLY_RECORDS]
        if not records:
            return None
        missed = _missed(records, self._after)
        self._after = records[-1]["seq"]
        return {self._name: records, "missed": missed}


def _in_own_errors(method: Callable[[Call, Taker], Answer]) -> Callable[[Call, Taker], Answer]:
    """The method, with what it cannot do as the interface's Failed."""

    def called(call: Call, taker: Taker) -> Answer:
        try:
            return method(call, taker)
        except LcinitError as error:
            raise failed(error) from error
        except OSError as error:
            raise failed(SystemFailure.from_os_error(f"do {call.split()[1]}", error)) from error

    return called


def _invalid(parameter: str) -> MethodError:
    return MethodError(f"{SERVICE}.InvalidParameter", parameter=parameter)


def _log_since(after: int) -> list[dict[str, Any]]:
    return [record for record in log.kept() if record["seq"] > after]


def _typed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events as the interface types them: each kind's own facts apart."""
    common = ("seq", "time", "kind")
    return [
        {
            **{name: event[name] for name in common},
            "facts": {name: fact for name, fact in event.items() if name not in common},
        }
        for event in events
    ]


def _missed(records: list[dict[str, Any]], after: int) -> int:
    """How many between number `after` and the first of the records are not among them."""
    return records[0]["seq"] - after - 1 if records else 0


def _newest(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the last records as one reply may hold."""
    size, kept = 0, 0
    for record in reversed(records):
        size += len(json.dumps(record))
        if size > REPLY_BYTES:
            break
        kept += 1
    return records[len(records) - kept :]
