"""`lcinit reset-failed`: failures of services are forgotten."""

from __future__ import annotations

from lcinit.cli.service_work import ask, service_parser

_DESCRIPTION = """\
Forget that services have failed, and how often they were started: of these, or of all."""

_EPILOG = """\
A service that was started too often (start_limit_burst) may be started again then; `lcinit start` forgets by itself.

examples:
  lcinit reset-failed
  lcinit reset-failed nginx
"""


def run(args: list[str], program: str = "lcinit reset-failed") -> int:
    """Do it; 0. Raises LcinitError."""
    options = service_parser(program, _DESCRIPTION, _EPILOG, "[NAME...]", names="*", json=False).parse_args(args)
    ask(options.socket, "ResetFailed", names=options.names or None)
    return 0
