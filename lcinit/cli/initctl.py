"""`initctl`: the client of /dev/initctl, and with `serve` its server for another init."""

from __future__ import annotations

from lcinit.cli import telinit
from lcinit.cli.arguments import tool_parser

_SERVE_DESCRIPTION = """\
Make the FIFO and turn the runlevels 0 and 6 that arrive on it into the signals that ask an init for poweroff, halt
and reboot."""

_SERVE_EPILOG = """\
Which signals those are is found from the init's program; --poweroff, --halt and --reboot override it. A request is held
until the init catches or blocks the signal, so that one that has just started does not lose it. A FIFO that somebody
removes or replaces is made again.

It serves until the init ends, or SIGTERM, SIGINT or SIGHUP comes; the FIFO is removed then.

example:
  initctl serve --pid 4321 --fifo /srv/guest/dev/initctl --poweroff SIGRTMIN+4

exit status: 0 the init has ended or a signal came, 64 usage, 71 the FIFO cannot be made, 77 permission.
"""


def run(args: list[str], program: str = "initctl") -> int:
    """The client, or the server when the first argument is `serve`. Raises LcinitError."""
    if args[:1] == ["serve"]:
        return _serve(args[1:], f"{program} serve")
    return telinit.run(args, program)


def _serve(args: list[str], program: str) -> int:
    from lcinit.tools.initctl_client import FIFOS
    from lcinit.tools.initctl_server import serve

    usage = "[--pid PID] [--fifo PATH] [--poweroff SIG] [--halt SIG] [--reboot SIG]"
    parser = tool_parser(program, _SERVE_DESCRIPTION, _SERVE_EPILOG, usage)
    parser.add_argument("--pid", metavar="PID", default="1", help="the init that gets the signals (1)")
    parser.add_argument("--fifo", metavar="PATH", default=FIFOS[1], help=f"where to make the FIFO ({FIFOS[1]})")
    for word in ("poweroff", "halt", "reboot"):
        parser.add_argument(f"--{word}", metavar="SIG", help=f"the signal that means {word}")
    options = parser.parse_args(args)
    if not (options.pid.isascii() and options.pid.isdigit() and 0 < int(options.pid) < 2**22):
        parser.error(f"--pid {options.pid!r} is no PID")
    words = {word: getattr(options, word) for word in ("poweroff", "halt", "reboot")}
    return serve(int(options.pid), options.fifo, {word: name for word, name in words.items() if name is not None})
