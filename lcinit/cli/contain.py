"""`run` and `contain`: a guest without a manager."""

from __future__ import annotations

from lcinit.cli.arguments import add_rest, tool_parser, without_dashes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

DESCRIPTION = """\
Run CMD as PID 1 of a container whose root directory is DIR, in user, mount, PID, IPC, UTS, cgroup and network
namespaces of its own, and stay with it until it ends."""

OPTIONS = """\
A MAP is INSIDE:OUTSIDE:SIZE[,...]: SIZE ids from INSIDE on are OUTSIDE and following outside. No range may hold the
outer root's id 0. An ordinary user is id 0 inside; 1 and following are the ranges of /etc/subuid and /etc/subgid, if
there are any and newuidmap(1) and newgidmap(1) are installed.
"""

_EPILOG = """\
Without CMD it is /bin/sh. The guest gets a terminal of its own, which is relayed to this one; with -c it has the
streams of contain itself. -i runs in the new namespaces with DIR as its working directory, before it becomes the root.
-o runs outside of them, with the PID of the guest in LCINIT_GUEST_PID.

{}
Without -u and -g id 0 of root's guest is the highest id there is, and every other id but 0 is itself.

examples:
  pseudo tar -xf void.tar -C void
  contain void
  contain -n void /bin/init
  contain -i 'mount --bind /srv/data srv' void /bin/init

The options are those of the contain of arachsys/containers.

exit status: that of CMD, 128+N when signal N ended it; 64 usage, 71 system, 77 permission, 78 configuration, 126 CMD
cannot be run, 127 it is not there.
"""


def run(args: list[str], program: str = "contain") -> int:
    """Run the guest; its exit code. Raises LcinitError."""
    return run_guest(args, program, "contain", _EPILOG.format(OPTIONS), "DIR")


def run_guest(args: list[str], program: str, name: Literal["run", "contain"], epilog: str, target: str) -> int:
    """What both names do: `target` is the name of the first argument."""
    usage = f"[-cn] [-u MAP] [-g MAP] [-i CMD] [-o CMD] {target} [CMD [ARG...]]"
    parser = tool_parser(program, DESCRIPTION, epilog, usage)
    parser.add_argument("-c", dest="plain_streams", action="store_true", help="no terminal of its own for the guest")
    parser.add_argument("-n", dest="share_network", action="store_true", help="share this network, unprivileged")
    parser.add_argument("-u", dest="users", metavar="MAP", help="the uid map")
    parser.add_argument("-g", dest="groups", metavar="MAP", help="the gid map")
    parser.add_argument("-i", dest="inside", metavar="CMD", help="run it in a shell inside before the guest starts")
    parser.add_argument("-o", dest="outside", metavar="CMD", help="run it in a shell outside before the guest starts")
    parser.add_argument("target", metavar=target, help="the guest's root directory")
    add_rest(parser, "command", "CMD", "what runs (default: /bin/sh)")
    options = vars(parser.parse_args(args))
    options["command"] = tuple(without_dashes(options["command"]))

    from lcinit.cli.init import take_streams
    from lcinit.cli.main import main
    from lcinit.cli.privileges import refuse_setuid
    from lcinit.linux.signals import block_all
    from lcinit.tools.contain_options import Options

    refuse_setuid()
    take_streams()
    block_all()
    from lcinit.tools import run

    return run.run(Options(name=name, **options), main)
