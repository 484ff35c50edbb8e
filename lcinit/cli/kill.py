"""`lcinit kill`: send the guest, or a service, a signal."""

from __future__ import annotations

from lcinit.cli.asking import call, show_json
from lcinit.cli.service_work import ask, service_parser

_DESCRIPTION = """\
Send a signal to a service: to its main process, or to all that it has. Without a NAME it is for the guest's init, or
for all processes of the guest."""

_EPILOG = """\
SIG is a name or a number: SIGHUP, HUP, SIGRTMIN+3, 15. Like any first process of a PID namespace the guest's init gets
only what it listens to, SIGKILL apart.

examples:
  lcinit kill -s HUP nginx
  lcinit kill -s KILL --whom all nginx
  lcinit kill -s USR1 --whom all
"""


def run(args: list[str], program: str = "lcinit kill") -> int:
    """Send it; 0. Raises LcinitError."""
    from lcinit.linux.signals import signal_name, signal_number

    parser = service_parser(program, _DESCRIPTION, _EPILOG, "[-s SIG] [--whom WHOM] [NAME]", names="?")
    parser.add_argument("-s", dest="signal", metavar="SIG", default="SIGTERM", help="the signal (SIGTERM)")
    parser.add_argument(
        "--whom",
        metavar="WHOM",
        choices=("main", "init", "all"),
        help="main or all of a service (main), init or all of the guest (init)",
    )
    options = parser.parse_args(args)
    try:
        number = signal_number(options.signal)
    except ValueError as error:
        parser.error(str(error))
    if options.whom == ("init" if options.names else "main"):
        parser.error(f"--whom {options.whom} is for {'the guest, without a NAME' if options.names else 'a service'}")
    if options.names:
        answer = ask(options.socket, "Kill", name=options.names, signal=str(number), whom=options.whom)
    else:
        answer = call(options.socket, "Signal", signal=str(number), whom=options.whom)
    if options.json:
        show_json(answer)
    else:
        count = answer["signalled"]
        print(f"{signal_name(number)} was sent to {count} process{'' if count == 1 else 'es'}")
    return 0
