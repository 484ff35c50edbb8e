"""`lcinit wait`: until services are up, or down."""

from __future__ import annotations

from lcinit.cli.service_work import service_parser, show_results, wait_for

_DESCRIPTION = """\
Wait until each of these services is ready, or has failed to be; or until each is stopped."""

_EPILOG = """\
Nothing is started or stopped. With --timeout it gives up after so many seconds.

examples:
  lcinit wait --for ready postgresql
  lcinit wait --for stopped --timeout 30 nginx postgresql
"""


def run(args: list[str], program: str = "lcinit wait") -> int:
    """Do it; the exit code. Raises LcinitError."""
    parser = service_parser(program, _DESCRIPTION, _EPILOG, "[--for STATE] [--timeout T] NAME...")
    parser.add_argument(
        "--for",
        dest="state",
        metavar="STATE",
        choices=("ready", "stopped"),
        default="ready",
        help="ready or stopped (ready)",
    )
    parser.add_argument("--timeout", metavar="T", help="seconds after which it gives up")
    options = parser.parse_args(args)
    timeout = None
    if options.timeout is not None:
        try:
            timeout = float(options.timeout)
        except ValueError:
            timeout = -1.0
        if not 0 <= timeout < 2**31:
            parser.error(f"--timeout {options.timeout!r} is not a number of seconds")
    results = wait_for(options.socket, options.names, options.state, program, timeout)
    method = "Stop" if options.state == "stopped" else "Start"
    return show_results(results, method, program, as_json=options.json)
