"""Opening files below a directory handle without being led astray, and knowing the file system that holds them.

openat2(2), fstatfs(2), renameat2(2); magic numbers from linux/magic.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .calls import by_machine, check, failure, libc, path_bytes, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .calls import Path

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

ANON_INODE_FS_MAGIC = 0x09041934
BINFMTFS_MAGIC = 0x42494E4D
BPF_FS_MAGIC = 0xCAFE4A11
BTRFS_SUPER_MAGIC = 0x9123683E
CGROUP2_SUPER_MAGIC = 0x63677270
CGROUP_SUPER_MAGIC = 0x27E0EB
DEBUGFS_MAGIC = 0x64626720
DEVPTS_SUPER_MAGIC = 0x1CD1
EROFS_SUPER_MAGIC_V1 = 0xE0F5E1E2
EXT4_SUPER_MAGIC = 0xEF53
FUSE_SUPER_MAGIC = 0x65735546
HUGETLBFS_MAGIC = 0x958458F6
MQUEUE_MAGIC = 0x19800202
NFS_SUPER_MAGIC = 0x6969
NSFS_MAGIC = 0x6E736673
OVERLAYFS_SUPER_MAGIC = 0x794C7630
PROC_SUPER_MAGIC = 0x9FA0
PSTOREFS_MAGIC = 0x6165676C
RAMFS_MAGIC = 0x858458F6
SECURITYFS_MAGIC = 0x73636673
SQUASHFS_MAGIC = 0x73717368
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
TRACEFS_MAGIC = 0x74726163
XFS_SUPER_MAGIC = 0x58465342

_OPENAT2 = 437
_RENAMEAT2 = by_machine(316, 276)
_OPEN_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_OPEN_ATTEMPTS = 64

_fstatfs = libc.fstatfs
_fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)


def openat2(dirfd: int, path: Path, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dirfd` as RESOLVE_* demand. The descriptor is close-on-exec only if `flags` say so.

    The kernel answers EAGAIN when something was renamed meanwhile and it cannot tell that the path stayed inside;
    that is tried again a bounded number of times, so that an endless rename loop ends in EAGAIN and not in a hang.
    """
    how = _OPEN_HOW.pack(flags, mode, resolve)
    name = path_bytes("openat2", path)
    for _ in range(_OPEN_ATTEMPTS - 1):
        try:
            return syscall("openat2", _OPENAT2, dirfd, name, how, len(how), path=path)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
    return syscall("openat2", _OPENAT2, dirfd, name, how, len(how), path=path)


def open_in_root(root_fd: int, path: Path, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open `path` as if `root_fd` were `/`, refusing every symbolic link (ELOOP). Always close-on-exec."""
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
    return openat2(root_fd, path, flags | os.O_CLOEXEC, mode, resolve)


def statfs_type(fd: int) -> int:
    """The magic number of the file system that holds `fd`, which may be an O_PATH descriptor."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes; f_type, a long, comes first
    check("fstatfs", _fstatfs(fd, buffer))
    return int.from_bytes(buffer.raw[:4], "little")


def check_statfs_type(fd: int, magic: int, path: Path) -> None:
    """Refuse (EXDEV) a descriptor that is not on a file system with this magic number. `path` is for the message."""
    found = statfs_type(fd)
    if found != magic:
        raise failure("fstatfs", errno.EXDEV, path, f"file system type {found:#x}, expected {magic:#x}")


def renameat2(olddirfd: int, old: Path, newdirfd: int, new: Path, flags: int = 0) -> None:
    """Rename, with RENAME_EXCHANGE, RENAME_NOREPLACE or RENAME_WHITEOUT."""
    old_name, new_name = path_bytes("renameat2", old), path_bytes("renameat2", new)
    syscall("renameat2", _RENAMEAT2, olddirfd, old_name, newdirfd, new_name, flags, path=old)
