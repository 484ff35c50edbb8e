"""`lcinit logs`: what lcinit itself had to say."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call, show_records

_DESCRIPTION = """\
Show lcinit's own messages, which also went to its console. What the guest prints is on the guest's console."""

_EPILOG = """\
The last thousand are kept. Each is one line: time in UTC, level, message; with --json one object a line.

examples:
  lcinit logs -n 20
  lcinit logs -f
"""


def run(args: list[str], program: str = "lcinit logs") -> int:
    """Print them; the exit code. Raises LcinitError."""
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[-f] [-n N]", json=True)
    parser.add_argument("-f", "--follow", action="store_true", help="show those to come too, until ctrl-C")
    parser.add_argument("-n", dest="lines", metavar="N", help="only the last N that are kept")
    options = parser.parse_args(args)
    after = 0
    if options.lines is not None:
        if not (options.lines.isascii() and options.lines.isdigit() and len(options.lines) < 16):
            parser.error(f"-n {options.lines!r} is not a number")
        kept = call(options.socket, "Logs")["records"]
        after = max(0, kept[-1]["seq"] - int(options.lines)) if kept else 0
    from lcinit.tools.report import record_text

    return show_records(
        options.socket,
        "Logs",
        "records",
        as_json=options.json,
        text=record_text,
        after=after,
        follow=options.follow,
    )
