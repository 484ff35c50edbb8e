"""Importing modules straight from their .pyc files (PEP 552).

A PID 1 imports a hundred and fifty modules, and the interpreter's own finders and loaders, which are for every case and
in Python, take as long for that as the modules themselves. This one knows one case: a module of a package, in the
package's one directory, whose .pyc file stands for its source. Whatever else there is is left to the others.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib's, which imports warnings
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

HEADER = 16  # bytes of a .pyc file before its code
_UNCHECKED = MAGIC_NUMBER + (1).to_bytes(4, "little")  # it stands for its source, whatever that is by now
_TAIL = f".{sys.implementation.cache_tag}.pyc"
_FILE = os.O_RDONLY | os.O_CLOEXEC


class Finder:
    """Finds a module of a package."""

    @staticmethod
    def find_spec(name: str, where: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        """Its specification; None for what is not this one's case."""
        return None if where is None else compiled(name, where)


class Loader:
    """Runs modules whose code `code` gives for their specification: bytes in the form of marshal."""

    def __init__(self, code: Callable[[ModuleSpec], bytes | memoryview]) -> None:
        self._code = code

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """The usual one."""
        return

    def exec_module(self, module: ModuleType) -> None:
        """Run its code."""
        assert module.__spec__ is not None
        exec(marshal.loads(self._code(module.__spec__)), module.__dict__)  # noqa: S102 - what the interpreter would run


def use() -> None:
    """Import so from here on."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)


def compiled(name: str, where: Sequence[str]) -> ModuleSpec | None:
    """The specification of a module with the path `where` of its package, if its .pyc file is as good as its source.

    `loader_state` is that file. Not under -O, which has .pyc files of its own.
    """
    if len(where) != 1 or sys.flags.optimize:
        return None
    directory, stem = where[0], name.rpartition(".")[2]
    spec = _specification(name, directory, stem)
    if spec is None:
        directory = f"{directory}/{stem}"
        spec = _specification(name, directory, "__init__")
        if spec is not None:
            spec.submodule_search_locations = [directory]
    return spec


def _specification(name: str, directory: str, stem: str) -> ModuleSpec | None:
    origin, cached = f"{directory}/{stem}.py", f"{directory}/__pycache__/{stem}{_TAIL}"
    try:
        data = _read(cached)
        stands = data[: len(_UNCHECKED)] == _UNCHECKED or data[:HEADER] == _by_time(os.stat(origin))
    except OSError:
        return None
    if not stands or len(data) <= HEADER:
        return None
    spec = ModuleSpec(name, _loader, origin=origin, loader_state=data)  # type: ignore[arg-type]
    spec.has_location = True
    spec.cached = cached
    return spec


def _read(path: str) -> bytes:
    fd = os.open(path, _FILE)
    try:
        return os.read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _by_time(source: os.stat_result) -> bytes:
    """What a .pyc file begins with whose code is known for this source's by its time and size."""
    numbers = (0, int(source.st_mtime), source.st_size)
    return MAGIC_NUMBER + b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in numbers)


def _once(spec: ModuleSpec) -> memoryview:
    """The code in the file, which is kept no longer."""
    data, spec.loader_state = spec.loader_state, None
    return memoryview(data)[HEADER:]


_loader = Loader(_once)
