"""Writes the file that `lcinit.archive` imports from."""

from __future__ import annotations

import marshal
import os

import lcinit
from lcinit.archive import NAME, PYC_HEADER, SIZE
from lcinit.errors import SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.archive import Index

_OF_CLI = ("__init__", "init", "main", "privileges")  # the others are commands for a shell
_LEFT_OUT = ("tools", "data")


def write(site: str, tag: str) -> str:
    """Write it beside the package in the directory `site`, from the .pyc files there of the interpreter `tag`, such as
    cpython-311: its path. Raises SystemFailure.
    """
    path = os.path.join(site, NAME)
    try:
        _write(path, site, tag)
    except OSError as error:
        raise SystemFailure.from_os_error(f"write {path}", error) from error
    return path


def _write(path: str, site: str, tag: str) -> None:
    index: Index = {}
    parts: list[bytes] = []
    magic = b""
    size = 0
    for name, is_package, compiled in _modules(site, tag):
        with open(compiled, "rb") as file:
            data = file.read()
        magic, code = data[:4], data[PYC_HEADER:]
        index[name] = (size, size + len(code), is_package)
        parts.append(code)
        size += len(code)
    head = _head(index, 0, size)
    head = _head(index, len(magic) + SIZE + len(head), size)
    with open(path, "wb") as file:
        file.write(b"".join([magic, len(head).to_bytes(SIZE, "little"), head, *parts]))
    os.chmod(path, 0o644)


def _head(index: Index, start: int, size: int) -> bytes:
    """What comes before `size` bytes of code that begin at `start` of the file; as long for every start."""
    moved = {name: (start + first, start + end, package) for name, (first, end, package) in index.items()}
    return marshal.dumps((lcinit.__version__, start + size, moved), 2)


def _modules(site: str, tag: str) -> list[tuple[str, bool, str]]:
    """Name, whether it is a package, and compiled file of each module that is to be in it."""
    found = []
    for directory, directories, names in os.walk(os.path.join(site, "lcinit")):
        directories[:] = sorted(each for each in directories if each != "__pycache__")
        package = os.path.relpath(directory, site).replace("/", ".")
        for name in sorted(names):
            stem, dot, extension = name.rpartition(".")
            if extension != "py" or not _wanted(package, stem):
                continue
            is_package = stem == "__init__"
            full = package if is_package else f"{package}.{stem}"
            found.append((full, is_package, os.path.join(directory, "__pycache__", f"{stem}{dot}{tag}.pyc")))
    return found


def _wanted(package: str, stem: str) -> bool:
    """PID 1 and its children may import it. Of `lcinit` itself the package is there before the file is read."""
    if package == "lcinit":
        return stem not in ("__init__", "__main__", "archive")
    if package == "lcinit.cli":
        return stem in _OF_CLI
    return package.split(".")[1] not in _LEFT_OUT
