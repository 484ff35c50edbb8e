"""Errors that a user meets: what failed, why, what to do next, and the exit code that says so to a script.

Exit codes follow sysexits(3): 64 usage, 71 system error, 77 permission, 78 configuration.
"""

from __future__ import annotations

import errno as _errno
import os

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_OSERR = 71
EX_NOPERM = 77
EX_CONFIG = 78
EX_CANNOT_RUN = 126
EX_NOT_FOUND = 127


class LcinitError(Exception):
    """Anything lcinit gives up for, with one line for the user.

    `message` names the thing and the cause, `hint` the next step (may be empty), `exit_code` is the status of the
    process that ends because of it.
    """

    exit_code = EX_OSERR

    def __init__(self, message: str, *, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(LcinitError):
    """The command line is wrong."""

    exit_code = EX_USAGE


class ConfigError(LcinitError):
    """The configuration is wrong or asks for what this machine cannot do. The message may hold several lines."""

    exit_code = EX_CONFIG


class SystemFailure(LcinitError):
    """A call of the kernel failed or something that must be there is not."""

    exit_code = EX_OSERR

    @classmethod
    def from_os_error(cls, doing: str, error: OSError, *, hint: str = "") -> SystemFailure:
        """The one-line form of an OSError: `cannot DOING: CAUSE`; EPERM and EACCES become exit code 77."""
        text = error.strerror or str(error)
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        where = f" ({name})" if name and name not in doing else ""
        code = EX_NOPERM if error.errno in (_errno.EPERM, _errno.EACCES) else EX_OSERR
        return cls(f"cannot {doing}: {text}{where}", hint=hint, exit_code=code)


class CommandFailed(LcinitError):
    """A command of the configuration ended with a non-zero status, a signal or a time-out."""
