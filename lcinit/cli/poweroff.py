"""`lcinit poweroff`, and what `halt`, `reboot` and `shutdown` share with it: the guest is asked to end."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call
from lcinit.control.client import NotServed
from lcinit.errors import SystemFailure

_WHAT = {
    "poweroff": "Ask the guest to power off.",
    "halt": "Ask the guest to halt, which for a container is the same as poweroff but for what its init makes of it.",
    "reboot": "Ask the guest to reboot.",
}

_EPILOG = """\
lcinit asks the guest's init in the words that it understands, and kills the guest when shutdown.timeout of the
configuration is over; it returns at once. With --now the guest is killed without being asked. Services that lcinit
supervises itself are stopped in their order, or killed with --now.

Where no lcinit supervises a guest, the request goes to the init behind /run/initctl or /dev/initctl. That one cannot be
told to do it at once.

examples:
  lcinit {word}
  lcinit {word} --now
"""


def run(args: list[str], program: str = "lcinit poweroff") -> int:
    """Ask for it; 0. Raises LcinitError."""
    return run_word("poweroff", args, program)


def run_word(word: str, args: list[str], program: str) -> int:
    """The command that asks for `word`; 0. Raises LcinitError."""
    parser = asking_parser(program, _WHAT[word], _EPILOG.format(word=word), "[-f]")
    parser.add_argument("-f", "--now", action="store_true", help="kill the guest without asking it first")
    options = parser.parse_args(args)
    ask(options.socket, word, at_once=options.now)
    return 0


def ask(path: str, word: str, *, at_once: bool = False) -> None:
    """Ask the lcinit behind the socket, else the init behind the FIFO. Raises LcinitError."""
    try:
        call(path, word.capitalize(), at_once=at_once)
    except NotServed as error:
        from lcinit.control.initctl import runlevel_request
        from lcinit.tools.initctl_client import default_fifo, send

        try:
            fifo = default_fifo()
        except SystemFailure as without:
            raise SystemFailure(f"{error.message}, and {without.message}", hint=error.hint) from error
        if at_once:
            raise SystemFailure(
                f"{error.message}, and the init behind {fifo} cannot be told to do it at once", hint="leave out --now"
            ) from error
        send([runlevel_request("6" if word == "reboot" else "0")], fifo)
