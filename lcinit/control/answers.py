"""What a method of a varlink interface gives back besides plain parameters, and how a service finds the method."""

from __future__ import annotations

from lcinit import __version__, log
from lcinit.control.texts import TEXTS
from lcinit.control.varlink import SERVICE, MethodError, Taker
from lcinit.errors import LcinitError, SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol, TypeAlias

    from lcinit.control.varlink import Call

    class Closeable(Protocol):
        """Something that is ended by `close`."""

        def close(self) -> object:
            """End it."""

    Answer: TypeAlias = "dict[str, Any] | Follow | Later | Upgrade"
    Method = Callable[[Call, Taker], Answer]
    Done = Callable[[dict[str, Any]], object]
    Fail = Callable[[Exception], object]


class Follow:
    """Many replies. `take` gives the next one's parameters, None for the time being; `subscribe` calls back when there
    is more, until the function that it returns is called."""

    def __init__(
        self,
        take: Callable[[], dict[str, Any] | None],
        subscribe: Callable[[Callable[[], object]], Callable[[], None]],
    ) -> None:
        self.take = take
        self.subscribe = subscribe


class Later:
    """One reply that comes when it is known; other clients are served meanwhile.

    `begin` is called with `done(parameters)` and `fail(error)`, one of which is to be called once, now or later, in the
    loop's own thread. It returns what is called when the client goes away first: that ends the waiting, not the work.
    """

    def __init__(self, begin: Callable[[Done, Fail], Callable[[], object]]) -> None:
        self.begin = begin


class Upgrade:
    """One reply without parameters, after which the connection is raw.

    `open` is called with the function that sends bytes to the client, and returns what is closed when the client goes;
    `receive` is called with what the client sends, and returns how many of the bytes it took.
    """

    def __init__(
        self, open_session: Callable[[Callable[[bytes], object]], Closeable], receive: Callable[[bytes], int]
    ) -> None:
        self.open = open_session
        self.receive = receive


class Interfaces:
    """The interfaces of a service: each a text and its methods. org.varlink.service is always one of them."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._methods: dict[str, dict[str, Method]] = {}
        self.add(SERVICE, {"GetInfo": self._info, "GetInterfaceDescription": self._description})

    def add(self, name: str, methods: dict[str, Method]) -> None:
        """Serve an interface that has a text."""
        self._texts[name] = TEXTS[name]
        self._methods[name] = methods

    def answer(self, call: Call) -> Answer:
        """Do what is called. Raises MethodError, and whatever the method raises."""
        interface, name = call.split()
        methods = self._methods.get(interface)
        if methods is None:
            raise MethodError(f"{SERVICE}.InterfaceNotFound", interface=interface)
        if name not in methods:
            raise MethodError(f"{SERVICE}.MethodNotFound", method=call.method)
        return methods[name](call, Taker(call))

    def _info(self, _call: Call, taker: Taker) -> Answer:
        taker.end()
        return {
            "vendor": "lcinit",
            "product": "lcinit",
            "version": __version__,
            "url": "",
            "interfaces": sorted(self._methods),
        }

    def _description(self, _call: Call, taker: Taker) -> Answer:
        name = taker.string("interface")
        taker.end()
        if name not in self._texts:
            raise MethodError(f"{SERVICE}.InterfaceNotFound", interface=name)
        return {"description": self._texts[name]}


# errors that every interface of lcinit's own has


def failed(interface: str, error: LcinitError) -> MethodError:
    """The interface's Failed."""
    return MethodError(f"{interface}.Failed", message=error.message, hint=error.hint, exit_code=error.exit_code)


def internal(call: Call, error: Exception) -> MethodError:
    """The Internal of the interface that was called; the log gets the particulars."""
    log.error(f"control: {call.method}: unexpected: {type(error).__name__}: {error}")
    return MethodError(
        f"{call.split()[0]}.Internal",
        message=f"lcinit failed at {call.method} with {type(error).__name__}",
        hint="this is a fault of lcinit's own; `lcinit logs` tells more",
    )


def invalid(parameter: str) -> MethodError:
    """varlink's InvalidParameter."""
    return MethodError(f"{SERVICE}.InvalidParameter", parameter=parameter)


def with_errors_of(interface: str, methods: Mapping[str, Method]) -> dict[str, Method]:
    """The methods, with what each cannot do as the interface's Failed."""
    return {name: _with_errors_of(interface, method) for name, method in methods.items()}


def _with_errors_of(interface: str, method: Method) -> Method:
    def called(call: Call, taker: Taker) -> Answer:
        try:
            return method(call, taker)
        except LcinitError as error:
            raise failed(interface, error) from error
        except OSError as error:
            raise failed(interface, SystemFailure.from_os_error(f"do {call.split()[1]}", error)) from error

    return called
