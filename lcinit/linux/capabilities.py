"""Capabilities of this process: capabilities(7), capget(2), prctl(2). Numbers from linux/capability.h."""

from __future__ import annotations

import ctypes
import errno
import struct

from .calls import check, libc
from .process import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
CAPABILITIES: dict[str, int] = {name: number for number, name in enumerate(_NAMES.split())}
"""Number of each capability, by its name in lower case without `cap_`."""

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522
_HEADER = struct.Struct("=Ii")  # version, pid
_DATA = struct.Struct("=6I")  # effective, permitted, inheritable: bits 0-31, then 32-63

_capget = libc.capget
_capget.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
_capset = libc.capset
_capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)


def last_cap() -> int:
    """The highest capability that the kernel knows, found by asking for each: no procfs is needed."""
    number = -1
    while number < 63 and _in_bounding_set(number + 1) is not None:
        number += 1
    return number


def _in_bounding_set(number: int) -> bool | None:
    """None if the kernel does not know the capability."""
    try:
        return prctl("PR_CAPBSET_READ", _PR_CAPBSET_READ, number) == 1
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def bounding_set() -> set[int]:
    """What this process and its children can ever have."""
    return {number for number in range(64) if _in_bounding_set(number)}


def drop_bounding(numbers: Iterable[int]) -> None:
    """Take capabilities out of the bounding set for good. EPERM without setpcap. One the kernel lacks is no error."""
    for number in numbers:
        if _in_bounding_set(number):
            prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, number)


def get_capabilities(pid: int = 0) -> tuple[int, int, int]:
    """Effective, permitted and inheritable set of a process (0: this one) as bit masks."""
    data = ctypes.create_string_buffer(_DATA.size)
    check("capget", _capget(_HEADER.pack(_VERSION_3, pid), data))
    effective, permitted, inheritable, high_effective, high_permitted, high_inheritable = _DATA.unpack(data.raw)
    return effective | high_effective << 32, permitted | high_permitted << 32, inheritable | high_inheritable << 32


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Set this process' sets. EPERM when permitted would grow. Narrowing inheritable narrows ambient too."""
    masks = effective, permitted, inheritable
    data = _DATA.pack(*(mask & 0xFFFFFFFF for mask in masks), *(mask >> 32 for mask in masks))
    check("capset", _capset(_HEADER.pack(_VERSION_3, 0), data))


def clear_ambient() -> None:
    """Empty the ambient set: exec of a plain program keeps nothing."""
    prctl("PR_CAP_AMBIENT_CLEAR_ALL", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient(numbers: Iterable[int]) -> None:
    """Have them outlive the exec of a plain program by an ordinary user. EPERM for one that is not both permitted and
    inheritable.
    """
    for number in numbers:
        prctl("PR_CAP_AMBIENT_RAISE", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def has_capability(name: str) -> bool:
    """Whether the capability is effective now, in this process' user namespace."""
    return bool(get_capabilities()[0] >> CAPABILITIES[name] & 1)
