"""`lcinit doctor`: what this kernel and container allow, and what to do where they do not."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser

_DESCRIPTION = """\
Tell what this kernel, container and privilege allow, one line each: ok; weaker, where lcinit works all the same; or
missing. Below each that is not ok stands what to do about it."""

_EPILOG = """\
Nothing is changed: what must be tried is tried in a child with namespaces of its own that ends at once. Run it where
lcinit is to run, in the container and as its root: outside it answers for the outside.

With --config the plan of that file is judged too.

examples:
  lcinit doctor
  lcinit doctor --json | python3 -m json.tool

exit status: 0 a handoff with an id map would work here, 64 usage, 71 it would not, 78 the plan of FILE is refused.
"""


def run(args: list[str], program: str = "lcinit doctor") -> int:
    """Print the findings; the exit code. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[--json] [--config FILE]")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--config", metavar="FILE", help="judge the plan of this configuration too")
    options = parser.parse_args(args)
    import json
    import shutil

    from lcinit.tools import doctor
    from lcinit.tools.doctor_verdicts import findings

    examined = doctor.examine(options.config)
    found = findings(examined)
    code = doctor.exit_code(examined, found, config_given=options.config is not None)
    if options.json:
        print(json.dumps(doctor.as_data(found, code), indent=2))
    else:
        print(doctor.as_text(found, shutil.get_terminal_size((80, 24)).columns), end="")
    return code
