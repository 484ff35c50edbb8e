"""Facts about PID 1's cgroup, and taking one for the guest (cgroup v2, "Delegation")."""

from __future__ import annotations

import errno
import fcntl
import os

from lcinit import log
from lcinit.boot.cgroup_tree import children, limit, read, removal, write
from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.linux import files, mount, namespaces
from lcinit.plan import steps as s
from lcinit.plan.facts import Cgroup

PREFIX = "lcinit-"
SUPERVISOR = "lcinit"
# No cgroup2 in this kernel, no right to mount or read it, or a cgroup outside of what the namespace shows.
_OUT_OF_REACH = frozenset((errno.ENODEV, errno.EPERM, errno.EACCES, errno.EBUSY, errno.ENOENT, errno.ELOOP))


def own_path(procfs: int | None = None) -> str | None:
    """PID 1's place in the cgroup2 hierarchy as its cgroup namespace shows it; None without one (cgroups(7)).

    `procfs` is a handle of one, where that at /proc is not to be used.
    """
    for line in _own_cgroups(procfs).splitlines():
        hierarchy, _, rest = line.partition(":")
        if hierarchy == "0":
            return rest.partition(":")[2] or "/"
    return None


def _own_cgroups(procfs: int | None) -> str:
    if procfs is not None:
        return os.fsdecode(namespaces.read_own_proc_file(procfs, "cgroup"))
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def open_hierarchy() -> int:
    """A private, detached mount of the cgroup2 hierarchy: what the manager mounted, or did not, plays no part."""
    return mount.new_mount("cgroup2", {}, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC)


def look_at_own(procfs: int, own: frozenset[int] = frozenset(), *, first: bool = False) -> Cgroup | None:
    """What the plan needs of PID 1's cgroup; None where there is no cgroup2 hierarchy or it cannot be seen.

    `own` are PIDs of children that will have ended before the cgroup is taken: they do not count as company. Raises
    OSError for a failure that says neither. `first`: this is the machine's first process. The kernel tells no process
    its cgroup before somebody has mounted the hierarchy once (kernel/cgroup/cgroup.c, cgrp_dfl_visible); only there
    nobody else's idea of this machine's hierarchies is changed by doing so.
    """
    path = own_path(procfs)
    if path is None and first:
        path = "/"
    if path is None or "/.." in path:
        return None
    try:
        hierarchy = open_hierarchy()
    except OSError as error:
        if error.errno not in _OUT_OF_REACH:
            raise
        return None
    try:
        directory = files.open_in_root(hierarchy, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _look_at(directory, path, own | {os.getpid()})
        finally:
            os.close(directory)
    except OSError as error:
        if error.errno not in _OUT_OF_REACH:
            raise
        return None
    finally:
        os.close(hierarchy)


def _look_at(directory: int, path: str, own: frozenset[int]) -> Cgroup:
    pids = {int(pid) for pid in read(directory, "cgroup.procs").split()}
    names = os.listdir(directory)
    return Cgroup(
        path=path,
        alone=pids <= own,
        empty=not children(directory),
        root="cgroup.events" not in names,
        writable=os.access("cgroup.procs", os.W_OK, dir_fd=directory),
        controllers=bool(_controllers(directory)),
    )


def take_cgroup(world: World, step: s.TakeCgroup) -> None:
    """Make the guest's cgroup and give its root what the kernel lists for delegation, and nothing above it.

    A leaf is not entered: the guest's first process will be born there (CLONE_INTO_CGROUP).
    """
    if step.how == "none":
        return
    hierarchy = open_hierarchy()
    try:
        directory = files.open_in_root(hierarchy, step.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if step.how == "leaf" and step.controllers:
                _leave(directory, os.getppid())
            if step.controllers:
                _enable_controllers(directory)
            if step.how in ("own", "child"):
                world.keeper_parent = os.dup(directory)
            if step.how in ("child", "leaf"):
                child = _make_child(directory, enter=step.how == "child")
                os.close(directory)
                directory = child
                _limit(directory)
            if step.chown:
                _give(directory, step.files, world.owner)
            if step.how == "leaf":
                world.guest_cgroup = os.dup(directory)
            elif world.config.services is not None:
                world.service_cgroup = os.dup(directory)
        finally:
            os.close(directory)
    finally:
        os.close(hierarchy)


def _limit(directory: int) -> None:
    """What is not among the files for delegation the guest's root cannot undo, if it is not the machine's."""
    try:
        limit(directory)
    except OSError as error:
        log.debug(f"the guest may make as many cgroups as it likes: {error.strerror}")


def make_keeper_cgroup(world: World) -> int:
    """A handle of a new cgroup for the process that will be the keeper; -1 where it does well without.

    systemd moves what it finds beside itself into its init.scope, where the guest may freeze or kill it: so it is put
    beside the guest's cgroup, or into a child where the guest has PID 1's own. That child outlives the boot, and other
    inits leave the keeper where it is.
    """
    parent, world.keeper_parent = world.keeper_parent, -1
    if parent < 0:
        return -1
    try:
        return _make_child(parent, enter=False) if world.init_kind == "systemd" else -1
    finally:
        os.close(parent)


def _controllers(directory: int) -> list[str]:
    """What the cgroup above lets this one have."""
    return read(directory, "cgroup.controllers").decode("ascii").split()


def _enable_controllers(directory: int) -> None:
    """Each for itself: one that cannot be had now, as cpu while there are real-time processes, keeps no other away."""
    for name in _controllers(directory):
        try:
            write(directory, "cgroup.subtree_control", f"+{name}".encode())
        except OSError as error:
            log.warning(f"the guest has no cgroup controller {name}: {error.strerror}")


def _leave(directory: int, supervisor: int) -> None:
    """Put PID 1 and this process, its builder, into a leaf of their own, which stays for later starts."""
    try:
        os.mkdir(SUPERVISOR, 0o755, dir_fd=directory)
    except FileExistsError:
        pass  # an earlier start made it
    leaf = os.open(SUPERVISOR, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        for pid in (supervisor, os.getpid()):
            write(leaf, "cgroup.procs", b"%d" % pid)
    finally:
        os.close(leaf)


def _make_child(parent: int, *, enter: bool) -> int:
    """A new child cgroup, with PID 1 in it if it is to enter. Empty ones that earlier boots left are removed first.

    Another lcinit may do the same here at this moment: one that nobody has entered yet is held by a lock for as long as
    its handle, or a copy of that, is open (flock(2)).
    """
    for name in children(parent):
        if _is_of_a_boot(name):
            _remove_empty(parent, name)
    for number in range(1000):
        name = f"{PREFIX}{os.getpid()}-{number}"
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except (FileExistsError, FileNotFoundError):
            continue
        if not _hold(child, parent, name):
            os.close(child)
            continue
        if not enter:
            return child
        try:
            write(child, "cgroup.procs", b"0")
        except FileNotFoundError:
            os.close(child)
            continue
        except OSError as error:
            os.close(child)
            os.rmdir(name, dir_fd=parent)
            raise SystemFailure.from_os_error(f"enter the cgroup {name}", error) from error
        return child
    raise SystemFailure("cannot make a child cgroup: a thousand names are taken")


def _hold(child: int, parent: int, name: str) -> bool:
    """Keep a new cgroup from being removed as an old one; false where that has happened already."""
    try:
        fcntl.flock(child, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(child), os.stat(name, dir_fd=parent, follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        return False


def _is_of_a_boot(name: str) -> bool:
    """Whether a cgroup has a name that this module gives: all others, whatever they begin with, are somebody else's."""
    pid, dash, number = name.removeprefix(PREFIX).partition("-")
    return name.startswith(PREFIX) and bool(dash) and pid.isdigit() and number.isdigit()


def _remove_empty(parent: int, name: str) -> None:
    """Remove a cgroup and those below it, as far as nobody lives there."""
    try:
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for _ in removal(directory):
            pass
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return  # somebody lives there or is about to, or it went by itself
    finally:
        os.close(directory)


def _give(directory: int, names: tuple[str, ...], owner: tuple[int, int]) -> None:
    os.fchown(directory, *owner)
    for name in names:
        try:
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # the controller that has this file is not enabled here
