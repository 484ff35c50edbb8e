"""`lcinit reload`: services read their own configuration again."""

from __future__ import annotations

from lcinit.cli.service_work import run_work

_DESCRIPTION = """\
Have services read their own configuration again, in the way that reload or reload_signal of their files says, and wait
until they have."""

_EPILOG = """\
Files of services are read again by `lcinit daemon-reload`.

examples:
  lcinit reload nginx
  lcinit reload --no-block nginx
"""


def run(args: list[str], program: str = "lcinit reload") -> int:
    """Do it; the exit code. Raises LcinitError."""
    return run_work("Reload", args, program, _DESCRIPTION, _EPILOG)
