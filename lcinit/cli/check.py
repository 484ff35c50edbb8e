"""`lcinit check FILE...`: every mistake of configuration and service files, before a boot finds them."""

from __future__ import annotations

import json
import os
import sys

from lcinit.cli.arguments import tool_parser
from lcinit.config.diagnostics import InvalidFile
from lcinit.config.load import parse, read_file
from lcinit.config.service_tree import check_service, files_of, is_service, shipped
from lcinit.errors import EX_CONFIG, ConfigError
from lcinit.service.order import Graph, cycles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lcinit.config.service_tree import Checked

_EPILOG = """\
Prints "FILE: ok" for each right file, and on stderr a line for each mistake:
  FILE:LINE:COLUMN: KEY.PATH: what is wrong; what would be right
A service file is known by its keys, or with --service; it is read over the catalogue's file of its name. A directory
stands for all service files in it, which are then held against one another: what they require must be there (in the
catalogue, or in another file that is named), and none may start after itself.

examples:
  lcinit check /mnt/init.yml
  lcinit check /mnt/init.yml /mnt/root/etc/lcinit/services

exit status: 0 all files are right, 64 usage, 77 a file may not be read, 78 a file is wrong or missing.
"""


def run(args: list[str], program: str = "lcinit check") -> int:
    """Check each named file; the exit code, 78 when any is wrong. Raises UsageError, ConfigError."""
    what = "Validate configuration and service files as lcinit reads them."
    parser = tool_parser(program, what, _EPILOG, "[--json] [--service] FILE...")
    parser.add_argument("--json", action="store_true", help="print one JSON array of what was found, on stdout")
    parser.add_argument("--service", action="store_true", help="they are service files")
    parser.add_argument("files", metavar="FILE", nargs="+", help="a configuration or service file, or a directory")
    options = parser.parse_args(args)
    checking = _Checking(services_only=options.service)
    for given in options.files:
        checking.take(given)
    results = checking.results()
    if options.json:
        print(json.dumps([_report(name, error) for name, error in results], indent=2))
    else:
        for name, error in results:
            if error is None:
                print(f"{name}: ok")
            else:
                print(error, file=sys.stderr)
    codes = {error.exit_code for _, error in results if error is not None}
    return 0 if not codes else EX_CONFIG if EX_CONFIG in codes else max(codes)


class _Checking:
    """All that was named: each file by itself, and the services of each directory together."""

    def __init__(self, *, services_only: bool) -> None:
        self._services_only = services_only
        self._catalogue = shipped()
        self._errors: dict[str, ConfigError | None] = {}
        self._directories: list[dict[str, Checked]] = []
        self._known: set[str] = set()

    def take(self, given: str) -> None:
        """Check a file, or those of a directory."""
        if not os.path.isdir(given):
            self._check(given, service=self._services_only)
            return
        try:
            paths = files_of(given)
        except ConfigError as error:
            self._errors[given] = error
            return
        if not paths:
            self._errors[given] = ConfigError(f"{given}: there is no service file here", hint="name them NAME.yml")
        found = [self._check(path, service=True) for path in paths]
        self._directories.append({each.service.name: each for each in found if each is not None})

    def _check(self, path: str, *, service: bool) -> Checked | None:
        self._errors[path] = None
        try:
            data = read_file(path)
            if service or is_service(path, data):
                self._known.add(os.path.basename(path).removesuffix(".yml"))
                return check_service(path, data, self._catalogue)
            self._known.update(part.name for part in parse(data, path).services or ())
        except ConfigError as error:
            self._errors[path] = error
        return None

    def results(self) -> list[tuple[str, ConfigError | None]]:
        """Each file and what is wrong with it, in their order."""
        for checked in self._directories:
            for name, error in self._relations(checked):
                self._errors[checked[name].path] = error
        return list(self._errors.items())

    def _relations(self, checked: dict[str, Checked]) -> Iterable[tuple[str, ConfigError]]:
        for name, each in checked.items():
            for other in each.service.requires:
                if other not in self._known and self._catalogue(other) is None:
                    right = "write the file of it, or leave it out"
                    yield name, each.invalid("requires", f"there is no service {other}", right)
        graph = Graph({name: each.service for name, each in checked.items()})
        for circle in cycles(graph):
            shown = " -> ".join((*circle, circle[0]))
            for name in circle:
                what = f"it starts after itself: {shown}"
                yield name, checked[name].invalid(_key_of(checked, name, circle), what, "leave one of them out")


def _key_of(checked: dict[str, Checked], name: str, circle: tuple[str, ...]) -> str:
    """The key of a service that has it start after another one of the circle."""
    service = checked[name].service
    keys = ("requires", "wants", "start_after", "start_before")
    return next((key for key in keys if set(getattr(service, key)) & set(circle)), "start_before")


def _report(name: str, error: ConfigError | None) -> dict[str, Any]:
    if isinstance(error, InvalidFile):
        problems = [problem.values() for problem in error.problems]
        return {"file": name, "ok": False, "error": None, "problems": problems}
    return {"file": name, "ok": error is None, "error": str(error) if error is not None else None, "problems": []}
