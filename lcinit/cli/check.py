"""`lcinit check FILE...`: every mistake of configuration and service files, before a boot finds them."""

from __future__ import annotations

import json
import os
import sys

from lcinit.cli.arguments import tool_parser
from lcinit.config.diagnostics import InvalidFile
from lcinit.config.load import parse, read_file
from lcinit.config.service_tree import check_inline, check_service, files_of, is_service, shipped
from lcinit.errors import EX_CONFIG, ConfigError
from lcinit.service.order import Graph, cycles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lcinit.config.diagnostics import Problem
    from lcinit.config.service_tree import Checked
    from lcinit.config.service_values import Service, ServicePart

_EPILOG = """\
Prints "FILE: ok" for each right file, and on stderr a line for each mistake:
  FILE:LINE:COLUMN: KEY.PATH: what is wrong; what would be right
A service file is known by its keys, or with --service; it is read over the catalogue's file of its name. A directory
stands for all service files in it, which are then held against one another, and against the services of a
configuration that is named: what they require must be there (in the catalogue, or in another file that is named), and
none may start after itself. Of a configuration alone it is told what the guest must have.

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
                missing = checking.missing(name)
                print(f"{name}: ok" + (f", if the guest has the services {', '.join(missing)}" if missing else ""))
            else:
                print(error, file=sys.stderr)
    codes = {error.exit_code for _, error in results if error is not None}
    return 0 if not codes else EX_CONFIG if EX_CONFIG in codes else max(codes)


class _Checking:
    """All that was named: each file by itself, and the services of each directory together with those of the
    configurations.
    """

    def __init__(self, *, services_only: bool) -> None:
        self._services_only = services_only
        self._catalogue = shipped()
        self._errors: dict[str, ConfigError | None] = {}
        self._directories: list[dict[str, Checked]] = []
        self._inline: dict[str, tuple[ServicePart, ...]] = {}
        self._files: set[str] = set()  # services that have a file of their own
        self._wrong: set[str] = set()  # whose file is

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
                name = os.path.basename(path).removesuffix(".yml")
                self._files.add(name)
                self._wrong.add(name)
                checked = check_service(path, data, self._catalogue)
                self._wrong.discard(name)
                return checked
            self._inline[path] = parse(data, path).services or ()
        except ConfigError as error:
            self._errors[path] = error
        return None

    def results(self) -> list[tuple[str, ConfigError | None]]:
        """Each file and what is wrong with it, in their order."""
        problems: dict[str, list[Problem]] = {}
        for files in self._directories or [{}]:
            for path, problem in self._relations(files):
                if problem not in problems.setdefault(path, []):
                    problems[path].append(problem)
        for path, found in problems.items():
            found.sort(key=lambda each: (each.line, each.column))
            self._errors[path] = InvalidFile(path, tuple(found))
        return list(self._errors.items())

    def missing(self, path: str) -> list[str]:
        """The services that a configuration needs to be in the guest, whose files were not named: what its own require,
        and those that it has no command for.
        """
        needed: set[str] = set()
        for part in self._inline.get(path, ()):
            given = dict(part.given)
            needed.update(other for other in given.get("requires", ()) if not self._is_known(other))
            if "command" not in given and part.name not in self._files and self._catalogue(part.name) is None:
                needed.add(part.name)
        return sorted(needed)

    def _is_known(self, name: str) -> bool:
        inline = any(part.name == name for parts in self._inline.values() for part in parts)
        return inline or name in self._files or self._catalogue(name) is not None

    def _relations(self, files: dict[str, Checked]) -> Iterable[tuple[str, Problem]]:
        """The path of a file and what is wrong there between services: these, and those of configurations over them."""
        tells = {name: [each] for name, each in files.items()}
        for path, parts in self._inline.items():
            for part in parts:
                below = next((each[part.name] for each in self._directories if part.name in each), None)
                checked, mistakes = check_inline(path, part, below, self._catalogue)
                tells.setdefault(part.name, []).insert(0, checked)
                if self._directories and part.name not in self._wrong:
                    yield from ((path, mistake) for mistake in mistakes)
        services = {name: each[0].service for name, each in tells.items()}
        for name, service in services.items():
            for other in service.requires:
                if self._directories and not self._is_known(other):
                    right = "write the file of it, or leave it out"
                    yield _told(tells[name], "requires", f"there is no service {other}", right)
        for circle in cycles(Graph(services)):
            what = f"it starts after itself: {' -> '.join((*circle, circle[0]))}"
            for name in circle:
                yield _told(tells[name], _key_of(services[name], circle), what, "leave one of them out")


def _told(by: list[Checked], key: str, what: str, right: str) -> tuple[str, Problem]:
    """A problem of the file that has the last word on a key."""
    said = next((each for each in by if each.says(key)), by[0])
    return said.path, said.problem(key, what, right)


def _key_of(service: Service, circle: tuple[str, ...]) -> str:
    """The key of a service that has it start after another one of the circle."""
    keys = ("requires", "wants", "start_after", "start_before")
    return next((key for key in keys if set(getattr(service, key)) & set(circle)), "start_before")


def _report(name: str, error: ConfigError | None) -> dict[str, Any]:
    if isinstance(error, InvalidFile):
        problems = [problem.values() for problem in error.problems]
        return {"file": name, "ok": False, "error": None, "problems": problems}
    return {"file": name, "ok": error is None, "error": str(error) if error is not None else None, "problems": []}
