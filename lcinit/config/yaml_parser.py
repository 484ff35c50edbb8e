"""libyaml's parser as PyYAML has it, without what PyYAML has in Python.

Whoever imports `yaml` imports a reader, a resolver and constructors in Python, with their regular expressions and
dates: five sixths of the time it takes. The module in C asks for the classes of their errors when it is loaded, and
never for more. So it is given these, with PyYAML's own errors and events. A PyYAML that asks for more is imported as it
is.

This is for a process with one thread: meanwhile there is half a `yaml` that another one could import. And for one that
has no other use for PyYAML: whoever imports `yaml` afterwards can load and dump with it, but it lacks the names of its
parts (`yaml.error`, `yaml.nodes`), and what CSafeLoader raises is a YAMLError, yet not yaml.scanner's ScannerError.
"""

from __future__ import annotations

import sys
from _frozen_importlib import module_from_spec  # importlib's, which imports warnings
from _frozen_importlib_external import PathFinder

from lcinit import log
from lcinit.errors import EX_OSERR, LcinitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_NATIVE = "yaml._yaml"
_TAKEN = ("error", "tokens", "events", "nodes")
_MARKED = {name: f"{name.title()}Error" for name in ("scanner", "parser", "composer", "constructor")}
_UNMARKED = {name: f"{name.title()}Error" for name in ("reader", "emitter", "serializer", "representer")}


class Parser:
    """What `parse(text)` returns has `get_event`, which gives the next of `events`. It raises an `Error`, or where the
    place of it is known a `MarkedError`.
    """

    def __init__(self, native: ModuleType, events: ModuleType, error: ModuleType) -> None:
        self.parse = native.CParser
        self.events = events
        self.Error: type[Exception] = error.YAMLError
        self.MarkedError: type[Exception] = error.MarkedYAMLError


class _Imported:
    """The one that this process has."""

    parser: Parser | None = None


def yaml_parser() -> Parser:
    """The parser, imported once. Raises ImportError without PyYAML, LcinitError where that has no libyaml."""
    if _Imported.parser is None:
        _Imported.parser = _alone() or _with_all()
    return _Imported.parser


def _alone() -> Parser | None:
    if "yaml" in sys.modules or _NATIVE in sys.modules:
        return None  # somebody else uses it
    spec = PathFinder.find_spec("yaml")
    if spec is None:
        return None
    package = module_from_spec(spec)
    sys.modules["yaml"] = package
    try:
        for name in _TAKEN:
            __import__(f"yaml.{name}")
        for names, base in ((_MARKED, package.error.MarkedYAMLError), (_UNMARKED, package.error.YAMLError)):
            for name, error in names.items():
                stand_in = type(sys)(f"yaml.{name}")
                setattr(stand_in, error, _reader_error(base) if name == "reader" else type(error, (base,), {}))
                setattr(package, name, stand_in)
        __import__(_NATIVE)
        return Parser(sys.modules[_NATIVE], package.events, package.error)
    except Exception as error:
        log.debug(f"PyYAML is imported with all that it has: {error}")
        for name in [each for each in sys.modules if each.startswith("yaml.")]:
            del sys.modules[name]
        return None
    finally:
        sys.modules.pop("yaml", None)  # the next one to import it gets its functions, with these parts


def _with_all() -> Parser:
    import yaml

    try:
        __import__(_NATIVE)
    except ImportError:
        raise LcinitError(
            "PyYAML was built without libyaml, and its Python parser is not safe against deep documents",
            hint="install a PyYAML that has yaml.CSafeLoader",
            exit_code=EX_OSERR,
        ) from None
    return Parser(sys.modules[_NATIVE], yaml.events, yaml.error)


def _reader_error(base: type[Exception]) -> type[Exception]:
    """What is raised for a character that YAML does not allow: which, and at which byte."""

    def init(self: Any, name: str, position: int, character: object, _encoding: str, reason: str) -> None:
        Exception.__init__(self, f"{name}: {reason}")
        self.position = position
        self.character = character

    return type("ReaderError", (base,), {"__init__": init})
