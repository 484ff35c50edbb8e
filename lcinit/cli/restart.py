"""`lcinit restart`: services, or the guest as a whole, are stopped and started again in place."""

from __future__ import annotations

from lcinit.cli.asking import call
from lcinit.cli.service_work import add_no_block, service_parser, work

_DESCRIPTION = """\
With NAMEs, stop these services, start them again, and wait until each is ready or has failed.

Without, stop the guest as poweroff does, then set it up and start it again here, whatever exec.on_reboot says. The
container goes on."""

_EPILOG = """\
Without NAMEs it returns at once. ctrl-C ends the waiting for services; the restart goes on.

examples:
  lcinit restart
  lcinit restart --now
  lcinit restart nginx
"""


def run(args: list[str], program: str = "lcinit restart") -> int:
    """Do it; the exit code. Raises LcinitError."""
    usage = "[-f] | [--no-block] NAME..."
    parser = service_parser(program, _DESCRIPTION, _EPILOG, usage, names="*")
    parser.add_argument("-f", "--now", action="store_true", help="kill the guest without asking it first")
    add_no_block(parser)
    options = parser.parse_args(args)
    if options.names:
        if options.now:
            parser.error("--now is for the guest as a whole; `lcinit kill` signals a service")
        return work(options.socket, "Restart", options.names, program, wait=not options.no_block, as_json=options.json)
    if options.no_block or options.json:
        parser.error("without a NAME there is nothing to wait for or to print")
    call(options.socket, "Restart", at_once=options.now)
    return 0
