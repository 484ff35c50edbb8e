"""`mount-idmapped`: bind mounts with shifted owners."""

from __future__ import annotations

import os

from lcinit.cli.arguments import add_rest, tool_parser, without_dashes
from lcinit.tools.mount_idmapped import enter_and_execute, mount_idmapped, parse_maps

_DESCRIPTION = """\
Mount SOURCE at TARGET so that the owners of its files appear shifted, and what is created through TARGET is shifted
back. Nothing is changed on the disk. SOURCE may be TARGET: the mount then covers what it shows."""

_EPILOG = """\
A MAP is TYPE:IN:OUT:SIZE: SIZE ids from IN on appear as OUT and following. TYPE is u (uid), g (gid) or b (both).
It may be given up to 340 times; ids that no MAP names appear as nobody's and nothing can be created with them. Newer
kernels want a MAP for uids and for gids. It may instead be one /proc/PID/ns/user: the map of that user namespace.

ext4, xfs, btrfs, tmpfs, squashfs and others can be idmapped; overlay, proc, sysfs and devpts cannot. To lay an overlay
over an idmapped directory, idmap the directory first.

With --map-caller the COMMAND (the shell of $SHELL, else /bin/sh, without one) runs as root of a new user namespace
with that map once the mount is there. It runs in a mount namespace of its own.

example, as in /mnt/init.yml:
  setup:
    before:
    - mount-idmapped --map-mount=b:0:1000000:65536 /mnt/root /mnt/root

  mount-idmapped --map-mount=u:0:10000:10000 --map-mount=g:0:20000:20000 /source /target
  mount-idmapped --map-mount=/proc/1234/ns/user --recursive /source /target
  mount-idmapped --map-caller=b:0:10000:10000 --map-mount=b:0:10000:10000 /source /target ls -l /target

The options are those of Christian Brauner's mount-idmapped.

exit status: 0 mounted, or the COMMAND's own; 64 usage, 71 the system refused, 77 permission, 78 too many ranges,
126 and 127 the COMMAND cannot be run or was not found.
"""

_USAGE = """[--map-mount=MAP]... [--recursive] SOURCE TARGET
       {} --map-caller=MAP... [OPTION...] SOURCE TARGET [COMMAND [ARG...]]"""


def run(args: list[str], program: str = "mount-idmapped") -> int:
    """Mount it; 0, or no return with --map-caller. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, _USAGE.format(program))
    parser.add_argument("--map-mount", metavar="MAP", action="append", default=[], help="how ids appear in the mount")
    parser.add_argument("--map-caller", metavar="MAP", action="append", default=[], help="run COMMAND with this map")
    parser.add_argument("--recursive", action="store_true", help="bring the mounts below SOURCE along, mapped alike")
    parser.add_argument("source", metavar="SOURCE", help="what to mount: a directory or a file")
    parser.add_argument("target", metavar="TARGET", help="where to mount it")
    add_rest(parser, "command", "COMMAND", "what runs with --map-caller")
    options = parser.parse_args(args)
    command = without_dashes(options.command)
    if command and not options.map_caller:
        parser.error("a COMMAND needs --map-caller")
    maps, caller = parse_maps(options.map_mount), parse_maps(options.map_caller)
    mount_idmapped(options.source, options.target, maps, recursive=options.recursive)
    if options.map_caller:
        enter_and_execute(caller, command or [os.environ.get("SHELL") or "/bin/sh"])
    return 0
