"""`lcinit kill`: send the guest a signal."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call, show_json

_DESCRIPTION = """\
Send a signal to the guest's init, or to all processes of the guest."""

_EPILOG = """\
SIG is a name or a number: SIGHUP, HUP, SIGRTMIN+3, 15. Like any first process of a PID namespace the init gets only
what it listens to, SIGKILL apart.

examples:
  lcinit kill -s HUP
  lcinit kill -s USR1 --whom all
"""


def run(args: list[str], program: str = "lcinit kill") -> int:
    """Send it; 0. Raises LcinitError."""
    from lcinit.linux.signals import signal_name, signal_number

    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[-s SIG] [--whom WHOM]", json=True)
    parser.add_argument("-s", dest="signal", metavar="SIG", default="SIGTERM", help="the signal (SIGTERM)")
    parser.add_argument("--whom", metavar="WHOM", choices=("init", "all"), default="init", help="init or all (init)")
    options = parser.parse_args(args)
    try:
        number = signal_number(options.signal)
    except ValueError as error:
        parser.error(str(error))
    answer = call(options.socket, "Signal", signal=str(number), whom=options.whom)
    if options.json:
        show_json(answer)
    else:
        count = answer["signalled"]
        print(f"{signal_name(number)} was sent to {count} process{'' if count == 1 else 'es'}")
    return 0
