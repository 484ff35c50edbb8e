"""Going into the guest root (pivot_root(2), mount_namespaces(7))."""

from __future__ import annotations

import os

from lcinit.boot import guard
from lcinit.boot.keyring import leave_session_keyring
from lcinit.boot.mounts import attach, clone_handle
from lcinit.boot.world import World
from lcinit.linux import calls, mount
from lcinit.plan import steps as s


def change_root(world: World, step: s.ChangeRoot) -> None:
    """The guest root becomes "/", the boot root is detached, and the working directory is the new root."""
    guard.close()
    if step.mode == "chroot":
        os.fchdir(world.root_fd)
        os.chroot(".")
    else:
        _raise_root(world)
        if step.initramfs:
            # the kernel's own root cannot be pivoted away: cover it, as switch_root does
            mount.move_mount(world.root_fd, "", calls.AT_FDCWD, "/", mount.MOVE_MOUNT_F_EMPTY_PATH)
            os.chroot(".")
        else:
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
