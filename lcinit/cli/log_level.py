"""`lcinit log-level`: how much a running lcinit says."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call, show_json

_DESCRIPTION = """\
Print the level from which on lcinit logs, or set it."""

_EPILOG = """\
LEVEL is debug, info, warning or error. It holds until lcinit ends; the configuration has log.level.

examples:
  lcinit log-level
  lcinit log-level debug
"""


def run(args: list[str], program: str = "lcinit log-level") -> int:
    """Print or set it; 0. Raises LcinitError."""
    from lcinit.log import LEVELS

    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[LEVEL]", json=True)
    parser.add_argument("level", metavar="LEVEL", nargs="?", choices=tuple(LEVELS), help=", ".join(LEVELS))
    options = parser.parse_args(args)
    if options.level is not None:
        call(options.socket, "SetLogLevel", level=options.level)
        return 0
    level = call(options.socket, "Status")["status"]["log_level"]
    if options.json:
        show_json({"log_level": level})
    else:
        print(level)
    return 0
