"""`lcinit reexec`: the running lcinit is replaced by the one on disk."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call

_DESCRIPTION = """\
Replace the running lcinit by the one that is installed now. The guest does not notice."""

_EPILOG = """\
example:
  lcinit reexec && lcinit status
"""


def run(args: list[str], program: str = "lcinit reexec") -> int:
    """Ask for it; 0. Raises LcinitError."""
    options = asking_parser(program, _DESCRIPTION, _EPILOG).parse_args(args)
    call(options.socket, "Reexec")
    return 0
