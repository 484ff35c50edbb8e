"""The steps that mount. Always through handles: nothing is ever resolved twice."""

from __future__ import annotations

import errno
import os
import stat

from lcinit.boot import targets
from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.linux import calls, files, mount, namespaces
from lcinit.plan import steps as s
from lcinit.supervisor.userns import user_namespace_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.values import IdMap

ATTRIBUTES = {
    "ro": mount.MOUNT_ATTR_RDONLY,
    "nosuid": mount.MOUNT_ATTR_NOSUID,
    "nodev": mount.MOUNT_ATTR_NODEV,
    "noexec": mount.MOUNT_ATTR_NOEXEC,
    "noatime": mount.MOUNT_ATTR_NOATIME,
    "nodiratime": mount.MOUNT_ATTR_NODIRATIME,
    "strictatime": mount.MOUNT_ATTR_STRICTATIME,
    "nosymfollow": mount.MOUNT_ATTR_NOSYMFOLLOW,
}

MAGIC = {
    "proc": files.PROC_SUPER_MAGIC,
    "sysfs": files.SYSFS_MAGIC,
    "tmpfs": files.TMPFS_MAGIC,
    "devtmpfs": files.TMPFS_MAGIC,
    "devpts": files.DEVPTS_SUPER_MAGIC,
    "cgroup2": files.CGROUP2_SUPER_MAGIC,
    "mqueue": files.MQUEUE_MAGIC,
}


def unshare_mounts(world: World, step: s.UnshareMounts) -> None:
    """A mount namespace of our own. Slave first: what the outside mounts meanwhile must not be lost half way."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.make_slave("/")
    mount.make_private("/")
    if world.root == "/":
        world.reopen_root()


def check_root(world: World, step: s.CheckRoot) -> None:
    """The guest root is there now."""
    try:
        world.reopen_root()
    except OSError as error:
        raise SystemFailure(
            f"the guest root {step.path} is not there: {error.strerror}",
            hint="mount it there before lcinit starts or in setup.before, or set root: to where it is",
        ) from error


def attach_root(world: World, step: s.AttachRoot) -> None:
    """Bind the root to itself: it needs a mount of its own to be pivoted to, and every mount below is cloned nodev."""
    clone = mount.open_tree(
        world.root_fd, "", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | calls.AT_RECURSIVE | calls.AT_EMPTY_PATH
    )
    try:
        mount.mount_setattr(clone, "", calls.AT_EMPTY_PATH | calls.AT_RECURSIVE, attr_set=mount.MOUNT_ATTR_NODEV)
        if step.id_map is not None:
            _shift_owners(clone, step)
        mount.move_mount(clone, "", world.root_fd, "", mount.MOVE_MOUNT_F_EMPTY_PATH | mount.MOVE_MOUNT_T_EMPTY_PATH)
    finally:
        os.close(clone)
    world.reopen_root()


def _shift_owners(clone: int, step: s.AttachRoot) -> None:
    """The root's own mount, not those below it, becomes idmapped."""
    try:
        set_id_map(clone, step.id_map)
    except OSError as error:
        raise SystemFailure.from_os_error(
            f"mount {step.path} idmapped",
            error,
            hint="its file system cannot; shift the owners in the image, or put the overlay over an idmapped layer",
        ) from error


def set_id_map(mount_fd: int, id_map: IdMap | None, attributes: int = 0, *, recursive: bool = False) -> None:
    """Set attributes of a detached mount, and its owners' shift where there is one (mount_setattr(2))."""
    flags = calls.AT_EMPTY_PATH | (calls.AT_RECURSIVE if recursive else 0)
    if id_map is None:
        mount.mount_setattr(mount_fd, "", flags, attr_set=attributes)
        return
    userns = user_namespace_with(
        [(r.inside, r.outside, r.size) for r in id_map.users], [(r.inside, r.outside, r.size) for r in id_map.groups]
    )
    try:
        mount.mount_setattr(mount_fd, "", flags, attr_set=attributes | mount.MOUNT_ATTR_IDMAP, userns_fd=userns)
    finally:
        os.close(userns)


def attach(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount to the object a handle stands for."""
    mount.move_mount(mount_fd, "", target_fd, "", mount.MOVE_MOUNT_F_EMPTY_PATH | mount.MOVE_MOUNT_T_EMPTY_PATH)


def mount_new(world: World, step: s.MountNew) -> None:
    """A new file system on its target, verified by its magic number once it is attached."""
    attributes = 0
    for word in step.attributes:
        attributes |= ATTRIBUTES[word]
    if step.aside:
        target = _boot_root_directory(step.target)
    else:
        try:
            target = targets.directory(world, step.target, make=not step.optional)
        except FileNotFoundError:
            return
    try:
        fd = mount.new_mount(step.fstype, dict(step.options), attributes, source=step.fstype)
        try:
            if files.statfs_type(fd) != MAGIC[step.fstype]:
                raise SystemFailure(f"what was mounted for /{step.target} is not {step.fstype}")
            covered = _cgroup_below(world) if step.target == "sys" and not step.aside else -1
            attach(fd, target)
            if not step.aside:
                world.mounted[step.target] = os.fstat(fd).st_dev
            if covered >= 0:
                _uncover_cgroup(world, covered)
        finally:
            os.close(fd)
    finally:
        os.close(target)


def _boot_root_directory(name: str) -> int:
    """A handle of a directory of the boot root, made where it is missing."""
    path = f"/{name}"
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        raise SystemFailure.from_os_error(f"make {path}", error, hint=f"create {path} in the boot root") from error
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _cgroup_below(world: World) -> int:
    """A copy of the cgroup hierarchy that the guest's /sys holds already, or -1.

    A shared one is mounted before the user namespace exists, a sysfs of the guest's own network after that.
    """
    try:
        handle = world.open_guest("sys/fs/cgroup", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise
    try:
        return clone_handle(handle) if files.statfs_type(handle) == files.CGROUP2_SUPER_MAGIC else -1
    finally:
        os.close(handle)


def _uncover_cgroup(world: World, hierarchy: int) -> None:
    try:
        target = targets.directory(world, "sys/fs/cgroup", make=False)
        try:
            attach(hierarchy, target)
        finally:
            os.close(target)
    finally:
        os.close(hierarchy)


def make_targets(world: World, step: s.MakeTargets) -> None:
    """Mount points of later steps."""
    for path in step.directories:
        os.close(targets.directory(world, path))
    for path in step.files:
        os.close(targets.regular_file(world, path))


def set_read_only(world: World, step: s.SetReadOnly) -> None:
    """The mount at a target, not what is mounted below it, becomes read-only."""
    target = targets.directory(world, step.target, make=False) if step.target else os.dup(world.root_fd)
    try:
        mount.mount_setattr(target, "", calls.AT_EMPTY_PATH, attr_set=mount.MOUNT_ATTR_RDONLY)
    finally:
        os.close(target)


def mask_paths(world: World, step: s.MaskPaths) -> None:
    """Read-only and hidden parts of the guest's /proc; parts that this kernel does not have are passed over."""
    proc = targets.on_own_mount(world, "proc", targets.directory(world, "proc", make=False))
    try:
        for name in step.read_only:
            _cover(world, proc, name, hide=False)
        for name in step.hidden:
            _cover(world, proc, name, hide=True)
    finally:
        os.close(proc)


def _cover(world: World, proc: int, name: str, *, hide: bool) -> None:
    try:
        target = files.open_in_root(proc, name, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        is_directory = stat.S_ISDIR(os.fstat(target).st_mode)
        if hide and is_directory:
            cover = mount.new_mount("tmpfs", {"mode": "755"}, mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV)
        elif hide:
            cover = clone_handle(target_null := world.open_guest("dev/null"))
            os.close(target_null)
        else:
            cover = clone_handle(target)
            mount.mount_setattr(cover, "", calls.AT_EMPTY_PATH, attr_set=mount.MOUNT_ATTR_RDONLY)
        try:
            attach(cover, target)
        finally:
            os.close(cover)
    finally:
        os.close(target)


def clone_handle(handle: int, *, recursive: bool = False) -> int:
    """A detached bind mount of what a handle stands for."""
    flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | calls.AT_EMPTY_PATH
    return mount.open_tree(handle, "", flags | (calls.AT_RECURSIVE if recursive else 0))


def bind_on_file(world: World, source: int, path: str) -> None:
    """Bind what a handle stands for over the regular file `path` of the guest root, made where it is missing."""
    target = targets.regular_file(world, path)
    try:
        clone = clone_handle(source)
        try:
            attach(clone, target)
        finally:
            os.close(clone)
    finally:
        os.close(target)


def clone_from_new(mount_fd: int, name: str) -> int:
    """A detached bind mount of one file of a new file system that is not attached anywhere.

    Kernels before 6.15 clone from an attached mount only, so it is attached over the boot root's /proc for a moment.
    """
    aside = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attach(mount_fd, aside)
    finally:
        os.close(aside)
    try:
        return mount.open_tree(mount_fd, name, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
    finally:
        mount.umount2("/proc", mount.MNT_DETACH)
