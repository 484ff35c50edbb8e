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
    parser = asking_parser(program, _DESCRIPTION, _EPILOG, "[[-h] [-P|-H] | -r] [TIME]", short_help=False)
    words = (("-h", "poweroff, or halt with -H"), ("-P", "poweroff"), ("-H", "halt"), ("-r", "reboot"))
    for option, word in words:
        parser.add_argument(option, action="store_true", help=word)
    parser.add_argument("when", metavar="TIME", nargs="?", default="now", help="now or +0")
    options = parser.parse_args(args)
    if options.when not in _NOW:
        parser.error(f"{options.when!r} is not now: lcinit keeps no appointments, use at(1) or sleep(1)")
    # -H and -P say what kind of -h is meant (shutdown(8) of sysvinit), and stand alone in systemd's
    asked = {"halt": options.H, "poweroff": options.P, "reboot": options.r}
    chosen = [word for word, given in asked.items() if given]
    if len(chosen) > 1 or (options.h and options.r):
        parser.error(f"{' and '.join(chosen) if len(chosen) > 1 else '-h and -r'} exclude each other")
    ask(options.socket, chosen[0] if chosen else "poweroff")
    return 0
