"""Starting lcinit again: under the name of one of its tools, or as the keeper."""

from __future__ import annotations

import os
import sys

import lcinit

TOOLS = frozenset({"overlay", "mount-idmapped", "tolerant", "initctl"})
_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':'); "
    "from lcinit.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
_KEEPER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from lcinit.control.keeper import main; sys.exit(main(sys.argv[1:]))"
)


def program(name: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The argv that runs the tool `name` of this very lcinit, isolated and without `site`."""
    return (sys.executable, "-I", "-S", "-c", _START, ":".join(p for p in sys.path if p), name, *arguments)


def keeper(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The argv of the keeper, but for argv[0]: see systemd.io/ROOT_STORAGE_DAEMONS for the at sign."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(lcinit.__file__)))
    return ("@lcinit", "-I", "-S", "-c", _KEEPER, package, *arguments)
