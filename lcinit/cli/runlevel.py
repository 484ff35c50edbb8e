"""`lcinit runlevel`, and `runlevel` as runlevel(8): the runlevel before and the present one."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser
from lcinit.cli.asking import show_json
from lcinit.control.client import PATH, Client, NoServices, NotServed
from lcinit.control.services import INTERFACE

_DESCRIPTION = """\
Print the runlevel before, N for none, and the present one."""

_EPILOG = """\
Where nobody knows it prints "unknown". `telinit N` goes to another one.

example:
  runlevel
  lcinit runlevel --json

exit status: 0, 1 it is not known, 64 usage, 71 lcinit cannot be asked, 77 permission.
"""
EX_UNKNOWN = 1


def run(args: list[str], program: str = "lcinit runlevel") -> int:
    """Print them; the exit code. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[--socket PATH] [--json]")
    parser.add_argument("--socket", metavar="PATH", default=PATH, help=f"the control socket ({PATH})")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(args)
    known = _ask(options.socket)
    if options.json:
        show_json(known or {"runlevel": None, "previous": None})
    elif known is None:
        print("unknown")
    else:
        print(known["previous"], known["runlevel"])
    return 0 if known is not None else EX_UNKNOWN


def _ask(path: str) -> dict[str, str] | None:
    """What GetRunlevel says; None where nobody serves that. Raises LcinitError."""
    try:
        with Client(path) as client:
            return client.call(f"{INTERFACE}.GetRunlevel")
    except (NotServed, NoServices):
        return None
