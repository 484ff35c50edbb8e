"""`pseudo`: a command as root of a new user namespace."""

from __future__ import annotations

from lcinit.cli.arguments import add_rest, tool_parser, without_dashes

_DESCRIPTION = """\
Run CMD, or the shell of $SHELL, as root of a new user namespace. Nothing else is new: files, network, processes and
the working directory are those of the caller."""

_EPILOG = """\
A MAP is INSIDE:OUTSIDE:SIZE[,...]: SIZE ids from INSIDE on are OUTSIDE and following outside.

Without -u and -g: for an ordinary user id 0 is the user, and 1 and following are the ranges of /etc/subuid and
/etc/subgid, if there are any and newuidmap(1) and newgidmap(1) are installed. For root id 0 is the highest id there is
and every other id but 0 is itself, so that nothing that belongs to the outer root can be changed.

An ordinary user keeps the supplementary groups, and cannot leave them unless /etc/subgid has ranges for the user.

examples:
  pseudo id
  pseudo tar -xf root.tar -C guest
  pseudo -u 0:1000:1,1:100000:65536 -g 0:1000:1,1:100000:65536 chown 1:1 file

exit status: that of CMD; 126 it cannot be run, 127 it is not there; 64 usage, 71 the system refused, 77 permission, 78
there is no map to choose.
"""


def run(args: list[str], program: str = "pseudo") -> int:
    """No return but by exec. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[-u MAP] [-g MAP] [CMD [ARG...]]")
    parser.add_argument("-u", dest="users", metavar="MAP", help="the uid map")
    parser.add_argument("-g", dest="groups", metavar="MAP", help="the gid map")
    add_rest(parser, "command", "CMD", "what runs (default: a shell)")
    options = parser.parse_args(args)
    from lcinit.cli.privileges import refuse_setuid
    from lcinit.tools import pseudo

    refuse_setuid()
    pseudo.run(options.users, options.groups, without_dashes(options.command))
