"""`lcinit disable`: services do not start with their runlevels any more."""

from __future__ import annotations

from lcinit.cli.enable import run_setting

_DESCRIPTION = """\
Have services not start with their runlevels any more: their links in /etc/lcinit/enabled are removed."""

_EPILOG = """\
What the configuration itself enables (`services` in init.yml) stays enabled. What runs goes on but with --now.

examples:
  lcinit disable nginx
  lcinit disable --now nginx
"""


def run(args: list[str], program: str = "lcinit disable") -> int:
    """Do it; the exit code. Raises LcinitError."""
    return run_setting("Disable", "Stop", args, program, _DESCRIPTION, _EPILOG)
