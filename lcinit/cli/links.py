"""`lcinit links`: give lcinit its other names."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser
from lcinit.errors import UsageError

EXAMPLE = """\
A name that is taken by anything but the same link is refused, and then no link is made.

example:
  lcinit links /mnt/boot-root/sbin --program /usr/lib/lcinit/bin/lcinit

exit status: 0 the links are there, 64 usage, 71 a name is taken or cannot be made, 77 permission.
"""


def run(args: list[str], program: str) -> int:
    """Make the links."""
    import os
    import shutil
    import sys
    import textwrap

    from lcinit.cli.main import CALLED
    from lcinit.tools.links import link_names

    description = textwrap.fill(f"Make symbolic links to lcinit in DIR: {', '.join(CALLED)}.", 120)
    parser = tool_parser(program, description, EXAMPLE, "[--program PATH] DIR")
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--program", metavar="PATH", help="what they point to (default: this lcinit)")
    options = parser.parse_args(args)
    if not os.path.isdir(options.directory):
        raise UsageError(f"cannot make links in {options.directory}: it is not a directory", hint="make it first")
    own = options.program or shutil.which(sys.argv[0]) or shutil.which("lcinit")
    if own is None:
        raise UsageError("where lcinit itself is cannot be told", hint="give it with --program")
    for name in link_names(options.directory, os.path.abspath(own) if not options.program else own, CALLED):
        print(os.path.join(options.directory, name))
    return 0
