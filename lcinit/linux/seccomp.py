"""seccomp user notification: a filter that has somebody else answer chosen system calls, and the answering.

seccomp(2), seccomp_unotify(2), Documentation/userspace-api/seccomp_filter.rst. Constants from linux/seccomp.h,
linux/audit.h, linux/filter.h and the kernel's system call tables.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from .calls import by_machine, ioctl, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7
AUDIT_ARCH_ARM = 0x40000028
_X32_SYSCALL_BIT = 0x40000000

# (audit architecture, numbers): every way in which a program of this machine can make the call. x32 has the
# architecture of x86_64 and the numbers of its own bit; a 32-bit program has the other architecture.
REBOOT_CALLS: tuple[tuple[int, tuple[int, ...]], ...] = (
    (AUDIT_ARCH_X86_64, (169, 169 | _X32_SYSCALL_BIT)),
    (AUDIT_ARCH_I386, (88,)),
    (AUDIT_ARCH_AARCH64, (142,)),
    (AUDIT_ARCH_ARM, (88,)),
)

SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ALLOW = 0x7FFF0000

_SECCOMP = by_machine(317, 277)
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_GET_ACTION_AVAIL = 2
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3

_BPF_LD_W_ABS = 0x20
_BPF_JMP_JEQ_K = 0x15
_BPF_RET_K = 0x06
_SOCK_FILTER = struct.Struct("=HBBI")  # code, jt, jf, k
_NR, _ARCH = 0, 4  # offsets in struct seccomp_data

_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags; struct seccomp_data: nr, arch, instruction pointer, arguments
_NOTIF_RESP = struct.Struct("=QqiI")  # id, val, error, flags
_SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
_SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
_SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Notification:
    """One call that waits for its answer. `pid` is the calling thread's id in the reader's PID namespace, 0 when that
    does not see it; `arguments` are the six registers as they were, unsigned 64 bits each."""

    def __init__(self, received: bytes) -> None:
        fields = _NOTIF.unpack(received)
        self.id: int = fields[0]
        self.pid: int = fields[1]
        self.arguments: tuple[int, ...] = fields[6:]


def notify_program(calls: Sequence[tuple[int, tuple[int, ...]]]) -> bytes:
    """A classic BPF program that has the named calls answered by the listener and allows all others.

    The architecture is compared before any number is: the same number means another call on another one. It only looks
    at those two words, so that the kernel can tell in advance which calls it need not be run for.
    """
    program: list[bytes] = []
    for arch, numbers in calls:
        block = [_SOCK_FILTER.pack(_BPF_LD_W_ABS, 0, 0, _NR)]
        for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
            block.append(_SOCK_FILTER.pack(_BPF_JMP_JEQ_K, left, 0, number))
        block.append(_SOCK_FILTER.pack(_BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW))
        block.append(_SOCK_FILTER.pack(_BPF_RET_K, 0, 0, SECCOMP_RET_USER_NOTIF))
        program.append(_SOCK_FILTER.pack(_BPF_LD_W_ABS, 0, 0, _ARCH))
        program.append(_SOCK_FILTER.pack(_BPF_JMP_JEQ_K, 0, len(block), arch))
        program += block
    program.append(_SOCK_FILTER.pack(_BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW))
    return b"".join(program)


def listen(program: bytes) -> int:
    """Put a filter on this process and all that it will make, for ever: the descriptor that answers (close-on-exec).

    EACCES without no_new_privs or CAP_SYS_ADMIN in this user namespace; EBUSY when a filter that is above this one has
    a listener already; EINVAL for a kernel without. It is no sandbox, so what the processor may speculate about stays
    as it was (PR_SET_SPECULATION_CONTROL).
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    filter_program = _SockFprog(len(program) // _SOCK_FILTER.size, ctypes.addressof(instructions))
    flags = _SECCOMP_FILTER_FLAG_NEW_LISTENER | _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    return syscall("seccomp", _SECCOMP, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(filter_program))


def can_notify() -> bool:
    """Whether the kernel has user notification at all (Linux 5.0, CONFIG_SECCOMP_FILTER)."""
    action = ctypes.c_uint32(SECCOMP_RET_USER_NOTIF)
    try:
        syscall("seccomp", _SECCOMP, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


def receive(listener: int) -> Notification | None:
    """The next call that waits; None when its caller was killed meanwhile. It blocks: poll the descriptor first."""
    buffer = ctypes.create_string_buffer(_NOTIF.size)
    try:
        ioctl("SECCOMP_IOCTL_NOTIF_RECV", listener, _SECCOMP_IOCTL_NOTIF_RECV, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    return Notification(buffer.raw)


def answer(listener: int, identity: int, error: int = 0, value: int = 0) -> bool:
    """Have the call return `value`, or -1 with `error` as errno; false when nobody waits for it any more."""
    response = ctypes.create_string_buffer(_NOTIF_RESP.pack(identity, value, -error, 0), _NOTIF_RESP.size)
    try:
        ioctl("SECCOMP_IOCTL_NOTIF_SEND", listener, _SECCOMP_IOCTL_NOTIF_SEND, response)
    except OSError as failed:
        if failed.errno == errno.ENOENT:
            return False
        raise
    return True


def is_waiting(listener: int, identity: int) -> bool:
    """Whether the call still waits. If so, whatever was opened below /proc/PID before this question is its caller's."""
    number = ctypes.c_uint64(identity)
    try:
        ioctl("SECCOMP_IOCTL_NOTIF_ID_VALID", listener, _SECCOMP_IOCTL_NOTIF_ID_VALID, ctypes.byref(number))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True
