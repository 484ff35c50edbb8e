"""`lcinit stop`: services are stopped."""

from __future__ import annotations

from lcinit.cli.service_work import run_work

_DESCRIPTION = """\
Stop services and what requires them, and wait until each is down."""

_EPILOG = """\
What does not end by itself within its stop_timeout is killed. ctrl-C ends the waiting; the stop goes on.

examples:
  lcinit stop nginx
  lcinit stop --no-block nginx postgresql
"""


def run(args: list[str], program: str = "lcinit stop") -> int:
    """Do it; the exit code. Raises LcinitError."""
    return run_work("Stop", args, program, _DESCRIPTION, _EPILOG)
