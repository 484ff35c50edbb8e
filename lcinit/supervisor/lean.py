"""Modules of the standard library without what PID 1 never uses of them.

More than half of the time and the memory that `import asyncio` takes goes to modules that asyncio itself needs for its
debug mode, for threads, subprocesses, host names, TLS and messages: concurrent, inspect, logging, ssl, subprocess,
threading, traceback, typing; or of which it needs little: enum, signal, socket. While it is imported they are
represented by stand-ins, which hold what asyncio looks at then, and what a loop may need later: to say that a callback
has failed is not to need an import, which PID 1 refuses once its root has changed. Whatever else is wanted of one of
them is had from the real module, imported at that moment. The same goes for those of asyncio's own modules that only
its users need, as streams, and for the regular expressions that json has for where its C part is missing. Where another
version of a module wants more, it is imported as it is.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # it is the part in C of signal
import _socket
import _thread
import importlib
import sys
from importlib._bootstrap import module_from_spec  # that of importlib.util, without the rest of it
from importlib.machinery import PathFinder
from types import FunctionType, GeneratorType, ModuleType

from lcinit import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_WHEN = ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")  # a wait is over
_COROUTINE = 0x80  # inspect.CO_COROUTINE
_FOR_USERS = ("queues", "runners", "sslproto", "staggered", "streams", "subprocess", "taskgroups", "threads")


def import_asyncio() -> ModuleType:
    """The package, as it is where it has been imported before."""
    if "asyncio" in sys.modules:
        return sys.modules["asyncio"]
    try:
        return _import("asyncio", _around_asyncio(), _FOR_USERS)
    except Exception as error:
        log.debug(f"asyncio is imported with all that it can need: {error}")
        _forget("asyncio", "concurrent")
        if "_asyncio" in sys.modules:
            sys.modules["_asyncio"] = None  # type: ignore[assignment] # it is tied to what was forgotten
        return importlib.import_module("asyncio")


def import_json() -> ModuleType:
    """The package, as it is where it has been imported before."""
    if "json" in sys.modules:
        return sys.modules["json"]
    try:
        package = _import("json", {"re": _StandIn("re", compile=lambda *_: _Blanks, VERBOSE=0, MULTILINE=0, DOTALL=0)})
        if package.loads(package.dumps({"a": [" ", 1.5, None]}) + " ") != {"a": [" ", 1.5, None]}:
            raise ImportError("it has no C part")
        return package
    except Exception as error:
        log.debug(f"json is imported with all that it can need: {error}")
        _forget("json")
        return importlib.import_module("json")


def _import(name: str, around: Mapping[str, ModuleType | None], own: tuple[str, ...] = ()) -> ModuleType:
    """A package, with stand-ins for the modules `around` it and for these of its own."""
    spec = PathFinder.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no {name}")
    package = module_from_spec(spec)
    within = {f"{name}.{each}": _StandIn(f"{name}.{each}", __all__=()) for each in own}
    for full_name, stand_in in within.items():
        setattr(package, full_name.rpartition(".")[2], stand_in)
    placed = {each: module for each, module in {**around, **within}.items() if each not in sys.modules}
    sys.modules.update({**placed, name: package})  # type: ignore[dict-item] # None: there is no such module
    try:
        spec.loader.exec_module(package)
    finally:
        for each, module in placed.items():
            if each in sys.modules and sys.modules[each] is module:
                del sys.modules[each]
    return package


def _forget(*packages: str) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] in packages]:
        del sys.modules[name]


def _around_asyncio() -> dict[str, ModuleType | None]:
    futures = _StandIn("concurrent.futures", **{name: name for name in _WHEN})
    return {
        "enum": _StandIn("enum", Enum=_Enum, auto=object),
        "concurrent": _StandIn("concurrent", futures=futures),
        "concurrent.futures": futures,
        # what a callback or a task is shown by, and how a task knows what it may wait for
        "inspect": _StandIn(
            "inspect",
            unwrap=_same,
            isfunction=lambda value: isinstance(value, FunctionType),
            isgenerator=lambda value: isinstance(value, GeneratorType),
            isawaitable=lambda value: hasattr(type(value), "__await__"),
            iscoroutinefunction=_is_coroutine_function,
        ),
        "linecache": _StandIn("linecache"),
        "logging": _StandIn("logging", getLogger=lambda _name=None: _Logger(), DEBUG=10),
        # the parts in C have all but names of their numbers, and what is made of sockets for other programs
        "signal": _StandIn("signal", **_public(_signal)),
        "socket": _StandIn("socket", **_public(_socket)),
        "ssl": None,  # asyncio does without, and nothing here speaks TLS
        "subprocess": _StandIn("subprocess", PIPE=-1, STDOUT=-2, DEVNULL=-3),
        "threading": _StandIn(
            "threading", Lock=_thread.allocate_lock, get_ident=_thread.get_ident, local=_thread._local
        ),
        # _asyncio keeps this function when it is loaded, for the debug mode
        "traceback": _StandIn("traceback", extract_stack=_later("traceback", "extract_stack")),
        "typing": _Typing("typing"),
    }


class _StandIn(ModuleType):
    """Has what it was given, and everything else from the module that it stands for."""

    def __init__(self, name: str, **has: Any) -> None:
        super().__init__(name)
        self.__dict__.update(has)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


class _Enum:
    """Has members that know their names and values."""

    name: str
    value: object

    def __init_subclass__(cls) -> None:
        for name, value in list(vars(cls).items()):
            if name[0] != "_":
                member = cls()
                member.name, member.value = name, value
                setattr(cls, name, member)


class _Typing(ModuleType):
    """What annotations and decorators are made of: anything, and nothing that is asked again."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return _same if attribute in ("final", "overload", "runtime_checkable") else _Generic


class _Generic:
    """Takes parameters, as `Optional[int]`."""

    def __class_getitem__(cls, _parameters: object) -> type[_Generic]:
        return cls


class _Logger:
    """asyncio's and concurrent.futures': what they say goes to lcinit's log."""

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 - logging's name
        """Nobody needs asyncio's debug messages."""
        return False

    def debug(self, message: object, *values: object, **_more: object) -> None:
        """As logging.Logger's."""
        log.debug(_text(message, values))

    def warning(self, message: object, *values: object, **_more: object) -> None:
        """As logging.Logger's."""
        log.warning(_text(message, values))

    info = debug
    error = exception = critical = warning


class _Blanks:
    """The one pattern that json's decoder uses: blanks, at a place of a text."""

    def __init__(self, end: int) -> None:
        self._end = end

    @classmethod
    def match(cls, text: str, place: int) -> _Blanks:
        """As that of re.Pattern."""
        while text[place : place + 1] in (" ", "\t", "\n", "\r"):
            place += 1
        return cls(place)

    def end(self) -> int:
        """As that of re.Match."""
        return self._end


def _text(message: object, values: tuple[object, ...]) -> str:
    return f"event loop: {str(message) % values if values else message}"


def _public(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name[0] != "_"}


def _same(value: Any) -> Any:
    return value


def _is_coroutine_function(value: object) -> bool:
    return isinstance(value, FunctionType) and bool(value.__code__.co_flags & _COROUTINE)


def _later(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is called."""

    def call(*values: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*values, **named)

    return call
