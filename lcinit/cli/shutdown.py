"""`lcinit shutdown`: poweroff, halt and reboot in the words of shutdown(8)."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser
from lcinit.cli.poweroff import ask

_DESCRIPTION = """\
Ask the guest to power off, halt or reboot, as shutdown(8) does. Without an option it is poweroff."""

_EPILOG = """\
TIME is `now` or `+0`, and may be left out: lcinit keeps no appointments, and has nobody to show a message to.

examples:
  shutdown -h now
  shutdown -r now
"""
_NOW = ("now", "+0")


def run(args: list[str], program: str = "lcinit shutdown") -> int:
    """Ask for it; 0. Raises LcinitError."""
    # -h was shutdown's own long before it meant help
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[-h|-P|-H|-r] [TIME]", short_help=False)
    words = parser.add_mutually_exclusive_group()
    for option, word in (("-h", "poweroff"), ("-P", "poweroff"), ("-H", "halt"), ("-r", "reboot")):
        words.add_argument(option, dest="word", action="store_const", const=word, default="poweroff", help=word)
    parser.add_argument("when", metavar="TIME", nargs="?", default="now", help="now or +0")
    options = parser.parse_args(args)
    if options.when not in _NOW:
        parser.error(f"{options.when!r} is not now: lcinit keeps no appointments, use at(1) or sleep(1)")
    ask(options.socket, options.word)
    return 0
