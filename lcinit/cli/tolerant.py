"""`tolerant`: run a file without its execute bit, or all files of a directory."""

from __future__ import annotations

from lcinit.cli.arguments import add_rest, tool_parser
from lcinit.tools.tolerant import run as run_tolerantly

_DESCRIPTION = """\
Run a program, a script that lacks its execute bit, or every file of a directory."""

_EPILOG = """\
PATH is a file, a directory, or a bare name that is looked up in $PATH.

A file runs in tolerant's place: it keeps its PID, its streams and its signals, and PATH as its argv[0]. A file that
is not executable (or lies on a noexec mount) must begin with #!; the words of that line are split at blanks, and a
bare name there is looked up in $PATH.

A directory means all its entries in the order of their names (by byte), directories in it likewise, each with the same
ARGs. Names that begin with a dot or end with ~ are left out. Links are followed; a link that leads back into the
directory above it is refused, and so is an entry that is neither executable nor a script: all that is looked at before
the first one runs. They run one after the other; the first failure ends the run. Signals that tolerant gets are
passed on to the one that is running, and TERM, INT, HUP and QUIT end the run after it.

examples:
  tolerant /mnt/hooks/network.sh eth0
  tolerant /mnt/hooks.d start

exit status: that of the program, or of the first that failed; 128+N when signal N ended it; 126 it cannot be run,
127 it is not there, 64 usage.
"""


def run(args: list[str], program: str = "tolerant") -> int:
    """Run it: the exit status, or no return for a file. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "PATH [ARG...]")
    parser.add_argument("path", metavar="PATH", help="a file, a directory or a bare name")
    add_rest(parser, "arguments", "ARG", "given to each program")
    options = parser.parse_args(args)
    if not options.path or "\0" in options.path:
        parser.error("PATH may not be empty")
    return run_tolerantly(options.path, options.arguments)
