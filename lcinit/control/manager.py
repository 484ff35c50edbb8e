"""The interface io.lcinit.Manager: what may be asked of a supervising lcinit; its .varlink file is the reference."""

from __future__ import annotations

import json

from lcinit import log
from lcinit.control.answers import Follow, Interfaces, Upgrade, invalid, with_errors_of
from lcinit.control.varlink import SERVICE, MethodError
from lcinit.errors import EX_UNAVAILABLE, LcinitError
from lcinit.linux.signals import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeGuard

    from lcinit.control.answers import Answer, Closeable, Method
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

    class Served(Protocol):
        """What PID 1 offers, whatever it supervises. Methods raise LcinitError for what cannot be done."""

        events: EventLog

        def status(self) -> dict[str, Any]:
            """The interface's Report."""

        def plan(self) -> dict[str, Any]:
            """The plan's steps, as JSON."""

        def request(self, word: str, origin: str, *, at_once: bool = False) -> None:
            """Begin poweroff, halt, reboot or restart; returns at once."""

        def set_log_level(self, level: str) -> None:
            """Log what has at least this level."""

    class Supervised(Served, Protocol):
        """What it offers besides where it supervises a guest with an init of its own."""

        @property
        def console(self) -> Console | None:
            """The guest's console, where it has one that is shared."""

        def signal(self, number: int, whom: str) -> int:
            """Signal the `init` or `all`: how many processes."""

        def freeze(self) -> None:
            """Stop every process of the guest where it stands."""

        def thaw(self) -> None:
            """Let them go on."""

        def reexec(self) -> None:
            """Become the lcinit on disk."""


INTERFACE = "io.lcinit.Manager"
WHOM = ("init", "all")
REPLY_RECORDS = 100  # in one reply of a stream
REPLY_BYTES = 512 * 1024  # of records in a reply that is the only one


def access_denied() -> MethodError:
    """The interface's AccessDenied."""
    return MethodError(
        f"{INTERFACE}.AccessDenied",
        message="the control socket serves root of lcinit's own user namespace alone",
        hint="run it as root in the container: outside of the guest, unless lcinit supervises services in that",
    )


class Manager:
    """The methods over what PID 1 offers. `room_to_follow` says whether one more client may follow something.

    What only a guest with an init of its own has is refused where lcinit supervises services.
    """

    def __init__(self, served: Served, room_to_follow: Callable[[], bool]) -> None:
        self._served = served
        self._room_to_follow = room_to_follow

    def serve_in(self, interfaces: Interfaces) -> None:
        """Add the interface to those that are served."""
        methods: dict[str, Method] = {
            "Status": self._status,
            "Plan": self._plan,
            **{word.capitalize(): self._request for word in ("poweroff", "halt", "reboot", "restart")},
            "SetLogLevel": self._set_log_level,
            "Logs": self._logs,
            "Events": self._events,
        }
        if _supervises_a_guest(self._served):
            methods |= _GuestMethods(self._served, self._check_room).table()
        else:
            methods |= dict.fromkeys(_WITHOUT_GUEST, _refuse)
        interfaces.add(INTERFACE, with_errors_of(INTERFACE, methods))

    def _status(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        return {"status": self._served.status()}

    def _plan(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        return {"plan": self._served.plan()}

    def _request(self, call: Call, taker: Taker) -> Answer:
        at_once = taker.boolean("at_once")
        taker.end()
        self._served.request(call.split()[1].lower(), "control", at_once=at_once)
        return {}

    def _set_log_level(self, _call: Call, taker: Taker) -> Answer:
        level = taker.string("level")
        taker.end()
        if level not in log.LEVELS:
            raise invalid("level")
        self._served.set_log_level(level)
        return {}

    def _logs(self, call: Call, taker: Taker) -> Answer:
        return self._records(call, taker, "records", _log_since, log.subscribe)

    def _events(self, call: Call, taker: Taker) -> Answer:
        events = self._served.events
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


class _GuestMethods:
    """The methods that take a guest with an init of its own."""

    def __init__(self, supervised: Supervised, check_room: Callable[[], None]) -> None:
        self._supervised = supervised
        self._check_room = check_room

    def table(self) -> dict[str, Method]:
        """Name → method."""
        return {
            "Signal": self._signal,
            "Freeze": self._freeze,
            "Thaw": self._thaw,
            "Reexec": self._reexec,
            "OpenConsole": self._open_console,
            "SetConsoleSize": self._set_console_size,
        }

    def _signal(self, _call: Call, taker: Taker) -> Answer:
        name, whom = taker.string("signal"), taker.string("whom", "init")
        taker.end()
        try:
            number = signal_number(name)
        except ValueError:
            raise invalid("signal") from None
        if whom not in WHOM:
            raise invalid("whom")
        return {"signalled": self._supervised.signal(number, whom)}

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


_WITHOUT_GUEST = {
    "Signal": "name a service: `lcinit kill NAME`",
    "Freeze": "stop the services: `lcinit stop NAME`",
    "Thaw": "start the services: `lcinit start NAME`",
    "Reexec": "restart the container: lcinit's program stands outside of the root that it runs in",
    "OpenConsole": "services write to their logs: `lcinit logs NAME`",
    "SetConsoleSize": "services write to their logs: `lcinit logs NAME`",
}
"""What is refused where there are services in the guest's place, and what to do instead."""


def _refuse(call: Call, _taker: Taker) -> Answer:
    method = call.split()[1]
    raise LcinitError(
        f"{method} is for a guest with an init of its own, and lcinit supervises services here",
        hint=_WITHOUT_GUEST[method],
        exit_code=EX_UNAVAILABLE,
    )


def _supervises_a_guest(served: Served) -> TypeGuard[Supervised]:
    return hasattr(served, "freeze")


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
