"""A process' own properties, pidfds, descriptors, terminals, and the machine's end.

prctl(2), pidfd_open(2), pidfd_send_signal(2), close_range(2), reboot(2), keyctl(2), ioctl_tty(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource

from .calls import by_machine, check, ioctl, libc, path_bytes, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4
LAST_DESCRIPTOR = 0xFFFFFFFF

LINUX_REBOOT_CMD_RESTART = 0x01234567
LINUX_REBOOT_CMD_HALT = 0xCDEF0123
LINUX_REBOOT_CMD_CAD_ON = 0x89ABCDEF
LINUX_REBOOT_CMD_CAD_OFF = 0x00000000
LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC

PIDFD_NONBLOCK = os.O_NONBLOCK

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39

_PIDFD_SEND_SIGNAL = 424
_PIDFD_OPEN = 434
_CLOSE_RANGE = 436
_KEYCTL = by_machine(250, 219)
_KEYCTL_GET_KEYRING_ID = 0
_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEY_SPEC_SESSION_KEYRING = -3

_PTRACE_TRACEME = 0
_PTRACE_DETACH = 17

_TIOCSCTTY = 0x540E
_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414
_TIOCNOTTY = 0x5422
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_TIOCGPTPEER = 0x5441

_prctl = libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_ptrace = libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_reboot = libc.reboot
_reboot.argtypes = (ctypes.c_uint,)
_sethostname = libc.sethostname
_sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = libc.setdomainname
_setdomainname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)


def prctl(name: str, option: int, argument: int = 0, second: int = 0) -> int:
    """prctl(2) with up to two arguments; `name` is the option's, for the error."""
    return check(f"prctl {name}", _prctl(option, argument, second, 0, 0))


def set_dumpable(dumpable: bool) -> None:
    """PR_SET_DUMPABLE: 0 keeps others of the same uid out (ptrace(2)). exec and uid changes reset it."""
    prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, int(dumpable))


def get_dumpable() -> int:
    """0, 1, or 2 (readable by root alone, as fs.suid_dumpable made it)."""
    return prctl("PR_GET_DUMPABLE", _PR_GET_DUMPABLE)


def set_pdeathsig(signal: int) -> None:
    """The signal that this process gets when the thread that made it ends; 0 for none. A uid change clears it.

    A parent that ended before the call sends nothing: compare os.getppid() afterwards.
    """
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal)


def set_child_subreaper(subreaper: bool) -> None:
    """Orphans below this process become its children."""
    prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, int(subreaper))


def set_no_new_privs() -> None:
    """exec grants no more privilege from here on, to this process and all that it makes. Cannot be undone."""
    prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)


def get_no_new_privs() -> bool:
    """Whether set_no_new_privs() was called for this process or one that it descends from."""
    return prctl("PR_GET_NO_NEW_PRIVS", _PR_GET_NO_NEW_PRIVS) == 1


def set_name(name: str) -> None:
    """What ps(1) shows as the command; the kernel keeps 15 bytes."""
    text = ctypes.create_string_buffer(path_bytes("prctl", name)[:15])
    prctl("PR_SET_NAME", _PR_SET_NAME, ctypes.addressof(text))


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A close-on-exec handle of a process, readable once it has ended. ESRCH if there is none."""
    return syscall("pidfd_open", _PIDFD_OPEN, pid, flags)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Signal the process that the handle means, and never one that came after it. ESRCH if it has ended."""
    syscall("pidfd_send_signal", _PIDFD_SEND_SIGNAL, pidfd, signal, None, 0)


def ptrace_traceme() -> None:
    """Have the parent trace this process (ptrace(2)): it stops with SIGTRAP once an exec has succeeded."""
    check("ptrace PTRACE_TRACEME", _ptrace(_PTRACE_TRACEME, 0, None, None))


def ptrace_detach(pid: int) -> None:
    """Let a stopped child that this process traces go on by itself."""
    check("ptrace PTRACE_DETACH", _ptrace(_PTRACE_DETACH, pid, None, None))


def close_range(first: int, last: int = LAST_DESCRIPTOR, flags: int = 0) -> None:
    """Close (or with CLOSE_RANGE_CLOEXEC mark) all descriptors from `first` to `last`; those not open do not matter."""
    syscall("close_range", _CLOSE_RANGE, first, last, flags)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor from 3 on but these; negative numbers stand for none."""
    first = 3
    for fd in sorted(set(kept)):
        if fd > first:
            close_range(first, fd - 1)
        first = max(first, fd + 1)
    close_range(first)


def reboot(command: int) -> None:
    """reboot(2). In a PID namespace other than the first it ends PID 1 with SIGHUP (RESTART) or SIGINT."""
    check("reboot", _reboot(command))


def join_session_keyring(name: str | None = None) -> int:
    """Leave the session keyring for a new one (or one of this name): its serial number.

    EPERM under managers that filter keyctl(2), EDQUOT when the user has too many keys.
    """
    encoded = None if name is None else path_bytes("keyctl", name)
    return syscall("keyctl", _KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, encoded, path=name)


def session_keyring() -> int | None:
    """The serial number of the session keyring; None where the kernel or a manager's filter does not tell."""
    try:
        return syscall("keyctl", _KEYCTL, _KEYCTL_GET_KEYRING_ID, _KEY_SPEC_SESSION_KEYRING, 0)
    except OSError:
        return None


def sethostname(name: str) -> None:
    """The node name of this UTS namespace, at most 64 bytes."""
    encoded = path_bytes("sethostname", name)
    check("sethostname", _sethostname(encoded, len(encoded)), name)


def setdomainname(name: str) -> None:
    """The NIS domain name of this UTS namespace, at most 64 bytes."""
    encoded = path_bytes("setdomainname", name)
    check("setdomainname", _setdomainname(encoded, len(encoded)), name)


def move_up(fd: int, number: int) -> int:
    """A close-on-exec duplicate out of the way of small numbers: `number` or the next that is free.

    Where RLIMIT_NOFILE keeps it lower (EINVAL of fcntl(2)), one of the highest that there are.
    """
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, number)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8))


def set_controlling_tty(fd: int, steal: bool = False) -> None:
    """Make a terminal this session leader's; `steal` takes it from another session (CAP_SYS_ADMIN)."""
    ioctl("TIOCSCTTY", fd, _TIOCSCTTY, int(steal))


def drop_controlling_tty(fd: int) -> None:
    """Give up the controlling terminal."""
    ioctl("TIOCNOTTY", fd, _TIOCNOTTY)


def open_pty(ptmx_fd: int) -> tuple[int, int]:
    """Unlock the pty of a freshly opened ptmx: `(master, slave)`; the master is `ptmx_fd` itself.

    The slave (close-on-exec, no controlling terminal) comes from the master and not by a path, which somebody could
    have replaced. With a ptmx node beside a devpts, and not in it, the kernel still looks for `pts` beside it.
    """
    ioctl("TIOCSPTLCK", ptmx_fd, _TIOCSPTLCK, ctypes.byref(ctypes.c_int(0)))
    return ptmx_fd, ioctl("TIOCGPTPEER", ptmx_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def pty_number(ptmx_fd: int) -> int:
    """The slave's name inside its devpts."""
    number = ctypes.c_uint()
    ioctl("TIOCGPTN", ptmx_fd, _TIOCGPTN, ctypes.byref(number))
    return number.value


def get_window_size(fd: int) -> tuple[int, int]:
    """Rows and columns of a terminal."""
    size = (ctypes.c_ushort * 4)()
    ioctl("TIOCGWINSZ", fd, _TIOCGWINSZ, ctypes.byref(size))
    return size[0], size[1]


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Set a terminal's size; its foreground process group gets SIGWINCH."""
    size = (ctypes.c_ushort * 4)(rows, columns, 0, 0)
    ioctl("TIOCSWINSZ", fd, _TIOCSWINSZ, ctypes.byref(size))
