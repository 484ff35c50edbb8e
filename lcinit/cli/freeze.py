"""`lcinit freeze`, and what `thaw` shares with it: the guest's processes stand still, or go on."""

from __future__ import annotations

from lcinit.cli.asking import asking_parser, call

_EPILOG = """\
It needs a cgroup of the guest's own on cgroup2. A guest that is frozen and asked to stop is thawed first.

example:
  lcinit freeze && tar -cf /backup/guest.tar -C /mnt/root . ; lcinit thaw
"""


def run(args: list[str], program: str = "lcinit freeze") -> int:
    """Freeze it; 0. Raises LcinitError."""
    return run_method("Freeze", "Stop every process of the guest where it stands, until thaw.", args, program)


def run_method(method: str, description: str, args: list[str], program: str) -> int:
    """The command that calls a method without parameters; 0. Raises LcinitError."""
    options = asking_parser(program, description, _EPILOG).parse_args(args)
    call(options.socket, method)
    return 0
