"""`overlay`: layers and a writable cache over a directory."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser
from lcinit.tools.overlay import DEFAULT_CACHE, DEFAULT_PATH, mount_overlay

_DESCRIPTION = """\
Mount an overlay over a directory: below all the directory itself as it was, then each LAYER above the one before,
and on top a writable layer in the cache. Without a LAYER the directory alone becomes writable."""

_EPILOG = f"""\
The cache:
  CACHE/upper    what was changed; kept from one start to the next. When it is made it takes the owner and the mode
                 of the directory, so that the guest's / belongs to the guest's root.
  CACHE/temp     work space of the kernel; emptied at each start.
  Both must be on one file system that has xattrs and whiteouts (ext4, xfs, btrfs, tmpfs).

Names may hold any character. What is mounted inside the directory or a layer is not part of the overlay. Layers
beside an idmapped directory must be shifted or idmapped too (see mount-idmapped).

A cache inside the directory or a layer, and layers inside each other, are refused. The result is checked to be
writable before it is attached.

example, as in /mnt/init.yml:
  setup:
    before:
    - overlay --path {DEFAULT_PATH} --cache {DEFAULT_CACHE} -- /mnt/layers/0 /mnt/layers/1

exit status: 0 mounted, 64 usage, 71 the system refused, 77 permission, 78 the result would be read-only.
"""


def run(args: list[str], program: str = "overlay") -> int:
    """Mount it; 0. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[--path DIR] [--cache DIR] [--] [LAYER...]")
    parser.add_argument("--path", metavar="DIR", default=DEFAULT_PATH, help=f"mount over DIR ({DEFAULT_PATH})")
    parser.add_argument("--cache", metavar="DIR", default=DEFAULT_CACHE, help=f"keep changes in DIR ({DEFAULT_CACHE})")
    parser.add_argument("layers", metavar="LAYER", nargs="*", help="a directory to lay above the one before")
    options = parser.parse_args(args)
    for name in (options.path, options.cache, *options.layers):
        if not name:
            parser.error("a directory's name may not be empty")
    mount_overlay(options.path, options.cache, options.layers)
    return 0
