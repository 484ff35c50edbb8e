"""The names under which lcinit is another program, and the symbolic links that give it those names."""

from __future__ import annotations

import os

from lcinit.errors import SystemFailure

MULTICALL_NAMES = (
    "init",
    "telinit",
    "initctl",
    "shutdown",
    "halt",
    "poweroff",
    "reboot",
    "runlevel",
    "overlay",
    "mount-idmapped",
    "tolerant",
    "contain",
    "pseudo",
    "inject",
)


def link_names(directory: str, program: str, names: tuple[str, ...] = MULTICALL_NAMES) -> list[str]:
    """Make `directory`/NAME a symbolic link to `program` for each of `names`; the names made, in order.

    A link that already says the same is left alone. Anything else of that name is somebody else's: SystemFailure
    before the first link is made, so that a refusal changes nothing.
    """
    missing = []
    for name in names:
        path = os.path.join(directory, name)
        if not os.path.lexists(path):
            missing.append(name)
        elif not os.path.islink(path) or os.readlink(path) != program:
            raise SystemFailure(
                f"cannot link {path} to {program}: it exists and is not ours",
                hint="remove it, or choose another directory",
            )
    for name in missing:
        path = os.path.join(directory, name)
        try:
            os.symlink(program, path)
        except OSError as error:
            raise SystemFailure.from_os_error(f"link {path} to {program}", error) from error
    return missing
