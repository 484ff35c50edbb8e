"""The session keyring: what the manager keeps in its own is not for the guest (session-keyring(7))."""

from __future__ import annotations

import errno

from lcinit.boot.world import World
from lcinit.linux import process

# Filtered by nspawn and docker, absent from some kernels, or out of quota: the manager's keyring then stays.
_BEARABLE = frozenset((errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EDQUOT))


def leave_session_keyring(world: World) -> None:
    """A new, empty one for PID 1 and all that it starts from here on; once is enough."""
    if world.left_keyring:
        return
    take_new_session_keyring()
    world.left_keyring = True


def take_new_session_keyring() -> None:
    """Leave this process' session keyring for a new one, where that may be done."""
    try:
        process.join_session_keyring()
    except OSError as error:
        if error.errno not in _BEARABLE:
            raise
