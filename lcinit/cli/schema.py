"""`lcinit schema`: the JSON Schema of a configuration, for editors and other checkers."""

from __future__ import annotations

import json

from lcinit.config.schema import json_schema
from lcinit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_EPILOG = """\
An editor that knows YAML schemas completes and checks with it. `lcinit check` finds more: overlapping id ranges,
keys that contradict each other, numbers that YAML parsers read differently.

example:
  lcinit schema > lcinit.schema.json
"""


def run(args: list[str]) -> int:
    """Print the schema; the exit code. Raises UsageError."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"lcinit schema: {message}", hint="see lcinit schema --help")

    parser = Parser(
        prog="lcinit schema",
        description="Print the JSON Schema (draft 2020-12) of /mnt/init.yml.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="accepted, and changes nothing: the schema is JSON")
    parser.parse_args(args)
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0
