"""Modules that are read now and run when they are first imported.

Whatever PID 1 may import it must have read before its root changes. Much of that it needs seldom, or only its children
do: of such a module the code is held as bytes, for a fraction of the time and of the memory that importing it takes.
"""

from __future__ import annotations

import marshal
import sys
from _frozen_importlib import ModuleSpec  # importlib's, which imports warnings
from _frozen_importlib_external import PathFinder

from lcinit.errors import SystemFailure
from lcinit.imports import HEADER, Loader, compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import SourceFileLoader

_held: dict[str, tuple[str, bytes]] = {}


class Finder:
    """Finds what is held."""

    @staticmethod
    def find_spec(name: str, *_where: object) -> ModuleSpec | None:
        """Its specification; None for what is not held."""
        if name not in _held:
            return None
        spec = ModuleSpec(name, _loader, origin=_held[name][0])  # type: ignore[arg-type]
        spec.has_location = True
        return spec


_loader = Loader(lambda spec: _held.pop(spec.name)[1])


def hold(*names: str) -> None:
    """Read modules for later imports; their packages are imported now. What they import themselves must be imported or
    held as well, once imports are refused. Raises ImportError, SystemFailure.
    """
    for name in names:
        if name not in sys.modules and name not in _held:
            package = name.rpartition(".")[0]
            if package:
                __import__(package)
            try:
                _held[name] = _read(name, sys.modules[package].__path__ if package else sys.path)
            except OSError as error:
                raise SystemFailure.from_os_error(f"read the module {name}", error) from error
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)


def names() -> frozenset[str]:
    """Of the modules that are held."""
    return frozenset(_held)


def _read(name: str, where: Sequence[str]) -> tuple[str, bytes]:
    """The path of a module, and its code: from its .pyc file, or compiled where that does not stand for the source."""
    spec = compiled(name, where)
    if spec is not None:
        return spec.origin or "", spec.loader_state[HEADER:]
    spec = PathFinder.find_spec(name, where)
    if spec is None:
        raise ImportError(f"there is no module {name}")
    loader: SourceFileLoader = spec.loader  # type: ignore[assignment]
    return spec.origin or "", marshal.dumps(loader.get_code(name))
