"""Starting lcinit again: under the name of one of its tools, as the keeper, or as the reader of service files."""

from __future__ import annotations

import os
import sys

import lcinit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = frozenset({"overlay", "mount-idmapped", "tolerant", "initctl"})
_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':'); "
    "from lcinit.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
_READER = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':'); "
    "from lcinit.service.reader_process import main; main(sys.argv[1:])"
)
_KEEPER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from lcinit.control.keeper import main; sys.exit(main(sys.argv[1:]))"
)


def program(name: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The argv that runs the tool `name` of this very lcinit, isolated and without `site`."""
    return (sys.executable, "-I", "-S", "-c", _START, ":".join(p for p in sys.path if p), name, *arguments)


def reader(configuration: str | None) -> list[str]:
    """The argv of a reader of service files, for a configuration's path. To be made before imports are refused."""
    rest = () if configuration is None else (configuration,)
    return [sys.executable, "-I", "-S", "-c", _READER, ":".join(p for p in sys.path if p), *rest]


def tool(argv: tuple[str, ...], path: str, main: Callable[[list[str]], int]) -> Callable[[], int] | None:
    """The tool of ours that a command of the boot root means, as a function; None when it means another program.

    It does when a search of `path` finds a link to this very lcinit, or nothing: then there are no links, as after an
    installation by pip. As a function it needs no interpreter of its own, which would take longer than its work.
    `main` is the program's: it takes an argv and returns the exit code.
    """
    name = argv[0].rpartition("/")[2]
    if name not in TOOLS:
        return None
    found = [argv[0]] if "/" in argv[0] else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    program = next((each for each in found if os.access(each, os.X_OK)), None)
    if program is not None and os.path.realpath(program) != os.path.realpath(sys.argv[0]):
        return None
    if program is None and "/" in argv[0]:
        return None
    return lambda: main([name, *argv[1:]])


def keeper(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The argv of the keeper, but for argv[0]: see systemd.io/ROOT_STORAGE_DAEMONS for the at sign."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(lcinit.__file__)))
    return ("@lcinit", "-I", "-S", "-c", _KEEPER, package, *arguments)
