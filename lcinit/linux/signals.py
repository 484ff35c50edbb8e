"""Signals: names, masks, dispositions, and a descriptor to read them from. signal(7), signalfd(2).

Masks are integers with bit n-1 for signal n, as in /proc/PID/status. The standard library's `signal` is left out for
the sake of start-up time: it imports `enum`.
"""

from __future__ import annotations

import ctypes
import os
import struct

from .calls import by_machine, libc, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGHUP = 1
SIGINT = 2
SIGQUIT = 3
SIGILL = 4
SIGTRAP = 5
SIGABRT = 6
SIGBUS = 7
SIGFPE = 8
SIGKILL = 9
SIGUSR1 = 10
SIGSEGV = 11
SIGUSR2 = 12
SIGPIPE = 13
SIGALRM = 14
SIGTERM = 15
SIGSTKFLT = 16
SIGCHLD = 17
SIGCONT = 18
SIGSTOP = 19
SIGTSTP = 20
SIGTTIN = 21
SIGTTOU = 22
SIGURG = 23
SIGXCPU = 24
SIGXFSZ = 25
SIGVTALRM = 26
SIGPROF = 27
SIGWINCH = 28
SIGIO = 29
SIGPWR = 30
SIGSYS = 31
LAST_SIGNAL = 64

_NUMBERS = {name: number for name, number in globals().items() if name.startswith("SIG")}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_NUMBERS |= {"SIGIOT": SIGABRT, "SIGCLD": SIGCHLD, "SIGPOLL": SIGIO}

SIGRTMIN: int = libc.__libc_current_sigrtmin()
"""The first real-time signal that libc leaves to programs: 34 with glibc, 35 with musl."""
SIGRTMAX: int = libc.__libc_current_sigrtmax()

_FULL_MASK = (1 << LAST_SIGNAL) - 1
# What libc keeps below SIGRTMIN for itself: blocked, a setuid() of a process with threads would never end.
_ALL = _FULL_MASK & ~sum(1 << number - 1 for number in range(32, SIGRTMIN))

_SIG_BLOCK = 0
_SIG_SETMASK = 2
_MASK = struct.Struct("=Q")
_RT_SIGACTION = by_machine(13, 134)
_RT_SIGPROCMASK = by_machine(14, 135)
_SIGNALFD4 = by_machine(289, 74)
_SIGNALFD_SIGINFO = struct.Struct("=IiiIIiIIIIii80x")
_BATCH = 32


def signal_number(name: str) -> int:
    """The number of `TERM`, `SIGTERM`, `RTMIN+3`, `SIGRTMAX-1` or `15`. ValueError if there is no such signal."""
    number = _signal_number(name.upper() if name.isascii() else name)
    if number is None:
        raise ValueError(f"no such signal: {name!r}")
    return number


def _signal_number(name: str) -> int | None:
    if name.isascii() and name.isdigit():
        if len(name) > 2 or name.startswith("0") or not 1 <= int(name) <= LAST_SIGNAL:
            return None
        return int(name)
    if not name.startswith("SIG"):
        name = "SIG" + name
    if name.startswith("SIGRTMIN"):
        return _real_time(SIGRTMIN, name[8:], "+")
    if name.startswith("SIGRTMAX"):
        return _real_time(SIGRTMAX, name[8:], "-")
    return _NUMBERS.get(name)


def _real_time(base: int, offset: str, sign: str) -> int | None:
    if not offset:
        return base
    digits = offset[1:]
    if offset[0] != sign or not digits.isascii() or not digits.isdigit() or len(digits) > 2:
        return None
    number = base + int(digits) if sign == "+" else base - int(digits)
    return number if SIGRTMIN <= number <= SIGRTMAX else None


def signal_name(number: int) -> str:
    """`SIGTERM`, `SIGRTMIN+3`; for what has no name, `SIG32`."""
    if number in _NAMES:
        return _NAMES[number]
    if number == SIGRTMIN:
        return "SIGRTMIN"
    if SIGRTMIN < number <= SIGRTMAX:
        return f"SIGRTMIN+{number - SIGRTMIN}"
    return f"SIG{number}"


def mask_of(signals: Iterable[int]) -> int:
    """The mask with these signals. ValueError for a number that is no signal."""
    mask = 0
    for number in signals:
        if not 1 <= number <= LAST_SIGNAL:
            raise ValueError(f"no such signal: {number}")
        mask |= 1 << number - 1
    return mask


def set_mask(mask: int) -> int:
    """Block exactly these signals in this thread; the previous mask."""
    return _sigprocmask(_SIG_SETMASK, mask)


def block_all() -> int:
    """Block every signal but those that cannot be (SIGKILL, SIGSTOP) and libc's own; the previous mask."""
    return _sigprocmask(_SIG_SETMASK, _ALL)


def get_mask() -> int:
    """The signals blocked in this thread."""
    return _sigprocmask(_SIG_BLOCK, 0)


def _sigprocmask(how: int, mask: int) -> int:
    previous = ctypes.c_uint64()
    size = _MASK.size
    syscall("rt_sigprocmask", _RT_SIGPROCMASK, how, _MASK.pack(mask), ctypes.byref(previous), size)
    return previous.value


def reset_signals() -> None:
    """For a child about to exec: every disposition the default, and no signal blocked.

    Signals that exec would pass on as ignored (Python ignores SIGPIPE and SIGXFSZ) are included; the interpreter
    does not learn of it.
    """
    default = bytes(32)  # the kernel's struct sigaction: handler SIG_DFL, no flags, no restorer, empty mask
    for number in range(1, LAST_SIGNAL + 1):
        if number not in (SIGKILL, SIGSTOP):
            syscall("rt_sigaction", _RT_SIGACTION, number, default, None, _MASK.size)
    set_mask(0)


class SignalInfo:
    """One signal as signalfd(2) reports it: who sent it, and for SIGCHLD what `status` and `code` (CLD_*) tell."""

    __slots__ = ("code", "pid", "signo", "status", "uid")

    def __init__(self, signo: int, pid: int, uid: int, status: int, code: int) -> None:
        self.signo = signo
        self.pid = pid
        self.uid = uid
        self.status = status
        self.code = code

    def __repr__(self) -> str:
        return f"SignalInfo({signal_name(self.signo)}, pid={self.pid}, uid={self.uid}, status={self.status})"


class SignalFd:
    """A non-blocking, close-on-exec descriptor from which blocked signals are read. They must be blocked already.

    `signals` None means all. Signals below SIGRTMIN coalesce: one SIGCHLD may stand for many children.
    """

    def __init__(self, signals: Iterable[int] | None = None) -> None:
        mask = _ALL if signals is None else mask_of(signals)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = syscall("signalfd4", _SIGNALFD4, -1, _MASK.pack(mask), _MASK.size, flags)

    def fileno(self) -> int:
        """The descriptor, for an event loop; -1 once closed."""
        return self._fd

    def read(self) -> list[SignalInfo]:
        """Signals pending now, possibly none. Not always all: somebody may send them as fast as they are taken.

        The standard signals come first (signal(7)), each of them once, and a batch has room for all of them.
        """
        try:
            data = os.read(self._fd, _SIGNALFD_SIGINFO.size * _BATCH)
        except BlockingIOError:
            return []
        return [
            SignalInfo(signo, pid, uid, status, code)
            for signo, _, code, pid, uid, _, _, _, _, _, status, _ in _SIGNALFD_SIGINFO.iter_unpack(data)
        ]

    def close(self) -> None:
        """Close the descriptor; the signals stay blocked."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
