"""The descriptor-based mount API: fsopen(2), fsconfig(2), fsmount(2), fspick(2), open_tree(2), move_mount(2),
mount_setattr(2); and pivot_root(2), umount2(2), mount(2) of the older one. Constants from linux/mount.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .calls import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, by_machine, check, failure, libc, path_bytes, syscall
from .mountinfo import MountInfo as MountInfo
from .mountinfo import parse_mountinfo as parse_mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .calls import Path

    OptionValue = str | bytes | int | None

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_SYMLINKS = 0x01
MOVE_MOUNT_F_AUTOMOUNTS = 0x02
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_AUTOMOUNTS = 0x20
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_SET_GROUP = 0x100
MOVE_MOUNT_BENEATH = 0x200

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

FSPICK_CLOEXEC = 1
FSPICK_SYMLINK_NOFOLLOW = 2
FSPICK_NO_AUTOMOUNT = 4
FSPICK_EMPTY_PATH = 8

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
FSCONFIG_STRING_MAX = 255
"""The longest value in bytes that FSCONFIG_SET_STRING takes (fs/fsopen.c copies 256 with the final NUL)."""

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _FSPICK, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 433, 442
_PIVOT_ROOT = by_machine(155, 41)
_STATX = by_machine(332, 291)
_STATX_MNT_ID = 0x1000
_STX_MNT_ID = 0x90  # offset of stx_mnt_id
_MOUNT_ATTR = struct.Struct("=QQQQ")  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd

_umount2 = libc.umount2
_umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_mount = libc.mount
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def open_tree(dirfd: int, path: Path, flags: int) -> int:
    """A handle of a mount, or with OPEN_TREE_CLONE of a detached copy (of all below it too with AT_RECURSIVE)."""
    return syscall("open_tree", _OPEN_TREE, dirfd, path_bytes("open_tree", path), flags, path=path)


def move_mount(from_fd: int, from_path: Path, to_fd: int, to_path: Path, flags: int) -> None:
    """Attach or move a mount. An empty path means the descriptor itself, and sets the flag that says so."""
    if not from_path:
        flags |= MOVE_MOUNT_F_EMPTY_PATH
    if not to_path:
        flags |= MOVE_MOUNT_T_EMPTY_PATH
    source, target = path_bytes("move_mount", from_path), path_bytes("move_mount", to_path)
    syscall("move_mount", _MOVE_MOUNT, from_fd, source, to_fd, target, flags, path=to_path or None)


def mount_setattr(
    dirfd: int,
    path: Path,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int | None = None,
) -> None:
    """Change a mount (with AT_RECURSIVE the whole tree, all or nothing). A `userns_fd` idmaps it."""
    if userns_fd is not None:
        attr_set |= MOUNT_ATTR_IDMAP
    attributes = _MOUNT_ATTR.pack(attr_set, attr_clr, propagation, 0 if userns_fd is None else userns_fd)
    if not path:
        flags |= AT_EMPTY_PATH
    name = path_bytes("mount_setattr", path)
    syscall("mount_setattr", _MOUNT_SETATTR, dirfd, name, flags, attributes, len(attributes), path=path or None)


def make_private(path: Path = "/", recursive: bool = True) -> None:
    """Mounts and unmounts below `path` are neither seen elsewhere nor come from there (mount_namespaces(7))."""
    mount_setattr(AT_FDCWD, path, AT_RECURSIVE if recursive else 0, propagation=MS_PRIVATE)


def make_slave(path: Path = "/", recursive: bool = True) -> None:
    """Mounts below `path` are not seen elsewhere; those made by the former peers still arrive."""
    mount_setattr(AT_FDCWD, path, AT_RECURSIVE if recursive else 0, propagation=MS_SLAVE)


def make_shared(path: Path = "/", recursive: bool = True) -> None:
    """Mounts below `path` are seen by peers, as a guest that boots systemd expects of its root."""
    mount_setattr(AT_FDCWD, path, AT_RECURSIVE if recursive else 0, propagation=MS_SHARED)


def fsopen(fstype: str) -> int:
    """A context for a new file system of this type. ENODEV: the kernel has no such type."""
    return syscall("fsopen", _FSOPEN, path_bytes("fsopen", fstype), _FSOPEN_CLOEXEC, path=fstype)


def fspick(dirfd: int, path: Path, flags: int = 0) -> int:
    """A context for reconfiguring the mounted file system at `path`. Always close-on-exec."""
    if not path:
        flags |= FSPICK_EMPTY_PATH
    return syscall("fspick", _FSPICK, dirfd, path_bytes("fspick", path), flags | FSPICK_CLOEXEC, path=path or None)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set an option that has no value, such as `ro`."""
    syscall("fsconfig", _FSCONFIG, fd, FSCONFIG_SET_FLAG, path_bytes("fsconfig", key), None, 0, path=key)


def fsconfig_string(fd: int, key: str, value: Path) -> None:
    """Set an option. The value is literal: commas, colons and backslashes need no escaping, unlike in mount(2).

    A value of more than 255 bytes is EINVAL here with its reason, where the kernel would give none.
    """
    encoded = path_bytes("fsconfig", value)
    shown = f"{key}={os.fsdecode(value)}"
    if len(encoded) > FSCONFIG_STRING_MAX:
        reason = f"value of {len(encoded)} bytes, the kernel takes {FSCONFIG_STRING_MAX}"
        raise failure("fsconfig", errno.EINVAL, shown, reason)
    syscall("fsconfig", _FSCONFIG, fd, FSCONFIG_SET_STRING, path_bytes("fsconfig", key), encoded, 0, path=shown)


def fsconfig_fd(fd: int, key: str, value_fd: int) -> None:
    """Set an option to a file handle, where the file system takes one (overlay layers since Linux 6.13)."""
    syscall("fsconfig", _FSCONFIG, fd, FSCONFIG_SET_FD, path_bytes("fsconfig", key), None, value_fd, path=key)


def fsconfig_create(fd: int) -> None:
    """Make the superblock that the options describe."""
    syscall("fsconfig", _FSCONFIG, fd, FSCONFIG_CMD_CREATE, None, None, 0)


def fsconfig_reconfigure(fd: int) -> None:
    """Apply the options to the superblock that fspick() chose."""
    syscall("fsconfig", _FSCONFIG, fd, FSCONFIG_CMD_RECONFIGURE, None, None, 0)


def fsmount(fd: int, attributes: int = 0) -> int:
    """A detached mount of the superblock, with MOUNT_ATTR_*. Always close-on-exec."""
    return syscall("fsmount", _FSMOUNT, fd, _FSMOUNT_CLOEXEC, attributes)


def mount_log(fd: int) -> list[str]:
    """The messages that the kernel left in a file system context, oldest first, and takes away by reading.

    Each begins with `e `, `w ` or `i ` for error, warning, information.
    """
    messages: list[str] = []
    while True:
        try:
            message = os.read(fd, 4096)
        except OSError as error:
            if error.errno == errno.ENODATA:
                return messages
            raise failure("read", error.errno or errno.EIO, None, "messages of a mount") from error
        messages.append(os.fsdecode(message).rstrip("\n"))


def new_mount(
    fstype: str,
    options: Mapping[str, OptionValue] | Iterable[tuple[str, OptionValue]] = (),
    attributes: int = 0,
    source: str | None = None,
) -> int:
    """A detached mount of a new file system, as a close-on-exec descriptor for move_mount().

    An option is None for a flag, an integer printed in decimal, or a literal string; pairs instead of a mapping may
    repeat a key (`lowerdir+`). An OSError's strerror ends with what the kernel said about the reason, if anything.
    """
    pairs = options.items() if hasattr(options, "items") else options
    context = fsopen(fstype)
    try:
        if source is not None:
            fsconfig_string(context, "source", source)
        for key, value in pairs:
            if value is None:
                fsconfig_flag(context, key)
            else:
                fsconfig_string(context, key, str(value) if isinstance(value, int) else value)
        fsconfig_create(context)
        return fsmount(context, attributes)
    except OSError as error:
        reasons = "; ".join(message[2:] for message in mount_log(context))
        concerned = fstype if error.filename is None else error.filename
        text = f"{error.strerror}: {reasons}" if reasons else error.strerror
        raise OSError(error.errno, text, concerned) from error
    finally:
        os.close(context)


def mount_id(fd: int) -> int:
    """The number of the mount that a descriptor is on, as in mountinfo (statx(2), Linux 5.8)."""
    buffer = ctypes.create_string_buffer(256)  # struct statx
    syscall("statx", _STATX, fd, b"", AT_EMPTY_PATH, _STATX_MNT_ID, ctypes.addressof(buffer))
    return int.from_bytes(buffer.raw[_STX_MNT_ID : _STX_MNT_ID + 8], "little")


def mount(source: Path | None, target: Path, fstype: str | None, flags: int, data: Path | None = None) -> None:
    """mount(2), for what the newer calls cannot do. Follows links in `target`: only for paths that are trusted."""
    arguments = [None if text is None else path_bytes("mount", text) for text in (source, target, fstype)]
    check("mount", _mount(*arguments, flags, None if data is None else path_bytes("mount", data)), target)


def umount2(path: Path, flags: int = 0) -> None:
    """Unmount what is mounted last at `path`."""
    check("umount2", _umount2(path_bytes("umount2", path), flags), path)


def pivot_root(new: Path, old: Path) -> None:
    """Make `new` the root mount and attach the former one at `old`. `(".", ".")` stacks it over the new one.

    EINVAL from an initramfs, from a locked mount, or where `new` or its parent is shared (pivot_root(2)).
    """
    syscall("pivot_root", _PIVOT_ROOT, path_bytes("pivot_root", new), path_bytes("pivot_root", old), path=new)
