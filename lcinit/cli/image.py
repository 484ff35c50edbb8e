"""`lcinit image`: build a boot root."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser
from lcinit.errors import SystemFailure

EXAMPLE = """\
The directory becomes a small Debian with lcinit as its /sbin/init: give it to a container manager as the root of a
container. Needs root, mmdebstrap and pip; lcinit is copied from where this command runs from.

example:
  lcinit image /var/lib/machines/boot && systemd-nspawn -D /var/lib/machines/boot --bind=GUEST:/mnt/root \\
    --private-network --boot

exit status: 0 it is built, 64 usage, 71 a program or the system failed, 77 permission.
"""


def run(args: list[str], program: str) -> int:
    """Build it and print its size in MiB."""
    import os

    from lcinit.tools.boot_root import PYTHON, SUITE, build

    parser = tool_parser(program, "Build a boot root.", EXAMPLE, "[--suite SUITE] [--mirror URL] DIR")
    parser.add_argument("directory", metavar="DIR", help="where to build; absent or empty")
    parser.add_argument("--suite", default=SUITE, help=f"Debian suite, one with Python {PYTHON} (default: %(default)s)")
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror (default: mmdebstrap's own)")
    options = parser.parse_args(args)
    try:
        build(options.directory, suite=options.suite, mirror=options.mirror)
    except OSError as error:
        raise SystemFailure.from_os_error(f"build a boot root in {options.directory}", error) from error
    total = 0
    for parent, _, files in os.walk(options.directory):
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in files)
    print(f"{options.directory}: {total / 2**20:.0f} MiB")
    return 0
