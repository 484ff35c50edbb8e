"""`lcinit check FILE...`: every mistake of configuration files, before a boot finds them."""

from __future__ import annotations

import json
import os
import sys

from lcinit.cli.arguments import tool_parser
from lcinit.config.diagnostics import InvalidFile
from lcinit.config.load import load, read_file
from lcinit.config.schema import CONFIG
from lcinit.config.service_tree import check_service, files_of, is_service
from lcinit.errors import EX_CONFIG, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EPILOG = """\
Prints "FILE: ok" for each right file, and on stderr a line for each mistake:
  FILE:LINE:COLUMN: KEY.PATH: what is wrong; what would be right
A service file is known by its keys, or with --service; a directory stands for all service files in it.

examples:
  lcinit check /mnt/init.yml
  lcinit check --service /srv/guest/etc/lcinit/services

exit status: 0 all files are right, 64 usage, 77 a file may not be read, 78 a file is wrong or missing.
"""


def run(args: list[str], program: str = "lcinit check") -> int:
    """Check each named file; the exit code, 78 when any is wrong. Raises UsageError."""
    what = "Validate configuration and service files as lcinit reads them."
    parser = tool_parser(program, what, _EPILOG, "[--json] [--service] FILE...")
    parser.add_argument("--json", action="store_true", help="print one JSON array of what was found, on stdout")
    parser.add_argument("--service", action="store_true", help="they are service files")
    parser.add_argument("files", metavar="FILE", nargs="+", help="a configuration or service file, or a directory")
    options = parser.parse_args(args)
    results = [(name, _problem(name, options.service)) for given in options.files for name in _files(given)]
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


def _files(given: str) -> list[str]:
    return files_of(given) if os.path.isdir(given) else [given]


def _problem(name: str, service: bool) -> ConfigError | None:
    try:
        if service or is_service(read_file(name), frozenset(CONFIG.fields)):
            check_service(name)
        else:
            load(name)
    except ConfigError as error:
        return error
    return None


def _report(name: str, error: ConfigError | None) -> dict[str, Any]:
    if isinstance(error, InvalidFile):
        problems = [problem.values() for problem in error.problems]
        return {"file": name, "ok": False, "error": None, "problems": problems}
    return {"file": name, "ok": error is None, "error": str(error) if error is not None else None, "problems": []}
