"""`pseudo`: a command as root of a user namespace of its own, and nothing else new."""

from __future__ import annotations

import errno
import os
import signal

from lcinit import log
from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, CommandFailed
from lcinit.supervisor.spawn import execute
from lcinit.tools import caller, user_namespace
from lcinit.tools.contain_options import choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Never


def run(users: str | None, groups: str | None, command: Sequence[str]) -> Never:
    """Become the command, or a shell, with the maps of -u and -g. Raises LcinitError."""
    sides = caller.sides("pseudo")
    choice = choose(users, groups, sides, "pseudo", owner=(0, 0))
    for note in choice.notes:
        log.warning(note)
    user_namespace.enter(choice, sides)
    become(command or (os.environ.get("SHELL") or "/bin/sh",))


def become(command: Sequence[str]) -> Never:
    """Exec a program as it was asked for: streams, directory, environment, signals. CommandFailed with 126 or 127."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores both, and what is ignored stays so
        signal.signal(number, signal.SIG_DFL)
    try:
        execute(tuple(command), dict(os.environ))
    except OSError as error:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise CommandFailed(
            f"cannot run {command[0]!r}: {'not found' if missing else error.strerror}",
            exit_code=EX_NOT_FOUND if missing else EX_CANNOT_RUN,
        ) from error
