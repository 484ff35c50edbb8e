"""`lcinit daemon-reload`: the files of services are read again."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, show_json
from lcinit.control.client import Client
from lcinit.control.services import INTERFACE

_DESCRIPTION = """\
Read the files of all services again, tell what has changed, and act on it: what is new and enabled is started, what is
gone is stopped, what has changed is restarted where its process would be another one."""

_EPILOG = """\
With --dry-run it only tells what it would do. Where a file is wrong nothing is changed, and the exit status is 78.

examples:
  lcinit daemon-reload --dry-run
  lcinit daemon-reload
"""


def run(args: list[str], program: str = "lcinit daemon-reload") -> int:
    """Do it; 0. Raises LcinitError."""
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[--dry-run]", json=True)
    parser.add_argument("--dry-run", action="store_true", help="tell the difference and change nothing")
    options = parser.parse_args(args)
    with Client(options.socket) as client:
        changes = client.wait(f"{INTERFACE}.DaemonReload", dry_run=options.dry_run)["changes"]
    if options.json:
        show_json(changes, indent=2)
        return 0
    from lcinit.tools.service_report import changes_text

    print(changes_text(changes, dry_run=options.dry_run), end="")
    return 0
