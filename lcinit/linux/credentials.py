"""File-system ids: whose files a thread makes, apart from who it is (setfsuid(2), setfsgid(2))."""

from __future__ import annotations

import errno

from .calls import failure, libc

_NO_ID = -1
_ID_MASK = 0xFFFFFFFF  # ids are unsigned, the return value is an int


def setfsuid(uid: int) -> int:
    """Change the thread's file-system uid and return the one before. EPERM if the kernel did not take it."""
    return _change("setfsuid", uid)


def setfsgid(gid: int) -> int:
    """Change the thread's file-system gid and return the one before. EPERM if the kernel did not take it."""
    return _change("setfsgid", gid)


def _change(name: str, wanted: int) -> int:
    # The calls report no failure; asking with an id that cannot be set tells which one is in force.
    call = getattr(libc, name)
    before = int(call(wanted)) & _ID_MASK
    if int(call(_NO_ID)) & _ID_MASK != wanted:
        raise failure(name, errno.EPERM, None, str(wanted))
    return before
