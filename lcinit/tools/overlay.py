"""Overlay layers and a writable cache over a directory (Documentation/filesystems/overlayfs.rst of Linux).

Everything is held by a directory handle from the first look on, and the kernel gets the handles: no name of a layer
is ever part of an option string, so commas, colons and backslashes in it mean nothing.
"""

from __future__ import annotations

import errno
import os
import re

from lcinit.errors import EX_CONFIG, SystemFailure, UsageError
from lcinit.linux import files, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PATH = "/mnt/root"
DEFAULT_CACHE = "/mnt/cache/overlay"
MAX_LAYERS = 500  # OVL_MAX_STACK of fs/overlayfs

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Inode = tuple[int, int]


def mount_overlay(path: str, cache: str, layers: Sequence[str] = ()) -> None:
    """Mount an overlay over `path`: below all the directory itself as it was, then each layer above the one before.

    Changes go to CACHE/upper, which is kept from one start to the next; CACHE/temp is emptied at each. Raises
    UsageError for directories inside each other and SystemFailure for what the machine refuses; nothing stays mounted
    then.
    """
    if len(layers) >= MAX_LAYERS:
        raise UsageError(f"{len(layers)} layers are too many: the kernel takes {MAX_LAYERS}, with {path} as the lowest")
    handles: list[int] = []
    try:
        lower = [_open_directory(name, what, handles) for name, what in _lower(path, layers)]
        _refuse_nesting(path, cache, layers, lower)
        upper, work = _prepare_cache(path, cache, lower[0], handles)
        overlay, attached = _new_overlay(path, lower, upper, work)
        handles.append(overlay)
        try:
            _check_writable(path, overlay, upper, cache)
            if not attached:
                mount.move_mount(overlay, "", lower[0], "", 0)
        except (SystemFailure, OSError) as error:
            if attached:
                mount.umount2(f"/proc/self/fd/{overlay}", mount.MNT_DETACH)
            if isinstance(error, OSError):
                raise SystemFailure.from_os_error(f"mount the overlay at {path}", error) from error
            raise
    finally:
        for fd in handles:
            os.close(fd)


def _lower(path: str, layers: Sequence[str]) -> list[tuple[str, str]]:
    return [(path, "directory"), *((layer, "layer") for layer in layers)]


def _open_directory(name: str, what: str, handles: list[int]) -> int:
    try:
        fd = os.open(name, _DIRECTORY)
    except OSError as error:
        raise SystemFailure.from_os_error(f"open the {what} {name}", error) from error
    handles.append(fd)
    return fd


# who may lie inside whom


def _identity(fd: int) -> Inode:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _ancestors(fd: int) -> list[Inode]:
    """The directory's own identity and those of all that it lies in, by handles: no name can lie about them."""
    found = [_identity(fd)]
    at = os.dup(fd)
    try:
        while True:
            parent = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = parent
            identity = _identity(at)
            if identity == found[-1]:
                return found
            found.append(identity)
    finally:
        os.close(at)


def _nearest_existing(path: str) -> tuple[int, bool]:
    """A handle of the path, or of the lowest directory above it that exists; and whether it is the path itself."""
    name = os.path.abspath(path)
    exact = True
    while True:
        try:
            return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), exact
        except FileNotFoundError:
            name, exact = os.path.dirname(name), False
        except OSError as error:
            raise SystemFailure.from_os_error(f"open the cache {path}", error) from error


def _refuse_nesting(path: str, cache: str, layers: Sequence[str], lower: list[int]) -> None:
    names = [path, *layers]
    identities = [_identity(fd) for fd in lower]
    ancestors = [_ancestors(fd) for fd in lower]
    for i, inner in enumerate(names):
        for j, outer in enumerate(names):
            if i != j and identities[j] in ancestors[i]:
                if identities[i] == identities[j]:
                    raise UsageError(f"{inner} and {outer} are the same directory", hint="name each layer once")
                raise UsageError(f"{inner} lies inside {outer}", hint="layers must lie beside each other")
    fd, exact = _nearest_existing(cache)
    try:
        above = _ancestors(fd)
        for name, identity in zip(names, identities, strict=True):
            if identity in above:
                raise UsageError(f"the cache {cache} lies inside {name}", hint="put it elsewhere with --cache")
        if exact:
            for part in ("upper", "temp"):
                _refuse_inside_part(fd, f"{cache}/{part}", part, names, ancestors)
    finally:
        os.close(fd)


def _refuse_inside_part(cache: int, part_name: str, part: str, names: list[str], ancestors: list[list[Inode]]) -> None:
    try:
        status = os.stat(part, dir_fd=cache)
    except FileNotFoundError:
        return
    for name, above in zip(names, ancestors, strict=True):
        if (status.st_dev, status.st_ino) in above:
            raise UsageError(f"{name} lies inside {part_name}", hint="put the cache elsewhere with --cache")


# the cache


def _prepare_cache(path: str, cache: str, lowest: int, handles: list[int]) -> tuple[int, int]:
    """Handles of CACHE/upper and CACHE/temp/w, made where they are missing, the latter empty."""
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        directory = os.open(cache, _DIRECTORY)
        handles.append(directory)
        os.fchmod(directory, 0o700)
        temp, _ = _own_directory(directory, "temp", handles)
        upper, upper_is_new = _own_directory(directory, "upper", handles)
        _refuse_in_use(cache, upper)
        empty_directory(temp)
        os.fchmod(temp, 0o700)
        work, _ = _own_directory(temp, "w", handles)
        if upper_is_new:
            # the upper's root is the root of the result: owned by outer root, the guest's / would be nobody's
            status = os.fstat(lowest)
            os.fchown(upper, status.st_uid, status.st_gid)
            os.fchmod(upper, status.st_mode & 0o7777)
    except OSError as error:
        hint = ""
        if error.errno == errno.EROFS:
            hint = "the cache must be on a writable file system; name another with --cache"
        elif error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
            hint = f"{cache}/upper and {cache}/temp must be directories of the cache's own file system, not links"
        elif error.errno == errno.EOVERFLOW:
            hint = f"{cache} is on an idmapped mount without an id for root or the owner of {path}; put it elsewhere"
        raise SystemFailure.from_os_error(f"prepare the cache {cache}", error, hint=hint) from error
    return upper, work


def _own_directory(parent: int, name: str, handles: list[int]) -> tuple[int, bool]:
    """A handle of the directory `name`, never through a link or into another mount, and whether it is new."""
    new = True
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        new = False
    resolve = files.RESOLVE_BENEATH | files.RESOLVE_NO_SYMLINKS | files.RESOLVE_NO_XDEV
    fd = files.openat2(parent, name, _DIRECTORY | os.O_NOFOLLOW, 0, resolve)
    handles.append(fd)
    return fd, new


def empty_directory(directory: int) -> None:
    """Remove everything in the directory behind the handle: entries only, no link is followed, no depth is too deep.

    A directory inside a directory is moved up first, so that one level of handles does for any tree.
    """
    moved = 0
    while names := os.listdir(directory):
        for name in names:
            try:
                os.unlink(name, dir_fd=directory)
                continue
            except IsADirectoryError:
                pass
            inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                for entry in os.listdir(inner):
                    try:
                        os.unlink(entry, dir_fd=inner)
                    except IsADirectoryError:
                        moved += 1
                        os.rename(entry, f"removed.{os.getpid()}.{moved}", src_dir_fd=inner, dst_dir_fd=directory)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=directory)


def _refuse_in_use(cache: str, upper: int) -> None:
    """The kernel lets two overlays share an upper and then loses changes of both."""
    mine = _identity(upper)
    with open("/proc/self/mountinfo", "rb") as file:
        entries = mount.parse_mountinfo(file.read())
    for entry in entries:
        if entry.fstype != "overlay":
            continue
        for name in _upper_names(entry.super_options):
            try:
                status = os.stat(name)
            except OSError:
                continue  # of another mount namespace, or hidden
            if (status.st_dev, status.st_ino) == mine:
                raise SystemFailure(
                    f"the cache {cache} is in use by the overlay at {entry.mount_point}",
                    hint="unmount that one, or name another cache with --cache",
                )


def _upper_names(super_options: str) -> list[str]:
    """What the upper directory in the options of an overlay may be called: as it stands, or less its backslashes.

    The options are `...,upperdir=U,workdir=W,...`; commas in names are not told from those between options.
    """
    _, found, rest = f",{super_options}".partition(",upperdir=")
    name = rest.partition(",workdir=")[0]
    return [name, re.sub(r"\\(.)", r"\1", name)] if found else []


# the mount


def _new_overlay(path: str, lower: list[int], upper: int, work: int) -> tuple[int, bool]:
    """A handle of the overlay, and whether it is attached at `path` already, as it is with an older kernel."""
    context = -1
    try:
        context = mount.fsopen("overlay")
        mount.fsconfig_string(context, "source", "overlay")
        try:
            mount.fsconfig_fd(context, "workdir", work)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            return _mount_by_numbers(lower, upper, work), True
        mount.fsconfig_fd(context, "upperdir", upper)
        for fd in reversed(lower):  # the first one named is the topmost
            mount.fsconfig_fd(context, "lowerdir+", fd)
        mount.fsconfig_create(context)
        return mount.fsmount(context), False
    except OSError as error:
        reasons = "; ".join(message[2:] for message in mount.mount_log(context)) if context >= 0 else ""
        raise _explained(path, error, reasons) from error
    finally:
        if context >= 0:
            os.close(context)


def _mount_by_numbers(lower: list[int], upper: int, work: int) -> int:
    """Before Linux 6.13 layers are named, all in one string of at most a page, colons and commas escaped.

    The names that the kernel gives our handles hold nothing to escape, are short, and lead nowhere else meanwhile.
    """
    names = ":".join(f"/proc/self/fd/{fd}" for fd in reversed(lower))
    # these two by their own names, which mountinfo shows and _refuse_in_use() reads
    upper_name, work_name = (_escaped(os.readlink(f"/proc/self/fd/{fd}")) for fd in (upper, work))
    data = f"lowerdir={names},upperdir={upper_name},workdir={work_name}"
    target = f"/proc/self/fd/{lower[0]}"
    mount.mount("overlay", target, "overlay", 0, data)
    # the handle is still of what lies below; a name finds what was mounted last
    return os.open(os.readlink(target), _DIRECTORY)


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace(",", "\\,")


def _explained(path: str, error: OSError, reasons: str) -> SystemFailure:
    text = f"{error.strerror}: {reasons}" if reasons else f"{error.strerror}"
    hint = ""
    if error.errno == errno.ENODEV:
        hint = "load the kernel module overlay outside the container"
    elif error.errno == errno.EINVAL:
        hint = "upper and work must be on one file system with xattrs and whiteouts (no overlay, NFS or vfat)"
    elif error.errno == errno.ELOOP:
        hint = "a layer is part of another or of a running overlay"
    return SystemFailure.from_os_error(f"mount the overlay at {path}", OSError(error.errno, text), hint=hint)


def _check_writable(path: str, overlay: int, upper: int, cache: str) -> None:
    """The kernel makes an overlay read-only without a word when it cannot use the upper or work directory."""
    if not os.fstatvfs(overlay).f_flag & os.ST_RDONLY:
        return
    if _is_idmapped(upper):
        why, hint = f"{cache} is on an idmapped mount", "idmap the layers, not the cache"
    elif os.fstatvfs(upper).f_flag & os.ST_RDONLY:
        why, hint = f"{cache} is on a read-only file system", "name a writable one with --cache"
    else:
        why = f"the kernel cannot use the file system of {cache} for changes"
        hint = "it takes one with xattrs and whiteouts, such as ext4, xfs, btrfs or tmpfs"
    raise SystemFailure(f"the overlay at {path} would be read-only: {why}", hint=hint, exit_code=EX_CONFIG)


def _is_idmapped(fd: int) -> bool:
    with open(f"/proc/self/fdinfo/{fd}") as file:
        mount_id = next((line.split()[1] for line in file if line.startswith("mnt_id:")), "")
    with open("/proc/self/mountinfo", "rb") as file:
        for entry in mount.parse_mountinfo(file.read()):
            if str(entry.mount_id) == mount_id:
                return "idmapped" in entry.options
    return False
