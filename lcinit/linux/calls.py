"""How every wrapper here reaches the kernel: through libc where it has the call, else through syscall(2) by number.

A wrapper returns a value or raises OSError whose strerror begins with the name of the call and whose filename is the
path concerned; no caller ever sees -1. System calls newer than Linux 5.1 have one number on every architecture; the
few older ones used here are chosen by machine (asm/unistd_64.h, asm-generic/unistd.h).
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Path = str | bytes

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

libc = ctypes.CDLL(None, use_errno=True)

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_ioctl = libc.ioctl
_ioctl.restype = ctypes.c_int


class UnsupportedMachine(ImportError):
    """The numbers of the older system calls are known for x86_64 and aarch64 alone."""


def by_machine(x86_64: int, aarch64: int) -> int:
    """The number of a system call on this machine."""
    machine = os.uname().machine
    if machine == "x86_64":
        return x86_64
    if machine in ("aarch64", "arm64"):
        return aarch64
    raise UnsupportedMachine(f"lcinit knows the system calls of x86_64 and aarch64, not of {machine}")


def failure(name: str, number: int, path: Path | None = None, detail: str = "") -> OSError:
    """The OSError of a failed call; its class follows errno, as with those that Python raises."""
    text = f"{name}: {os.strerror(number)}"
    if detail:
        text = f"{text}: {detail}"
    return OSError(number, text) if path is None else OSError(number, text, path)


def check(name: str, result: int, path: Path | None = None) -> int:
    """`result`, unless it is -1: then errno's OSError."""
    if result == -1:
        raise failure(name, ctypes.get_errno(), path)
    return result


def arguments(values: tuple[Any, ...]) -> list[Any]:
    """Arguments of a variadic C function: integers as long (ctypes alone would cut them to int), the rest as it is."""
    return [ctypes.c_long(value) if isinstance(value, int) else value for value in values]


def syscall(name: str, number: int, *args: Any, path: Path | None = None) -> int:
    """syscall(2). Arguments are integers, bytes (a C string or a buffer to read), None for NULL, or ctypes objects."""
    return check(name, _syscall(ctypes.c_long(number), *arguments(args)), path)


def ioctl(name: str, fd: int, request: int, argument: Any = 0) -> int:
    """ioctl(2). `argument` is an integer or a ctypes pointer."""
    return check(name, _ioctl(fd, ctypes.c_ulong(request), *arguments((argument,))))


def path_bytes(name: str, path: Path) -> bytes:
    """A path as the kernel reads it. EINVAL if it holds a NUL, where C would silently end it."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise failure(name, errno.EINVAL, path, "embedded null byte")
    return encoded
