"""What a child does between its fork and its exec, prepared before: calls of libc with their arguments, and execve(2).

What a fork costs is for the most part the memory that parent and child write to afterwards, a page at a time. A child
that makes calls which it finds ready touches little of the interpreter: half the cost of the same calls through the
standard library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .calls import failure
from .process import LAST_DESCRIPTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Never

    Call = tuple[Callable[..., int], tuple[Any, ...]]
    Step = tuple[str, Callable[..., object], tuple[Any, ...]]

_CLOSE_RANGE = 436
_SIG_SETMASK = 2
_NO_SIGNAL = ctypes.create_string_buffer(128)  # an empty sigset_t
_ALL = (1 << 64) - 1

# PyDLL keeps the interpreter's lock: nothing is taken or given back in the child
_python = ctypes.PyDLL(None, use_errno=True)
_syscall = _python.syscall
_syscall.restype = ctypes.c_long
_execve = _python.execve
_execve.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_long = ctypes.c_long


def perform(words: str, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """One step. A function of this module's says that it failed by -1 and errno; any other by its OSError."""
    if function(*arguments) == -1:
        raise failure(words, ctypes.get_errno())


def setsid() -> Call:
    """Lead a session of its own."""
    return _python.setsid, ()


def setpgid() -> Call:
    """Lead a process group of its own."""
    return _python.setpgid, (0, 0)


def dup3(fd: int, number: int) -> Call:
    """Have `number` be an inheritable duplicate of `fd`, which is another one."""
    return _python.dup3, (fd, number, 0)


def close_range(first: int, last: int = LAST_DESCRIPTOR) -> Call:
    """Close all descriptors from `first` to `last`; those not open do not matter."""
    return _syscall, (_long(_CLOSE_RANGE), _long(first), _long(last), _long(0))


def open_file(path: str, flags: int) -> Call:
    """Open a file as the lowest number that is free, inheritable."""
    return _python.open, (ctypes.c_char_p(_bytes(path)), flags)


def chdir(path: str) -> Call:
    """Change the working directory."""
    return _python.chdir, (ctypes.c_char_p(_bytes(path)),)


def umask(mask: int) -> Call:
    """Set the umask."""
    return _python.umask, (mask,)


def setrlimit(number: int, soft: int, hard: int) -> Call:
    """Set a resource limit; RLIM_INFINITY is what the module `resource` has."""
    return _python.setrlimit, (number, ctypes.create_string_buffer(struct.pack("=2Q", soft & _ALL, hard & _ALL), 16))


def setpriority(nice: int) -> Call:
    """Set this process' nice value."""
    return _python.setpriority, (os.PRIO_PROCESS, 0, nice)


def set_ids(uid: int, gid: int, groups: Sequence[int]) -> list[Call]:
    """Change the real, effective and saved ids, and the supplementary groups."""
    array = (ctypes.c_uint * len(groups))(*groups)
    user, group = ctypes.c_uint(uid), ctypes.c_uint(gid)
    return [
        (_python.setgroups, (ctypes.c_size_t(len(groups)), array)),
        (_python.setresgid, (group, group, group)),
        (_python.setresuid, (user, user, user)),
    ]


def prctl(option: int, argument: int) -> Call:
    """prctl(2) with one argument."""
    return _python.prctl, (option, _long(argument), _long(0), _long(0), _long(0))


def unblock_signals() -> Call:
    """Block no signal."""
    return _python.sigprocmask, (_SIG_SETMASK, _NO_SIGNAL, None)


class Image:
    """What execve(2) takes, as addresses of what has been laid out in memory."""

    def __init__(self, paths: Sequence[int], argv: int, environment: int, kept: object = None) -> None:
        """`kept` is what has that memory."""
        self.paths = paths
        self.argv = argv
        self.environment = environment
        self._kept = kept

    @classmethod
    def of(cls, paths: Sequence[str], argv: Sequence[str], environment: Mapping[str, str]) -> Image:
        """In memory of its own. ValueError for a NUL in a string, or a variable that has no name."""
        data = bytearray(lay_out(paths, argv, environment, 0)[0])
        base = ctypes.addressof(ctypes.c_char.from_buffer(data))
        data[:], found, words, variables = lay_out(paths, argv, environment, base)
        return cls(found, words, variables, data)

    def execute(self) -> Never:
        """Become the first of `paths` that there is.

        Raises OSError: ENOENT when nothing was found, else the first error that says more than that.
        """
        told = errno.ENOENT
        for path in self.paths:
            _execve(path, self.argv, self.environment)
            number = ctypes.get_errno()
            if told == errno.ENOENT and number != errno.ENOTDIR:
                told = number
        raise failure("execve", told)


def lay_out(
    paths: Sequence[str], argv: Sequence[str], environment: Mapping[str, str], base: int
) -> tuple[bytes, list[int], int, int]:
    """What is to stand at the address `base`, and the addresses in it that an Image takes. ValueError as Image.of's."""
    words = [_bytes(word) for word in argv]
    variables = [_variable(name, value) for name, value in environment.items()]
    place = base + 8 * (len(words) + len(variables) + 2)
    pointers: list[int] = []
    for text in (*words, None, *variables, None):
        if text is None:
            pointers.append(0)
        else:
            pointers.append(place)
            place += len(text) + 1
    strings = [*words, *variables]
    found = []
    for path in paths:
        encoded = _bytes(path)
        strings.append(encoded)
        found.append(place)
        place += len(encoded) + 1
    data = struct.pack(f"={len(pointers)}Q", *pointers) + b"\0".join(strings) + b"\0"
    return data, found, base, base + 8 * (len(words) + 1)


def _bytes(text: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _variable(name: str, value: str) -> bytes:
    if not name or "=" in name:
        raise ValueError("illegal environment variable name")
    return _bytes(name) + b"=" + _bytes(value)
