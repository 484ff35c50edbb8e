"""`lcinit console`: show the guest's console."""

from __future__ import annotations

import sys

from lcinit.cli.arguments import tool_parser
from lcinit.cli.privileges import require_root

_DESCRIPTION = """\
Show the console of the guest that lcinit supervises here: first what it showed last (up to 64 KiB), then what it shows.
What is typed here is typed there."""

_EPILOG = """\
ctrl-] three times within a second detaches; the guest does not notice. Several may look at the console at once, and
the container's manager still does. The console has the size of the terminal that was attached or resized last.

Without a terminal as standard input what comes from there is typed; its end does not detach.

example:
  lcinit console

exit status: 0 detached or the console was closed, 128+N for signal N, 64 usage, 71 there is no console, 77 not root.
"""


def run(args: list[str], program: str) -> int:
    """Show it; the exit status. Raises LcinitError."""
    from lcinit.control.client import PATH

    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[--socket PATH]")
    parser.add_argument("--socket", metavar="PATH", default=PATH, help=f"the control socket ({PATH})")
    options = parser.parse_args(args)
    require_root("look at the guest's console")
    from lcinit.tools.console import console

    code, why = console(options.socket)
    if why:
        print(f"{program}: {why}", file=sys.stderr)
    return code
