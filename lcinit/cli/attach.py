"""`lcinit attach`: run a command in the guest."""

from __future__ import annotations

from lcinit.cli.arguments import add_rest, tool_parser, without_dashes
from lcinit.cli.inject import add_user, told, user_of
from lcinit.cli.privileges import require_root

_DESCRIPTION = """\
Run COMMAND (the user's login shell without one) in the guest that lcinit supervises here, in the guest's namespaces,
cgroup and limits, with the capabilities of its init."""

_EPILOG = """\
Run it as root in the container that lcinit is PID 1 of, outside of the guest.

Nothing of the caller goes along but its TERM and its `container` variable; the environment is made from the guest's
own /etc/passwd, and the command starts in /.

With standard input and output both a terminal the command gets a terminal of the guest's own: job control, ctrl-C and
the size of the window are the command's. ctrl-] three times within a second hangs up. Otherwise standard input, output
and error are three pipes, and INT, TERM, HUP and QUIT are passed on to the command.

examples:
  lcinit attach
  lcinit attach -u www-data -- id
  podman exec -it web lcinit attach -- journalctl -f

exit status: the command's own, 128+N when signal N ended it; 126 it cannot be run, 127 it is not there, 64 usage, 71
no guest runs or a call failed, 77 not root, 78 no such user.
"""


def run(args: list[str], program: str) -> int:
    """Run it; its exit status. Raises LcinitError."""
    from lcinit.control.client import PATH

    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[-u USER] [--socket PATH] [--] [COMMAND [ARG...]]")
    add_user(parser)
    parser.add_argument("--socket", metavar="PATH", default=PATH, help=f"the control socket ({PATH})")
    add_rest(parser, "command", "COMMAND", "what to run in the guest")
    options = parser.parse_args(args)
    require_root("enter the guest")
    from lcinit.tools.attach import attach

    return told(attach(options.socket, without_dashes(options.command), user_of(options.user)), program)
