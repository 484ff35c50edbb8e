"""The interface io.lcinit.Services: what may be asked of a lcinit that supervises services; its .varlink file is the
reference."""

from __future__ import annotations

from lcinit.control.answers import Later, failed, invalid, with_errors_of
from lcinit.control.varlink import MethodError
from lcinit.errors import EX_UNAVAILABLE, LcinitError
from lcinit.linux.signals import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from lcinit.control.answers import Answer, Done, Fail, Interfaces
    from lcinit.control.varlink import Call, Taker
    from lcinit.control.waiting import Waiting

    class ServicesOffered(Protocol):
        """What PID 1 offers. Methods raise LcinitError for what cannot be done, and NoSuchService before anything is
        done where one of the names is none. Names come once each. `origin` is for the events and the log.

        What a Waiting has as its result are the reply's parameters, as the interface types them.
        """

        def list(self, names: tuple[str, ...] | None) -> dict[str, Any]:
            """The reply of List; None is for all services."""

        def start(self, names: tuple[str, ...], origin: str) -> Waiting:
            """Begin; done when each is ready or has failed. The result, as the next three's: {"done": [Result...]}."""

        def stop(self, names: tuple[str, ...], origin: str) -> Waiting:
            """Begin; done when each is down."""

        def restart(self, names: tuple[str, ...], origin: str) -> Waiting:
            """Begin; done when each is ready again or has failed."""

        def reload(self, names: tuple[str, ...], origin: str) -> Waiting:
            """Begin; done when each has read its configuration again."""

        def kill(self, name: str, number: int, whom: str) -> int:
            """Signal the `main` process of a service or `all` that it has: how many processes."""

        def reset_failed(self, names: tuple[str, ...] | None) -> None:
            """Forget the failures of these services, None: of all."""

        def enable(self, names: tuple[str, ...]) -> Waiting:
            """Have them start with their runlevels. Its result is {"changed": [those that were not enabled before]}."""

        def disable(self, names: tuple[str, ...]) -> Waiting:
            """Have them not: those that were."""

        def daemon_reload(self, dry_run: bool) -> Waiting:
            """Read all files again; with `dry_run` only compare. Its result is {"changes": [Change...]}."""

        def wait(self, names: tuple[str, ...], state: str, timeout: float | None) -> Waiting:
            """Until each is `ready` or `stopped`, or `timeout` seconds are over: {"services": [Result...]}."""

        def set_runlevel(self, runlevel: str, origin: str) -> None:
            """Go to a runlevel from "1" to "5", or "S"; returns at once."""

        def runlevel(self) -> tuple[str, str]:
            """The runlevel and the one before it; "N" for none."""


INTERFACE = "io.lcinit.Services"
RUNLEVELS = ("1", "2", "3", "4", "5", "S")
STATES = ("ready", "stopped")
WHOM = ("main", "all")
ORIGIN = "control"


class NoSuchService(LcinitError):
    """A name that no service has."""

    exit_code = EX_UNAVAILABLE

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no service {name}", hint="`lcinit status` lists them")
        self.name = name


class Services:
    """The methods over what PID 1 offers. `room_to_wait` says whether one more client may wait for a reply."""

    def __init__(self, services: ServicesOffered, room_to_wait: Callable[[], bool]) -> None:
        self._services = services
        self._room_to_wait = room_to_wait

    def serve_in(self, interfaces: Interfaces) -> None:
        """Add the interface to those that are served."""
        work = {
            "Start": self._services.start,
            "Stop": self._services.stop,
            "Restart": self._services.restart,
            "Reload": self._services.reload,
        }
        methods = {
            "List": self._list,
            **{name: self._work(begin) for name, begin in work.items()},
            "Kill": self._kill,
            "ResetFailed": self._reset_failed,
            "Enable": self._enable,
            "Disable": self._disable,
            "DaemonReload": self._daemon_reload,
            "Wait": self._wait,
            "SetRunlevel": self._set_runlevel,
            "GetRunlevel": self._get_runlevel,
        }
        named = {name: _with_no_such_service(method) for name, method in methods.items()}
        interfaces.add(INTERFACE, with_errors_of(INTERFACE, named))

    def _list(self, _call: Call, taker: Taker) -> Answer:
        names = taker.strings("names")
        taker.end()
        return self._services.list(names)

    def _work(self, begin: Callable[[tuple[str, ...], str], Waiting]) -> Callable[[Call, Taker], Answer]:
        """The method that begins something, and waits for its end unless that is not wanted."""

        def called(_call: Call, taker: Taker) -> Answer:
            names, wait = _names(taker), taker.boolean("wait", True)
            taker.end()
            if wait:
                self._check_room()
                return _later(begin(names, ORIGIN))
            begun = begin(names, ORIGIN)
            return _now(begun) if begun.done else {"done": [_taken_on(each) for each in self._states(names)]}

        return called

    def _states(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        services: list[dict[str, Any]] = self._services.list(names)["services"]
        return services

    def _kill(self, _call: Call, taker: Taker) -> Answer:
        name, signal, whom = taker.string("name"), taker.string("signal"), taker.string("whom", "main")
        taker.end()
        try:
            number = signal_number(signal)
        except ValueError:
            raise invalid("signal") from None
        if whom not in WHOM:
            raise invalid("whom")
        return {"signalled": self._services.kill(name, number, whom)}

    def _reset_failed(self, _call: Call, taker: Taker) -> Answer:
        names = taker.strings("names")
        taker.end()
        self._services.reset_failed(names)
        return {}

    def _enable(self, _call: Call, taker: Taker) -> Answer:
        names = _names(taker)
        taker.end()
        self._check_room()
        return _later(self._services.enable(names))

    def _disable(self, _call: Call, taker: Taker) -> Answer:
        names = _names(taker)
        taker.end()
        self._check_room()
        return _later(self._services.disable(names))

    def _daemon_reload(self, _call: Call, taker: Taker) -> Answer:
        dry_run = taker.boolean("dry_run")
        taker.end()
        self._check_room()
        return _later(self._services.daemon_reload(dry_run))

    def _wait(self, _call: Call, taker: Taker) -> Answer:
        names, state, timeout = _names(taker), taker.string("state"), taker.number("timeout")
        taker.end()
        if state not in STATES:
            raise invalid("state")
        self._check_room()
        return _later(self._services.wait(names, state, timeout))

    def _set_runlevel(self, _call: Call, taker: Taker) -> Answer:
        runlevel = taker.string("runlevel")
        taker.end()
        if runlevel not in RUNLEVELS:
            raise invalid("runlevel")
        self._services.set_runlevel(runlevel, ORIGIN)
        return {}

    def _get_runlevel(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        runlevel, previous = self._services.runlevel()
        return {"runlevel": runlevel, "previous": previous}

    def _check_room(self) -> None:
        """Before anything is begun: who cannot wait may ask for the same without waiting."""
        if not self._room_to_wait():
            raise MethodError(
                f"{INTERFACE}.Busy",
                message="as many clients as may be wait for lcinit or follow it already",
                hint="ask without waiting (`--no-block`), or end one of them",
            )


def _names(taker: Taker) -> tuple[str, ...]:
    """The names that a call must give."""
    names = taker.strings("names")
    if not names:
        raise invalid("names")
    return names


def _later(waiting: Waiting) -> Later:
    """The reply that a result to come is."""

    def begin(done: Done, fail: Fail) -> Callable[[], object]:
        def tell() -> None:
            try:
                parameters = _now(waiting)
            except Exception as error:
                fail(error)
            else:
                done(parameters)

        return waiting.subscribe(tell)

    return Later(begin)


def _now(waiting: Waiting) -> dict[str, Any]:
    """The parameters of a result that has come. Raises its error as the interface has it."""
    error = waiting.error
    if isinstance(error, NoSuchService):
        raise _no_such_service(error)
    if isinstance(error, LcinitError):
        raise failed(INTERFACE, error)
    if error is not None:
        raise error
    assert waiting.result is not None
    return waiting.result


def _taken_on(service: dict[str, Any]) -> dict[str, Any]:
    """The Result of a service whose work has just begun."""
    return {"ok": True, **{name: service[name] for name in ("name", "state", "sub", "reason")}}


def _with_no_such_service(method: Callable[[Call, Taker], Answer]) -> Callable[[Call, Taker], Answer]:
    def called(call: Call, taker: Taker) -> Answer:
        try:
            return method(call, taker)
        except NoSuchService as error:
            raise _no_such_service(error) from error

    return called


def _no_such_service(error: NoSuchService) -> MethodError:
    return MethodError(f"{INTERFACE}.NoSuchService", name=error.name, message=error.message, hint=error.hint)
