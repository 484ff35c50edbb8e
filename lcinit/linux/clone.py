"""Forking and executing for a process that does little else: clone3(2) and execve(2) with all prepared before.

What a fork costs is for the most part the memory that parent and child write to afterwards, a page at a time; so the
child finds its arguments ready, and takes no more of the interpreter than it needs.
"""

from __future__ import annotations

import ctypes
import errno
import os
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
    from collections.abc import Sequence
    from typing import Never

CLONE_PARENT_SETTID = 0x00100000

_CLONE3 = 435
_CLONE_ARGS = struct.Struct("=11Q")  # struct clone_args, CLONE_ARGS_SIZE_VER2 (Linux 5.7)

# PyDLL keeps the interpreter's lock: nothing is taken or given back in the child
_python = ctypes.PyDLL(None, use_errno=True)
_syscall = _python.syscall
_syscall.restype = ctypes.c_long
_execve = _python.execve
_execve.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)
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


class Image:
    """What execve(2) takes, prepared: the first of `paths` that there is. ValueError for a NUL in a string."""

    def __init__(self, paths: Sequence[str], argv: Sequence[str], environment: dict[str, str]) -> None:
        self._paths = [ctypes.c_char_p(_bytes(path)) for path in paths]
        self._argv = _strings([_bytes(word) for word in argv])
        self._environment = _strings([_variable(name, value) for name, value in environment.items()])

    def execute(self) -> Never:
        """Become it. Raises OSError: ENOENT when nothing was found, else the first error that says more than that."""
        told = errno.ENOENT
        for path in self._paths:
            _execve(path, self._argv, self._environment)
            number = ctypes.get_errno()
            if told == errno.ENOENT and number != errno.ENOTDIR:
                told = number
        raise failure("execve", told)


def _bytes(text: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _variable(name: str, value: str) -> bytes:
    if not name or "=" in name:
        raise ValueError("illegal environment variable name")
    return _bytes(name) + b"=" + _bytes(value)


def _strings(words: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*words)


def keep_in_memory(address: int, size: int) -> None:
    """mlock(2). Raises OSError, ENOMEM where RLIMIT_MEMLOCK does not allow it."""
    if _mlock(address, size) == -1:
        raise failure("mlock", ctypes.get_errno())


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping that can be written to begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
