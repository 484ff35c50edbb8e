"""Forking for somebody else: children of this process' parent, as cheaply as a fork can be (clone3(2))."""

from __future__ import annotations

import ctypes
import struct

from .calls import failure, libc
from .namespaces import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_INTO_CGROUP,
    CLONE_PARENT,
    fork_hooks,
    tid_address,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap

CLONE_PARENT_SETTID = 0x00100000

_CLONE3 = 435
_CLONE_ARGS = struct.Struct("=11Q")  # struct clone_args, CLONE_ARGS_SIZE_VER2 (Linux 5.7)

# Through PyDLL, which keeps the interpreter's lock: a child that had to take it back could wait for ever.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_mlock = libc.mlock
_mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Siblings:
    """Makes children of this process' parent (CLONE_PARENT), whose end the parent then hears of as of this one's.

    For a process with one thread alone, and not for a PID namespace's init.
    """

    def __init__(self) -> None:
        self._tid = tid_address()
        self._before, self._in_child, self._in_parent = fork_hooks()
        self._number = ctypes.c_long(_CLONE3)
        self._size = ctypes.c_long(_CLONE_ARGS.size)
        self._arguments = ctypes.create_string_buffer(_CLONE_ARGS.size)

    def clone(self, pid_at: int, cgroup: int | None = None, *, interpreter: bool = False) -> int:
        """Fork: the PID, 0 in the child. `cgroup` is the directory of a cgroup2 that it is born in.

        The kernel writes the PID to the 32 bits at the address `pid_at` before the child runs, so that who shares that
        memory knows of it whatever happens to this process or the child. Without `interpreter` the child may do little
        but exec: the interpreter's hooks for a fork do not run.
        """
        flags = CLONE_PARENT | CLONE_PARENT_SETTID
        if self._tid:
            flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
        if cgroup is not None:
            flags |= CLONE_INTO_CGROUP
        # the signal at its end is this process' own, and must not be given
        _CLONE_ARGS.pack_into(self._arguments, 0, flags, 0, self._tid, pid_at, 0, 0, 0, 0, 0, 0, cgroup or 0)
        if interpreter:
            self._before()
        pid: int = _syscall(self._number, self._arguments, self._size)
        number = ctypes.get_errno()
        if interpreter:
            (self._in_child if pid == 0 else self._in_parent)()
        if pid == -1:
            raise failure("clone3", number)
        return pid


def keep_in_memory(address: int, size: int) -> None:
    """mlock(2). Raises OSError, ENOMEM where RLIMIT_MEMLOCK does not allow it."""
    if _mlock(address, size) == -1:
        raise failure("mlock", ctypes.get_errno())


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping that can be written to begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
