"""`lcinit halt`: the guest is asked to halt."""

from __future__ import annotations

from lcinit.cli import poweroff


def run(args: list[str], program: str = "lcinit halt") -> int:
    """Ask for it; 0. Raises LcinitError."""
    return poweroff.run_word("halt", args, program)
