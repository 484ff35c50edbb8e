"""`lcinit reboot`: the guest is asked to reboot."""

from __future__ import annotations

from lcinit.cli import poweroff


def run(args: list[str], program: str = "lcinit reboot") -> int:
    """Ask for it; 0. Raises LcinitError."""
    return poweroff.run_word("reboot", args, program)
