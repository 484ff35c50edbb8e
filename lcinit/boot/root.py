"""Going into the guest root (pivot_root(2), mount_namespaces(7))."""

from __future__ import annotations

import os

from lcinit.boot import guard
from lcinit.boot.keyring import leave_session_keyring
from lcinit.boot.mounts import attach, clone_handle
from lcinit.boot.world import World
from lcinit.linux import calls, mount
from lcinit.plan import steps as s


def cover_initramfs(world: World, step: s.CoverInitramfs) -> None:
    """Stand on a copy of the initramfs that is mounted over it, so that the root has a parent (pivot_root(2)).

    The other way, moving the guest root over "/" as switch_root(8) does, would let a guest with an id map take its root
    away and find the boot root below: what was mounted in its own namespace is not locked. What is over "/" when the
    user namespace is made is, and pivot_root hands the lock on to the new root (fs/namespace.c).
    """
    copy = mount.open_tree(calls.AT_FDCWD, "/", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | calls.AT_RECURSIVE)
    try:
        mount.move_mount(copy, "", calls.AT_FDCWD, "/", mount.MOVE_MOUNT_F_EMPTY_PATH)
        os.fchdir(copy)  # by its handle: "/" is still the one below
    finally:
        os.close(copy)
    os.chroot(".")


def change_root(world: World, step: s.ChangeRoot) -> None:
    """The guest root becomes "/", the boot root is detached, and the working directory is the new root."""
    guard.close()
    if step.mode == "chroot":
        os.fchdir(world.root_fd)
        os.chroot(".")
    else:
        _raise_root(world)
        # new root over old root in one place: no directory is needed to put the old one (pivot_root(2), NOTES)
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
    os.chdir("/")
    world.root = "/"
    world.reopen_root()
    world.pivoted = True
    leave_session_keyring(world)  # exec.before runs programs of the guest


def _raise_root(world: World) -> None:
    """Put an unlocked copy of the root's whole tree on top of it and go there.

    Mounts that came from a more privileged namespace are locked, and a locked one can be neither moved nor pivoted to;
    the top of a copy is not, while all below it stays locked.
    """
    clone = clone_handle(world.root_fd, recursive=True)
    try:
        attach(clone, world.root_fd)
    finally:
        os.close(clone)
    world.reopen_root()
    os.fchdir(world.root_fd)
