"""`lcinit events`: what happened to the guest, or to services."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, show_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DESCRIPTION = """\
Show what happened to the guest and its services since lcinit started: starts and ends, requests and who made them,
kills. With NAMEs only what was about these services."""

_EPILOG = """\
The last thousand are kept. Each is one line: time in UTC, number, kind, facts; with --json one object a line.

examples:
  lcinit events
  lcinit events -f --json
  lcinit events --after 17
  lcinit events -f nginx
"""


def run(args: list[str], program: str = "lcinit events") -> int:
    """Print them; the exit code. Raises LcinitError."""
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[-f] [--after N] [NAME...]", json=True)
    parser.add_argument("-f", "--follow", action="store_true", help="show those to come too, until ctrl-C")
    parser.add_argument("--after", metavar="N", default="0", help="only those with a greater number")
    parser.add_argument("names", metavar="NAME", nargs="*", help="a service")
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
        wanted=_about(frozenset(options.names)),
        after=int(options.after),
        follow=options.follow,
    )


def _about(names: frozenset[str]) -> Callable[[dict[str, Any]], bool]:
    """Whether an event is about one of these services; every event, where none is named."""

    def wanted(event: dict[str, Any]) -> bool:
        facts = event["facts"]
        return not names or facts.get("service") in names or not names.isdisjoint(facts.get("services") or ())

    return wanted
