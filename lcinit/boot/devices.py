"""The guest's /dev: a fresh tmpfs whose nodes are made, not bound, so that their inodes are nobody else's."""

from __future__ import annotations

import errno
import os
import stat

from lcinit import log
from lcinit.boot import mounts, targets
from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.plan import steps as s
from lcinit.plan.devices import LINKS, NODES
from lcinit.plan.guest import matches

# What the guest's /dev has of its own: never copied from outside.
OWN = frozenset(dict((*NODES, *LINKS))) | {"pts", "shm", "mqueue", "console", "initctl"}


def _dev(world: World) -> int:
    return targets.on_own_mount(world, "dev", targets.directory(world, "dev", make=False))


def make_node(world: World, step: s.MakeNode) -> None:
    """One node; where mknod(2) is not permitted, a bind mount of the boot root's."""
    dev = _dev(world)
    try:
        _node(world, dev, step.name, stat.S_IFCHR, os.makedev(*step.device), step.mode)
    finally:
        os.close(dev)


def _node(world: World, directory: int, name: str, kind: int, device: int, mode: int) -> None:
    mask = os.umask(0)  # the mode comes with the node: chmod(2) would follow a link that took its place
    try:
        os.mknod(name, kind | mode, device, dir_fd=directory)
    except PermissionError:
        _bind_node(world, name, kind, device)
        return
    finally:
        os.umask(mask)
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        made = os.fstat(handle)
        if stat.S_IFMT(made.st_mode) != kind or made.st_rdev != device:
            raise SystemFailure(f"/dev/{name} of the guest is not the device that was made")
    finally:
        os.close(handle)
    os.chown(name, *world.owner, dir_fd=directory, follow_symlinks=False)


def _bind_node(world: World, name: str, kind: int, device: int) -> None:
    source = os.open(f"/dev/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        outer = os.fstat(source)
        if stat.S_IFMT(outer.st_mode) != kind or outer.st_rdev != device:
            raise SystemFailure(f"the boot root's /dev/{name} is not the device of that name")
        mounts.bind_on_file(world, source, f"dev/{name}")
    finally:
        os.close(source)


def make_link(world: World, step: s.MakeLink) -> None:
    """One symbolic link, owned by the guest's root."""
    dev = _dev(world)
    try:
        os.symlink(step.to, step.name, dir_fd=dev)
        os.chown(step.name, *world.owner, dir_fd=dev, follow_symlinks=False)
    finally:
        os.close(dev)


def make_initctl(world: World, step: s.MakeInitctl) -> None:
    """The initctl FIFO; its directory's handle goes to the helper, which opens and guards it."""
    world.initctl_directory = _dev(world)
    os.mkfifo("initctl", 0o600, dir_fd=world.initctl_directory)
    os.chown("initctl", *world.owner, dir_fd=world.initctl_directory, follow_symlinks=False)
    world.keeper_needed = True


def copy_devices(world: World, step: s.CopyDevices) -> None:
    """Outer nodes made again inside, with the mode of the outer one, owned by the guest's root."""
    present = _outer_nodes("/dev")
    for glob in step.include:
        if not any(_glob_covers(glob, f"/dev/{name}") for name in present):
            log.warning(f"devices.include: there is no device {glob} here")
    chosen = [name for name in present if _is_wanted(name, step)]
    for name in sorted(chosen):
        outer = os.lstat(f"/dev/{name}")
        head, _, leaf = name.rpartition("/")
        directory = targets.on_own_mount(world, "dev", targets.directory(world, f"dev/{head}" if head else "dev"))
        try:
            kind, mode = stat.S_IFMT(outer.st_mode), stat.S_IMODE(outer.st_mode)
            try:
                _node(world, directory, leaf, kind, outer.st_rdev, mode)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EACCES):
                    raise
                raise SystemFailure.from_os_error(f"bring in /dev/{name}", error) from error
        finally:
            os.close(directory)


def _is_wanted(name: str, step: s.CopyDevices) -> bool:
    path = f"/dev/{name}"
    if name.partition("/")[0] in OWN:
        return False
    if any(_glob_covers(glob, path) for glob in step.include):
        return True
    if not step.inherit:
        return False
    if any(_glob_covers(glob, path) for glob in step.exclude):
        return False
    if not step.rexclude:
        return True
    import re

    return not any(re.search(pattern, name) for pattern in step.rexclude)


def _glob_covers(glob: str, path: str) -> bool:
    glob = glob if glob.startswith("/") else f"/dev/{glob}"
    return matches(path, glob)


def _outer_nodes(top: str) -> list[str]:
    """Device nodes below a directory, relative to it; mounts of other kinds in it (pts, shm) are not entered."""
    found: list[str] = []
    device = os.lstat(top).st_dev
    pending = [""]
    while pending:
        relative = pending.pop()
        with os.scandir(f"{top}/{relative}") as entries:
            for entry in entries:
                name = f"{relative}/{entry.name}" if relative else entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if status.st_dev == device:
                        pending.append(name)
                elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    found.append(name)
    return found
