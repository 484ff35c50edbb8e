"""Bind mounts on which the owners of files appear shifted (mount_setattr(2), "ID-mapped mounts")."""

from __future__ import annotations

import errno
import os

from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, CommandFailed, SystemFailure, UsageError
from lcinit.linux import calls, files, mount, namespaces
from lcinit.record import Record
from lcinit.supervisor.userns import user_namespace_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Never

    Range = tuple[int, int, int]

_TYPES = {"u": "u", "uid": "u", "g": "g", "gid": "g", "b": "ug", "both": "ug"}
_LAST_ID = 2**32 - 2  # 2**32 - 1 is "no id" (chown(2))

# File systems that people meet in containers and that the kernel cannot idmap, by their magic numbers.
_CANNOT = {
    files.OVERLAYFS_SUPER_MAGIC: "overlay",
    files.PROC_SUPER_MAGIC: "proc",
    files.SYSFS_MAGIC: "sysfs",
    files.DEVPTS_SUPER_MAGIC: "devpts",
    files.CGROUP2_SUPER_MAGIC: "cgroup2",
    files.CGROUP_SUPER_MAGIC: "cgroup",
    files.NFS_SUPER_MAGIC: "nfs",
    files.DEBUGFS_MAGIC: "debugfs",
    files.TRACEFS_MAGIC: "tracefs",
    files.SECURITYFS_MAGIC: "securityfs",
    files.MQUEUE_MAGIC: "mqueue",
    files.RAMFS_MAGIC: "ramfs",
}


class Maps(Record):
    """What `--map-mount` or `--map-caller` said: ranges `(inside, outside, size)`, or a namespace that has them."""

    users: tuple[Range, ...] = ()
    groups: tuple[Range, ...] = ()
    namespace: str | None = None


def parse_maps(texts: Sequence[str]) -> Maps:
    """`TYPE:IN:OUT:SIZE` any number of times, or one `/proc/PID/ns/user`. Raises UsageError.

    TYPE is u, g or b (uid, gid, both); numbers are plain decimals.
    """
    users: list[Range] = []
    groups: list[Range] = []
    for text in texts:
        if text.startswith("/"):
            if len(texts) > 1:
                raise UsageError(f"{text} cannot be combined with other maps", hint="a user namespace has a whole map")
            return Maps(namespace=text)
        sides, one = _parse_map(text)
        if "u" in sides:
            users.append(one)
        if "g" in sides:
            groups.append(one)
    return Maps(users=tuple(users), groups=tuple(groups))


def _parse_map(text: str) -> tuple[str, Range]:
    words = text.split(":")
    if len(words) != 4 or words[0] not in _TYPES:
        raise UsageError(f"{text!r} is no id map", hint="TYPE:IN:OUT:SIZE with TYPE u, g or b, as in b:0:1000000:65536")
    numbers = []
    for word in words[1:]:
        if not (word.isascii() and word.isdigit()) or (len(word) > 1 and word[0] == "0") or int(word) > _LAST_ID + 1:
            raise UsageError(f"{word!r} in the id map {text!r} is no number of ids", hint="plain decimals below 2^32")
        numbers.append(int(word))
    inside, outside, size = numbers
    if not size or inside + size - 1 > _LAST_ID or outside + size - 1 > _LAST_ID:
        raise UsageError(f"the id map {text!r} leaves the ids 0-{_LAST_ID}", hint="SIZE counts ids, from 1 on")
    return _TYPES[words[0]], (inside, outside, size)


def open_namespace(maps: Maps) -> int:
    """A descriptor of a user namespace with these maps. Raises SystemFailure or UsageError."""
    if maps.namespace is None:
        return user_namespace_with(maps.users, maps.groups)
    try:
        fd = os.open(maps.namespace, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SystemFailure.from_os_error(f"open the user namespace {maps.namespace}", error) from error
    try:
        is_user = files.statfs_type(fd) == files.NSFS_MAGIC and namespaces.ns_get_nstype(fd) == namespaces.CLONE_NEWUSER
    except OSError:
        is_user = False
    if not is_user:
        os.close(fd)
        raise UsageError(f"{maps.namespace} is no user namespace", hint="name /proc/PID/ns/user")
    return fd


def mount_idmapped(source: str, target: str, maps: Maps, *, recursive: bool = False) -> None:
    """Attach a copy of the mount at `source` at `target`, with the ids of its files mapped; both may be the same path.

    `inside` is the id on the disk, `outside` what appears in the mount. Newer kernels refuse a map with one side only
    (Linux 6.18 does), older ones show nobody there. With `recursive` the mounts below come along, mapped alike. Without
    any map it is a plain bind mount. Raises SystemFailure; nothing is attached then.
    """
    flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | (calls.AT_RECURSIVE if recursive else 0)
    try:
        tree = mount.open_tree(calls.AT_FDCWD, source, flags)
    except OSError as error:
        raise _explained("clone the mount at", source, error) from error
    try:
        if maps != Maps():
            namespace = open_namespace(maps)
            try:
                mount.mount_setattr(tree, "", calls.AT_RECURSIVE if recursive else 0, userns_fd=namespace)
            except OSError as error:
                raise _refused(source, tree, maps, error, recursive=recursive) from error
            finally:
                os.close(namespace)
        _attach(tree, target)
    finally:
        os.close(tree)


def _attach(tree: int, target: str) -> None:
    try:
        # the last word of a path may be a link here, as in every other use of a path in this container
        place = os.open(target, os.O_PATH | os.O_CLOEXEC)
        try:
            mount.move_mount(tree, "", place, "", 0)
        finally:
            os.close(place)
    except OSError as error:
        unlike = error.errno in (errno.ENOTDIR, errno.EINVAL)
        hint = "a directory goes over a directory, a file over a file" if unlike else ""
        raise _explained("attach the mount at", target, error, hint) from error


def _explained(doing: str, path: str, error: OSError, hint: str = "") -> SystemFailure:
    if error.errno == errno.EPERM:
        hint = "it takes CAP_SYS_ADMIN in the user namespace of this mount namespace"
    elif error.errno == errno.ENOSYS:
        hint = "idmapped mounts need Linux 5.12"
    return SystemFailure.from_os_error(
        f"{doing} {path}", OSError(error.errno, os.strerror(error.errno or 0)), hint=hint
    )


def _refused(source: str, tree: int, maps: Maps, error: OSError, *, recursive: bool) -> SystemFailure:
    hint = ""
    if error.errno == errno.EINVAL:
        kind = _CANNOT.get(files.statfs_type(tree))
        if kind == "overlay":
            hint = "overlay cannot be idmapped: idmap its layers first and lay the overlay over them"
        elif kind is not None:
            hint = f"{kind} cannot be idmapped: bind it as it is, or mount it inside the user namespace"
        elif maps.namespace is None and not (maps.users and maps.groups):
            missing = "uid" if maps.groups else "gid"
            hint = f"this kernel wants a {missing} map too: add --map-mount={missing[0]}:IN:OUT:SIZE, or say b"
        elif recursive:
            hint = "a mount below cannot be idmapped: leave out --recursive, or unmount it first"
        else:
            hint = "this kernel cannot idmap this file system; ext4, xfs, btrfs and tmpfs can be"
    elif error.errno == errno.EPERM:
        hint = "the mount is idmapped already, or it takes CAP_SYS_ADMIN where the file system was mounted"
    elif error.errno == errno.ENOSYS:
        hint = "idmapped mounts need Linux 5.12"
    cause = OSError(error.errno, os.strerror(error.errno or 0))
    return SystemFailure.from_os_error(f"idmap the mount of {source}", cause, hint=hint)


def enter_and_execute(maps: Maps, command: Sequence[str]) -> Never:
    """Become root of a new user and mount namespace with these maps, and exec the command in it.

    Raises SystemFailure, or CommandFailed with 126 or 127 when the command cannot be run.
    """
    namespace = open_namespace(maps)
    try:
        namespaces.setns(namespace, namespaces.CLONE_NEWUSER)
        namespaces.unshare(namespaces.CLONE_NEWNS)
        if maps.namespace is not None or any(inside == 0 for inside, _, _ in maps.groups):
            os.setgroups([])
            os.setresgid(0, 0, 0)
        if maps.namespace is not None or any(inside == 0 for inside, _, _ in maps.users):
            os.setresuid(0, 0, 0)
    except OSError as error:
        raise SystemFailure.from_os_error("enter the caller's user namespace", error) from error
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        code = EX_NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else EX_CANNOT_RUN
        raise CommandFailed(f"cannot run {command[0]!r}: {error.strerror}", exit_code=code) from error
