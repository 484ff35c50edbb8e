"""`lcinit schema`: the JSON Schema of a configuration, for editors and other checkers."""

from __future__ import annotations

import json

from lcinit.cli.arguments import tool_parser
from lcinit.config.schema import json_schema
from lcinit.config.service_schema import service_json_schema

_EPILOG = """\
An editor that knows YAML schemas completes and checks with it. `lcinit check` finds more: overlapping id ranges,
keys that contradict each other, numbers that YAML parsers read differently.

example:
  lcinit schema > lcinit.schema.json; lcinit schema --service > service.schema.json

exit status: 0, or 64 for a usage error.
"""


def run(args: list[str], program: str = "lcinit schema") -> int:
    """Print the schema; the exit code. Raises UsageError."""
    what = "Print the JSON Schema (draft 2020-12) of /mnt/init.yml, or of a service file."
    parser = tool_parser(program, what, _EPILOG, "[--service] [--json]")
    parser.add_argument("--service", action="store_true", help="that of a service file")
    parser.add_argument("--json", action="store_true", help="accepted, and changes nothing: the schema is JSON")
    options = parser.parse_args(args)
    print(json.dumps(service_json_schema() if options.service else json_schema(), indent=2, ensure_ascii=False))
    return 0
