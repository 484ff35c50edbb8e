"""`telinit`, `initctl RUNLEVEL`, and `init RUNLEVEL` where it is not PID 1: ask the init over its FIFO."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser
from lcinit.control.initctl import DATA_SIZE, INIT_CMD_SETENV, RUNLEVELS, Request, runlevel_request
from lcinit.tools.initctl_client import send

_DESCRIPTION = """\
Ask the init of this container, or of the one whose FIFO is named, for a runlevel."""

_EPILOG = """\
RUNLEVEL is one character:
  0              power off
  1, s, S        single user
  2, 3, 4, 5     the runlevel of that number
  6              reboot
  a, b, c        the on-demand entries of inittab
  q, Q           read the configuration again
  u, U           start init anew in place
  7, 8, 9        runlevels without a meaning of their own

What an init makes of it is its own affair. A lcinit that supervises services understands all but a, b, c, 7, 8 and 9;
a guest that PID 1 was handed to understands 0 and 6 through lcinit; a systemd of version 255 or older understands all
but a, b and c.

The FIFO is the first of /run/initctl and /dev/initctl that is one. From outside a container name it through the
container's first process: its links are then followed inside the container's root.

`initctl serve` is the other end, for an init that has none; `initctl serve --help` tells about it.

examples:
  {program} 0
  {program} --fifo /proc/1234/root/dev/initctl 6

exit status: 0 the request was handed over, 64 usage, 71 no init took it, 77 permission.
"""


def run(args: list[str], program: str = "telinit") -> int:
    """Send it; 0. Raises LcinitError."""
    parser = tool_parser(
        program,
        _DESCRIPTION,
        _EPILOG.format(program=program),
        "[--fifo PATH] [-t SECONDS] [-e NAME[=VALUE]]... [RUNLEVEL]",
    )
    parser.add_argument("--fifo", metavar="PATH", help="the FIFO of the init that is meant")
    parser.add_argument("-t", dest="seconds", metavar="SECONDS", default="0", help="time between SIGTERM and SIGKILL")
    parser.add_argument(
        "-e",
        dest="variables",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="set or unset an INIT_... variable of the init first",
    )
    parser.add_argument("runlevel", metavar="RUNLEVEL", nargs="?", help=f"one of {RUNLEVELS}")
    options = parser.parse_args(args)
    requests = []
    if options.variables:
        data = b"".join(variable.encode(errors="surrogateescape") + b"\0" for variable in options.variables)
        if len(data) > DATA_SIZE:
            parser.error(f"the variables have {len(data)} bytes; {DATA_SIZE} fit into a request")
        requests.append(Request(cmd=INIT_CMD_SETENV, data=data))
    if options.runlevel is not None:
        if not (options.seconds.isascii() and options.seconds.isdigit() and int(options.seconds) < 2**31):
            parser.error(f"-t {options.seconds!r} is not a number of seconds")
        try:
            requests.append(runlevel_request(options.runlevel, int(options.seconds)))
        except ValueError as error:
            parser.error(str(error))
    if not requests:
        parser.error("a RUNLEVEL is missing")
    send(requests, options.fifo)
    return 0
