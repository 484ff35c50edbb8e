"""`lcinit thaw`: the guest's processes go on."""

from __future__ import annotations

from lcinit.cli import freeze


def run(args: list[str], program: str = "lcinit thaw") -> int:
    """Thaw it; 0. Raises LcinitError."""
    return freeze.run_method("Thaw", "Let the processes of a frozen guest go on.", args, program)
