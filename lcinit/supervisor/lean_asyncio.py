"""asyncio without what a loop of descriptors never uses.

More than half of the time and the memory that `import asyncio` takes goes to modules that asyncio itself needs for its
debug mode, for subprocesses, TLS and messages: logging, inspect, traceback, typing, subprocess, ssl. While asyncio is
imported they are represented by stand-ins, which hold what asyncio looks at then; whatever else is wanted of one of
them later is had from the real module, imported at that moment. Where another version of asyncio wants more of them, it
is imported as it is.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from lcinit import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def import_asyncio() -> ModuleType:
    """The package, as it is where it has been imported before."""
    if "asyncio" in sys.modules:
        return sys.modules["asyncio"]
    before = set(sys.modules)
    placed = {name: module for name, module in stand_ins().items() if name not in before}
    sys.modules.update(placed)
    try:
        import asyncio
    except Exception as error:
        log.debug(f"asyncio is imported with all that it can need: {error}")
        for name in set(sys.modules) - before:
            del sys.modules[name]
        placed = {}
        import asyncio
    finally:
        for name, module in placed.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    return asyncio


def stand_ins() -> dict[str, ModuleType]:
    """By the names of the modules that they stand for."""
    found = {
        "inspect": _StandIn("inspect"),
        "linecache": _StandIn("linecache"),
        "logging": _StandIn("logging", getLogger=lambda _name=None: _Logger(), DEBUG=10),
        "subprocess": _StandIn("subprocess", PIPE=-1, STDOUT=-2, DEVNULL=-3),
        # _asyncio keeps these two when it is loaded, for the debug mode
        "traceback": _StandIn("traceback", extract_stack=_later("traceback", "extract_stack")),
        "typing": _Typing("typing"),
    }
    return {**found, "ssl": None}  # type: ignore[dict-item] # asyncio does without, and nothing here speaks TLS


class _StandIn(ModuleType):
    """Has what it was given, and everything else from the module that it stands for."""

    def __init__(self, name: str, **has: Any) -> None:
        super().__init__(name)
        self.__dict__.update(has)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(_real(self.__name__, self), attribute)


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


def _text(message: object, values: tuple[object, ...]) -> str:
    return f"event loop: {str(message) % values if values else message}"


def _same(value: Any) -> Any:
    return value


def _later(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is called."""

    def call(*values: Any, **named: Any) -> Any:
        return getattr(_real(module), name)(*values, **named)

    return call


def _real(name: str, stand_in: ModuleType | None = None) -> ModuleType:
    """The module itself, also while its stand-in is in its place."""
    if stand_in is not None and sys.modules.get(name) is stand_in:
        del sys.modules[name]
    return importlib.import_module(name)
