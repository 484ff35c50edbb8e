"""`lcinit status`: what a running lcinit and its guest are doing."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call, show_json

_DESCRIPTION = """\
Show the state of the lcinit that supervises the guest of this container: the guest's init and what it has, a stop that
is under way, how earlier runs ended, how long each phase took."""

_EPILOG = """\
Run it as root in the container, outside of the guest. Times are in UTC.

examples:
  lcinit status
  lcinit status --json | python3 -m json.tool
  podman exec NAME lcinit status
"""


def run(args: list[str], program: str = "lcinit status") -> int:
    """Print it; 0. Raises LcinitError."""
    options = asking_parser(program, _DESCRIPTION, _EPILOG, json=True).parse_args(args)
    report = call(options.socket, "Status")["status"]
    if options.json:
        show_json(report, indent=2)
        return 0
    import shutil
    import time

    from lcinit.tools.report import status_text

    print(status_text(report, time.time(), max(40, shutil.get_terminal_size((80, 24)).columns)), end="")
    return 0
