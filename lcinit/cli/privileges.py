"""Whose rights a command may run with."""

from __future__ import annotations

import os

from lcinit.errors import EX_NOPERM, UsageError


def refuse_setuid() -> None:
    """A program that is meant for root's hands must not run in anybody else's with root's rights.

    Saved ids count: they can be taken back (credentials(7)). Raises UsageError with exit code 77.
    """
    if len(set(os.getresuid())) > 1 or len(set(os.getresgid())) > 1:
        raise UsageError("lcinit is installed setuid or setgid; it must not be", exit_code=EX_NOPERM)


def require_root(doing: str) -> None:
    """Refuse everyone but root with CAP_SYS_ADMIN. `doing` is what is refused, for the error (exit code 77)."""
    refuse_setuid()
    hint = "run it as root in the container that lcinit is PID 1 of, or as the machine's root"
    if os.geteuid() != 0:
        raise UsageError(f"only root may {doing}, and this is uid {os.geteuid()}", hint=hint, exit_code=EX_NOPERM)
    from lcinit.linux.capabilities import has_capability

    if not has_capability("sys_admin"):
        raise UsageError(f"CAP_SYS_ADMIN is needed to {doing}", hint=hint, exit_code=EX_NOPERM)
