"""`lcinit events`: what happened to the guest."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, show_records

_DESCRIPTION = """\
Show what happened to the guest since lcinit started: starts and ends, stop requests and who made them, kills."""

_EPILOG = """\
The last thousand are kept. Each is one line: time in UTC, number, kind, facts; with --json one object a line.

examples:
  lcinit events
  lcinit events -f --json
  lcinit events --after 17
"""


def run(args: list[str], program: str = "lcinit events") -> int:
    """Print them; the exit code. Raises LcinitError."""
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[-f] [--after N]", json=True)
    parser.add_argument("-f", "--follow", action="store_true", help="show those to come too, until ctrl-C")
    parser.add_argument("--after", metavar="N", default="0", help="only those with a greater number")
    options = parser.parse_args(args)
    if not (options.after.isascii() and options.after.isdigit() and len(options.after) < 16):
        parser.error(f"--after {options.after!r} is not a number")
    from lcinit.tools.report import event_text

    return show_records(
        options.socket,
        "Events",
        "events",
        as_json=options.json,
        text=event_text,
        after=int(options.after),
        follow=options.follow,
    )
