"""`lcinit logs`: what lcinit itself had to say, and what services wrote into files."""

from __future__ import annotations

from lcinit.cli.asking import EX_INTERRUPTED, asking_parser, call, show_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_DESCRIPTION = """\
Show lcinit's own messages, which also went to its console. Where lcinit supervises services, these and what services
write into files (log.to: file or both), merged by time; with NAMEs those of these services alone, lcinit's own being
`lcinit`. What a guest or a service prints on the console is there."""

_EPILOG = """\
Of lcinit's own the last thousand are kept. Each is one line: time in UTC, service, text; with --json one object a line.
Of a service's line the time is that of the piece of output that it begins in.

WHEN is a time that has passed (10m, 1h30m, 2d; units w d h m s), an ISO 8601 date with or without a time, in UTC unless
it says otherwise, or unix seconds. Of services -f begins with the last ten lines, unless -n or --since says otherwise.
The files are read from below the root that the socket is in: --socket /proc/PID/root/run/lcinit/control for those of
the container whose first process is PID.

examples:
  lcinit logs -n 20
  lcinit logs -f
  lcinit logs --since 10m nginx postgresql
  lcinit logs --since 2026-09-21T14:13 --json lcinit
"""


def run(args: list[str], program: str = "lcinit logs") -> int:
    """Print them; the exit code. Raises LcinitError."""
    usage = "[-f] [-n N] [--since WHEN] [NAME...]"
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, usage, json=True)
    parser.add_argument("-f", "--follow", action="store_true", help="show those to come too, until ctrl-C")
    parser.add_argument("-n", dest="lines", metavar="N", help="only the last N that there are")
    parser.add_argument("--since", metavar="WHEN", help="only those of this time or later")
    parser.add_argument("names", metavar="NAME", nargs="*", help="a service, or lcinit")
    options = parser.parse_intermixed_args(args)
    last = None if options.lines is None else _number(parser, options.lines)
    since = None if options.since is None else _moment(parser, options.since)
    from lcinit.tools import service_logs

    services = service_logs.services_of(options.socket)
    if services is None:
        return _show_own(options, last, since)
    if options.follow and last is None and since is None:
        last = service_logs.LATEST
    wish = service_logs.Wish(
        options.names,
        last=last,
        since=None if since is None else int(since * 1e9),
        follow=options.follow,
        as_json=options.json,
    )
    try:
        service_logs.show(options.socket, services, wish)
    except KeyboardInterrupt:
        return EX_INTERRUPTED
    return 0


def _show_own(options: Namespace, last: int | None, since: float | None) -> int:
    """Where there are no services, and no names but lcinit's own."""
    others = [name for name in options.names if name != "lcinit"]
    if others:
        from lcinit.errors import EX_UNAVAILABLE, LcinitError

        raise LcinitError(
            f"there is no service {others[0]}: the lcinit that runs here supervises none",
            hint="without a NAME its own messages are shown; the guest's logs are in the guest",
            exit_code=EX_UNAVAILABLE,
        )
    after = 0
    if last is not None:
        kept = call(options.socket, "Logs")["records"]
        after = max(0, kept[-1]["seq"] - last) if kept else 0
    from lcinit.tools.report import record_text

    return show_records(
        options.socket,
        "Logs",
        "records",
        as_json=options.json,
        text=record_text,
        wanted=lambda record: since is None or record["time"] >= since,
        after=after,
        follow=options.follow,
    )


def _number(parser: ArgumentParser, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        parser.error(f"-n {text!r} is not a number")
    return int(text)


def _moment(parser: ArgumentParser, text: str) -> float:
    import time

    from lcinit.tools.service_logs import moment_of

    try:
        return moment_of(text, time.time())
    except (ValueError, OverflowError):
        parser.error(f"--since {text!r} is neither a time that has passed (10m) nor a date nor unix seconds")
