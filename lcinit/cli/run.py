"""`lcinit run`: a guest without a manager, from a directory or a configuration file."""

from __future__ import annotations

from lcinit.cli.contain import OPTIONS, run_guest

_EPILOG = """\
DIR may be a configuration FILE instead, as for `lcinit init`; its exec.mode is tolerant and exec.pid nested here, CMD
is appended to its exec.command or, where it has none, is the command, and -u and -g replace its id_map.

Without CMD it is /bin/sh. The guest gets a terminal of its own where lcinit has one, which is relayed to it; with -c it
has the streams of lcinit itself. -i runs in the new namespaces with DIR as its working directory, before it becomes the
root. -o runs outside of them, with the PID of the guest in LCINIT_GUEST_PID.

{}
Without -u and -g root's guest gets 65536 ids of root's ranges in /etc/subuid and /etc/subgid that no other guest has.
Files that belong to root outside are shown as the guest root's own; those of a DIR that belongs to an id of root's
ranges are taken as they are, and the guest gets the ids from that one on.

SIGTERM and SIGINT ask the guest to power off; killing lcinit kills the guest.

examples:
  lcinit run /srv/guest
  lcinit run -n /srv/guest /sbin/init
  lcinit run -o 'slirp4netns -c $LCINIT_GUEST_PID tap0 &' ~/guest /sbin/init
  lcinit run guest.yml

exit status: that of CMD, 128+N when signal N ended it; 64 usage, 71 system, 77 permission, 78 configuration, 126 CMD
cannot be run, 127 it is not there.
"""


def run(args: list[str], program: str = "lcinit run") -> int:
    """Run the guest; its exit code. Raises LcinitError."""
    return run_guest(args, program, "run", _EPILOG.format(OPTIONS), "DIR")
