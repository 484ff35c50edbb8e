"""lcinit's code in one file beside the package, for a boot root: a hundred modules are found and read in one go.

`lcinit image` writes it from the .pyc files (PEP 552) that it has compiled; elsewhere there is none, and modules are
imported as usual; so is a module whose .pyc file is gone or of another size by then. It begins with the magic number
of those files. Then comes, in the form of marshal, the version of lcinit, the size of the file, and an index, name to
(start and end in the file, whether it is a package); and then the code.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib's, which imports warnings
from _frozen_importlib_external import MAGIC_NUMBER

import lcinit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    Index = dict[str, tuple[int, int, bool]]

NAME = "lcinit.code"
SIZE = 4  # bytes of the index's size, little endian, after the magic number
_START = len(MAGIC_NUMBER) + SIZE
PYC_HEADER = 16  # bytes of a .pyc file before its code

_index: Index = {}
_site = ""


class Finder:
    """Finds what the file has."""

    @staticmethod
    def find_spec(name: str, *_where: object) -> ModuleSpec | None:
        """Its specification; None for what is not in the file."""
        if name not in _index:
            return None
        start, end, package = _index[name]
        directory, _, stem = f"{_site}/{name.replace('.', '/')}".rpartition("/")
        if package:
            directory, stem = f"{directory}/{stem}", "__init__"
        cached = f"{directory}/__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"
        try:
            if os.stat(cached).st_size != PYC_HEADER + end - start:
                return None
        except OSError:
            return None
        spec = ModuleSpec(name, _loader, origin=f"{directory}/{stem}.py")  # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = cached
        if package:
            spec.submodule_search_locations = [directory]
        return spec


class Loader:
    """Runs modules whose code `code` gives by their names, as bytes in the form of marshal."""

    def __init__(self, code: Callable[[str], bytes]) -> None:
        self._code = code

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """The usual one."""
        return

    def exec_module(self, module: ModuleType) -> None:
        """Run its code."""
        exec(marshal.loads(self._code(module.__name__)), module.__dict__)  # noqa: S102 - it is ours


def use() -> None:
    """Import from the file that is beside the package, if there is one for this interpreter and this lcinit."""
    global _index, _site
    site = os.path.dirname(os.path.dirname(lcinit.__file__))
    try:
        fd = os.open(f"{site}/{NAME}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        head = os.read(fd, _START)
        if head[: len(MAGIC_NUMBER)] != MAGIC_NUMBER:
            return
        version, size, index = marshal.loads(os.read(fd, int.from_bytes(head[len(MAGIC_NUMBER) :], "little")))
        whole = size == os.fstat(fd).st_size
    except (OSError, EOFError, ValueError, TypeError):
        return  # cut off
    finally:
        os.close(fd)
    if whole and version == lcinit.__version__:
        _index, _site = index, site
        sys.meta_path.insert(0, Finder)


def _read(name: str) -> bytes:
    """A module's code. The file is opened again for each: PID 1 closes what it was started with."""
    start, end, _ = _index[name]
    fd = os.open(f"{_site}/{NAME}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, end - start, start)
    finally:
        os.close(fd)


_loader = Loader(_read)


def code(name: str) -> tuple[str, bytes] | None:
    """The path of a module and its code; None for what is not in the file. Raises OSError."""
    spec = Finder.find_spec(name)
    return None if spec is None else (spec.origin or "", _read(name))


def forget() -> None:
    """Import no more from it."""
    if Finder in sys.meta_path:
        sys.meta_path.remove(Finder)
    _index.clear()
