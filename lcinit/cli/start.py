"""`lcinit start`: services are started."""

from __future__ import annotations

from lcinit.cli.service_work import run_work

_DESCRIPTION = """\
Start services and what they require and want, and wait until each is ready or has failed."""

_EPILOG = """\
On a terminal a line says meanwhile what is waited for. ctrl-C ends the waiting; the start goes on.

examples:
  lcinit start nginx
  lcinit start --no-block nginx postgresql
"""


def run(args: list[str], program: str = "lcinit start") -> int:
    """Do it; the exit code. Raises LcinitError."""
    return run_work("Start", args, program, _DESCRIPTION, _EPILOG)
