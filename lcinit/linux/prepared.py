"""What a child does between its fork and its exec, prepared before: system calls with their arguments, and execve(2).

What a fork costs is for the most part the memory that parent and child write to afterwards, a page at a time. A child
that makes calls which it finds ready touches little of the interpreter. Calls by their numbers can also be made with
none of it, see `launch`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .calls import AT_FDCWD, by_machine, failure, path_bytes
from .files import RESOLVE_NO_MAGICLINKS
from .process import LAST_DESCRIPTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Never

    Call = tuple[Callable[..., int], tuple[int | bytes, ...]]
    Step = tuple[str, Callable[..., object], tuple[Any, ...]]

EXECVE = by_machine(59, 221)
WRITE = by_machine(1, 64)
EXIT_GROUP = by_machine(231, 94)
_CHDIR, _FCHDIR, _UMASK = by_machine(80, 49), by_machine(81, 50), by_machine(95, 166)
_CLOSE_RANGE, _DUP3, _OPENAT, _OPENAT2 = 436, by_machine(292, 24), by_machine(257, 56), 437
_PRCTL, _PRLIMIT64, _SETPRIORITY = by_machine(157, 167), by_machine(302, 261), by_machine(141, 140)
_RT_SIGPROCMASK = by_machine(14, 135)
_SETGROUPS, _SETRESGID, _SETRESUID = by_machine(116, 159), by_machine(119, 149), by_machine(117, 147)
_SETSID, _SETPGID = by_machine(112, 157), by_machine(109, 154)
_SIG_SETMASK = 2
_ALL = (1 << 64) - 1

# PyDLL keeps the interpreter's lock: nothing is taken or given back in the child
syscall = ctypes.PyDLL(None, use_errno=True).syscall
"""What makes a call by its number and six arguments: integers, or bytes for the address where they are."""
syscall.restype = ctypes.c_long
syscall.argtypes = (ctypes.c_void_p,) * 7


def perform(words: str, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """One step. A call of this module's says that it failed by -1 and errno; any other by its OSError."""
    if function(*arguments) == -1:
        raise failure(words, ctypes.get_errno())


def _call(number: int, *arguments: int | bytes) -> Call:
    return syscall, (number, *arguments, *(0,) * (6 - len(arguments)))


def setsid() -> Call:
    """Lead a session of its own."""
    return _call(_SETSID)


def setpgid() -> Call:
    """Lead a process group of its own."""
    return _call(_SETPGID)


def dup3(fd: int, number: int) -> Call:
    """Have `number` be an inheritable duplicate of `fd`, which is another one."""
    return _call(_DUP3, fd, number)


def close_range(first: int, last: int = LAST_DESCRIPTOR) -> Call:
    """Close all descriptors from `first` to `last`; those not open do not matter."""
    return _call(_CLOSE_RANGE, first, last)


def open_file(path: str, flags: int) -> Call:
    """Open a file as the lowest number that is free, inheritable."""
    return _call(_OPENAT, AT_FDCWD, _string(path), flags)


def chdir(path: str, lowest: int) -> list[Call]:
    """Change the working directory, without following a magic link. `lowest` is the lowest number that is free."""
    if path == "/":
        return [_call(_CHDIR, b"/\0")]
    how = struct.pack("=QQQ", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS)
    return [
        _call(_OPENAT2, AT_FDCWD, _string(path), how, len(how)),
        _call(_FCHDIR, lowest),
        close_range(lowest, lowest),
    ]


def umask(mask: int) -> Call:
    """Set the umask."""
    return _call(_UMASK, mask)


def setrlimit(number: int, soft: int, hard: int) -> Call:
    """Set a resource limit; RLIM_INFINITY is what the module `resource` has."""
    return _call(_PRLIMIT64, 0, number, struct.pack("=2Q", soft & _ALL, hard & _ALL))


def setpriority(nice: int) -> Call:
    """Set this process' nice value."""
    return _call(_SETPRIORITY, os.PRIO_PROCESS, 0, nice)


def set_ids(uid: int, gid: int, groups: Sequence[int]) -> list[Call]:
    """Change the real, effective and saved ids, and the supplementary groups, of a process with one thread."""
    return [
        _call(_SETGROUPS, len(groups), struct.pack(f"={len(groups)}I", *groups)),
        _call(_SETRESGID, gid, gid, gid),
        _call(_SETRESUID, uid, uid, uid),
    ]


def prctl(option: int, argument: int) -> Call:
    """prctl(2) with one argument."""
    return _call(_PRCTL, option, argument)


def unblock_signals() -> Call:
    """Block no signal."""
    return _call(_RT_SIGPROCMASK, _SIG_SETMASK, bytes(8), 0, 8)


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
        """In memory of its own. OSError for a NUL in a string, or a variable that has no name."""
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
            syscall(EXECVE, path, self.argv, self.environment, 0, 0, 0)
            number = ctypes.get_errno()
            if told == errno.ENOENT and number != errno.ENOTDIR:
                told = number
        raise OSError(told, os.strerror(told))


def lay_out(
    paths: Sequence[str], argv: Sequence[str], environment: Mapping[str, str], base: int
) -> tuple[bytes, list[int], int, int]:
    """What is to stand at the address `base`, and the addresses in it that an Image takes. OSError as Image.of's."""
    words = [_bytes(word) for word in argv]
    variables = [_known.get(item) or _variable(item) for item in environment.items()]
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


def _string(text: str) -> bytes:
    return _bytes(text) + b"\0"


def _bytes(text: str) -> bytes:
    return path_bytes("execve", text)


_known: dict[tuple[str, str], bytes] = {}  # of the last environments: most of it is the same for all
_MOST_KNOWN = 256


def _variable(item: tuple[str, str]) -> bytes:
    name, value = item
    if not name or "=" in name:
        raise failure("execve", errno.EINVAL, name, "no name of a variable")
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[item] = encoded = _bytes(name) + b"=" + _bytes(value)
    return encoded
