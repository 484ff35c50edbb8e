"""`lcinit status`: what a running lcinit and its guest, or its services, are doing."""

from __future__ import annotations

import sys

from lcinit.cli.asking import call, show_json
from lcinit.cli.service_work import ask, service_parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DESCRIPTION = """\
Show the state of the lcinit that supervises this container: the guest's init and what it has, a stop that is under way,
how earlier runs ended, how long each phase took. Where it supervises services, each is a line: its state, since when,
and what there is to say of it; with NAMEs all about these."""

_EPILOG = """\
Run it as root in the container: outside of the guest, unless lcinit supervises services in it. Times are in UTC.
With NAMEs the exit status is 3 where one of them is down, as that of systemctl(1).

examples:
  lcinit status
  lcinit status nginx
  lcinit status --json | python3 -m json.tool
  podman exec NAME lcinit status
"""
EX_DOWN = 3
_DOWN = ("inactive", "failed")


def run(args: list[str], program: str = "lcinit status") -> int:
    """Print it; the exit code. Raises LcinitError."""
    parser = service_parser(program, _DESCRIPTION, _EPILOG, "[--names] [NAME...]", names="*")
    parser.add_argument("--names", dest="only_names", action="store_true", help="the services' names alone")
    options = parser.parse_args(args)
    if options.only_names:
        if options.names or options.json:
            parser.error("--names goes with nothing else")
        for service in ask(options.socket, "List")["services"]:
            print(service["name"])
        return 0
    if options.names:
        return _show_services(options.socket, options.names, as_json=options.json)
    report = call(options.socket, "Status")["status"]
    services = None if report.get("services") is None else ask(options.socket, "List")["services"]
    if options.json:
        show_json(report if services is None else {**report, "service_list": services}, indent=2)
        return 0
    import time

    from lcinit.tools.report import status_text
    from lcinit.tools.service_report import overview_text

    now, width = time.time(), _width()
    print(status_text(report, now, width), end="")
    if services is not None:
        print()
        print(overview_text(services, now, width, colour=_colour()), end="")
    return 0


def _show_services(path: str, names: list[str], *, as_json: bool) -> int:
    services: list[dict[str, Any]] = ask(path, "List", names=names)["services"]
    if as_json:
        show_json(services, indent=2)
    else:
        import time

        from lcinit.tools.service_report import details_text

        texts = [details_text(each, time.time(), _width(), colour=_colour()) for each in services]
        print("\n".join(texts), end="")
    return EX_DOWN if any(each["state"] in _DOWN for each in services) else 0


def _width() -> int:
    import shutil

    return max(40, shutil.get_terminal_size((80, 24)).columns)


def _colour() -> bool:
    """Whether colours are wanted: on a terminal, unless https://no-color.org says no."""
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
