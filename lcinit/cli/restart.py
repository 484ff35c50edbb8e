"""`lcinit restart`: the guest is stopped and started again in place."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call

_DESCRIPTION = """\
Stop the guest as poweroff does, then set it up and start it again here, whatever exec.on_reboot says. The container
goes on."""

_EPILOG = """\
examples:
  lcinit restart
  lcinit restart --now
"""


def run(args: list[str], program: str = "lcinit restart") -> int:
    """Ask for it; 0. Raises LcinitError."""
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[-f]")
    parser.add_argument("-f", "--now", action="store_true", help="kill the guest without asking it first")
    options = parser.parse_args(args)
    call(options.socket, "Restart", at_once=options.now)
    return 0
