"""`inject`: run a command in a container of any origin."""

from __future__ import annotations

import sys

from lcinit.cli.arguments import add_rest, tool_parser, without_dashes
from lcinit.cli.privileges import require_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from lcinit.guest.session import End

_DESCRIPTION = """\
Run COMMAND (the user's login shell without one) in the namespaces, the cgroup and the limits of process PID, as the
root of that container. It takes no part of the caller's environment, descriptors or terminal along."""

_EPILOG = """\
PID is any process of a container: of LXC, nspawn, docker, podman, `lcinit run` or contain. Where PID is the process
that started a container's PID 1 (contain itself, say), that container is meant.

With standard input and output both a terminal the command gets a terminal of the container's own: job control, ctrl-C
and the size of the window are the command's. ctrl-] three times within a second hangs up. Otherwise standard input,
output and error are three pipes, and INT, TERM, HUP and QUIT are passed on to the command.

examples:
  inject $(pgrep -x contain)
  inject -u www-data 4321 -- id
  tar c . | inject 4321 tar x -C /srv

exit status: the command's own, 128+N when signal N ended it; 126 it cannot be run, 127 it is not there, 64 usage, 71
the container or a call failed, 77 not root, 78 no such user.
"""


def run(args: list[str], program: str = "inject") -> int:
    """Run it; its exit status. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[-u USER] PID [--] [COMMAND [ARG...]]")
    add_user(parser)
    parser.add_argument("pid", metavar="PID", help="a process of the container, or the one that started it")
    add_rest(parser, "command", "COMMAND", "what to run in it")
    options = parser.parse_args(args)
    if not (options.pid.isascii() and options.pid.isdigit() and 0 < int(options.pid) < 2**22):
        parser.error(f"{options.pid!r} is no PID")
    require_root("enter a container")
    from lcinit.tools.inject import inject

    return told(inject(int(options.pid), without_dashes(options.command), user_of(options.user)), program)


def add_user(parser: ArgumentParser) -> None:
    """The option of both commands that run something in a guest."""
    parser.add_argument(
        "-u", dest="user", metavar="USER", default="root", help="a name or number of the guest's (root)"
    )


def user_of(text: str) -> str | int:
    """What the option means: a number where it looks like one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else text


def told(end: End, program: str) -> int:
    """The exit status; a guest that ended under the command is told."""
    if end.guest_ended:
        print(f"{program}: the guest ended, and the command with it", file=sys.stderr)
    return end.code
