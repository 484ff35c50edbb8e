"""Modules that are read now and run when they are first imported.

Whatever PID 1 may import it must have read before its root changes. Much of that it needs seldom, or only its children
do: of such a module the code is held as bytes, for a fraction of the time and of the memory that importing it takes.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib's, which imports warnings
from _frozen_importlib_external import MAGIC_NUMBER, PathFinder

from lcinit import archive
from lcinit.archive import PYC_HEADER, Loader
from lcinit.errors import SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import SourceFileLoader

_UNCHECKED = MAGIC_NUMBER + (1).to_bytes(4, "little")  # it stands for its source, whatever that is by now

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


_loader = Loader(lambda name: _held.pop(name)[1])


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
                _held[name] = archive.code(name) or _read(name, package)
            except OSError as error:
                raise SystemFailure.from_os_error(f"read the module {name}", error) from error
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)


def names() -> frozenset[str]:
    """Of the modules that are held."""
    return frozenset(_held)


def _read(name: str, package: str) -> tuple[str, bytes]:
    spec = PathFinder.find_spec(name, sys.modules[package].__path__ if package else None)
    if spec is None:
        raise ImportError(f"there is no module {name}")
    return spec.origin or "", _code(spec)


def _code(spec: ModuleSpec) -> bytes:
    """As it is in its .pyc file (PEP 552), or compiled where that is not there or not of this source."""
    loader: SourceFileLoader = spec.loader  # type: ignore[assignment]
    if spec.cached is not None and spec.origin is not None:
        try:
            data = loader.get_data(spec.cached)
            if data[: len(_UNCHECKED)] == _UNCHECKED or data[:PYC_HEADER] == _by_time(os.stat(spec.origin)):
                return data[PYC_HEADER:]
        except OSError:
            pass
    return marshal.dumps(loader.get_code(spec.name))


def _by_time(source: os.stat_result) -> bytes:
    """What a .pyc file begins with whose code is known for this source's by its time and size."""
    numbers = (0, int(source.st_mtime), source.st_size)
    return MAGIC_NUMBER + b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in numbers)
