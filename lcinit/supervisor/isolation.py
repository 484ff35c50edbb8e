"""What a process does to itself between its fork and its exec: a service's isolation, as steps in their order.

The parent makes the list, so that the child has as little to do as can be; each step has the words that its failure is
reported with. After a failure there is no exec: nothing ever runs half isolated.
"""

from __future__ import annotations

import errno
import os
import resource

from lcinit.linux import capabilities, files, mount, namespaces, prepared, process
from lcinit.linux.calls import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE
from lcinit.linux.capabilities import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.linux.prepared import Step
    from lcinit.supervisor.program import Identity, Program

PRIVATE_TMP = ("/tmp", "/var/tmp")
_LIMITS = {
    getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


def mounts(program: Program) -> list[Step]:
    """A mount namespace of its own, where it wants one. Later mounts of the guest still arrive in it."""
    if not program.private_tmp and not program.read_only_paths:
        return []
    steps: list[Step] = [("make a mount namespace", _own_mounts, ())]
    steps += [(f"make {path} read-only", _make_read_only, (path,)) for path in program.read_only_paths]
    if program.private_tmp:
        # after those, so that it can be written to where all of the root cannot
        steps += [(f"mount a private {path}", _mount_tmp, (path,)) for path in PRIVATE_TMP]
    return steps


def priorities(program: Program) -> list[Step]:
    """Resource limits, then the nice value, which RLIMIT_NICE may allow."""
    steps: list[Step] = []
    # of several for one resource the last one counts
    for number, values in {number: (soft, hard) for number, soft, hard in program.limits}.items():
        soft, hard = [resource.RLIM_INFINITY if value is None else value for value in values]
        name = _LIMITS.get(number, str(number))
        steps.append((f"set limits ({name})", *prepared.setrlimit(number, soft, hard)))
    if program.nice is not None:
        steps.append(("set the nice value", *prepared.setpriority(program.nice)))
    return steps


def bounding(program: Program) -> list[Step]:
    """What it may ever have; while uid 0 has the capability for that, and before another could be kept."""
    if program.capabilities is None:
        return []
    return [("reduce the bounding set", _reduce_bounding, (program.capabilities,))]


def becoming(identity: Identity, keep: bool) -> list[Step]:
    """A change to these ids; `keep` the permitted capabilities. For a uid other than 0 the effective ones are gone."""
    calls = prepared.set_ids(identity.uid, identity.gid, identity.groups)
    if keep:
        calls.insert(0, prepared.prctl(process.PR_SET_KEEPCAPS, 1))
    # the change may have set what fs.suid_dumpable says (proc_sys_fs(5)), and then what the child has of its parent's
    # memory is there for its user to read until the exec
    calls.append(prepared.prctl(process.PR_SET_DUMPABLE, 0))
    return [("change user", *call) for call in calls]


def privileges(program: Program) -> list[Step]:
    """Capabilities in their last form, which an exec keeps, also that of an ordinary user."""
    if program.capabilities is None:
        return []
    return [("set capabilities", _set_capabilities, (program.capabilities,))]


def place(program: Program, lowest: int) -> list[Step]:
    """The working directory and the umask. With its own ids and in its own mounts, as systemd does it.

    A directory that the user may not enter is refused so, and a root-squashing NFS lets only its user in. No magic link
    is followed: /proc/PID/fd may lead to what has no name in this root. `lowest` is the lowest descriptor that is free.
    """
    steps: list[Step] = []
    if program.cwd is not None:
        steps += [(f"enter {program.cwd}", *call) for call in prepared.chdir(program.cwd, lowest)]
    steps.append(("set the umask", *prepared.umask(program.umask)))
    if program.no_new_privileges:
        steps.append(("forbid new privileges", *prepared.prctl(process.PR_SET_NO_NEW_PRIVS, 1)))
    return steps


def mask_of(names: tuple[str, ...]) -> int:
    """The bits of capabilities. OSError for a name that there is not."""
    mask = 0
    for name in names:
        if name not in CAPABILITIES:
            raise OSError(errno.EINVAL, "", f"there is no {name}")
        mask |= 1 << CAPABILITIES[name]
    return mask


def open_terminal(path: str) -> None:
    """A terminal as all three standard streams. ENOTTY for what is none. It is never waited for."""
    fd = _open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    if not os.isatty(fd):
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
    os.set_blocking(fd, True)
    for number in (0, 1, 2):
        os.dup2(fd, number, inheritable=True)
    if fd > 2:
        os.close(fd)


def _open(path: str, flags: int) -> int:
    """Open without following a magic link: /proc/PID/fd may lead to what has no name in this root."""
    return files.openat2(AT_FDCWD, path, flags | os.O_CLOEXEC, 0, files.RESOLVE_NO_MAGICLINKS)


def _own_mounts() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    try:
        mount.make_slave("/")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # this root is a plain directory (chroot): make a mount of it, and stand on that
        copy = mount.open_tree(AT_FDCWD, "/", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | AT_RECURSIVE)
        mount.mount_setattr(copy, "", AT_RECURSIVE, propagation=mount.MS_SLAVE)
        mount.move_mount(copy, "", AT_FDCWD, "/", 0)
        os.fchdir(copy)
        os.chroot(".")
        os.close(copy)


def _make_read_only(path: str) -> None:
    """It and all that is mounted below, on a copy that is put over it."""
    target = _open(path, os.O_PATH)
    if _is_root(target):
        mount.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, attr_set=mount.MOUNT_ATTR_RDONLY)
    else:
        flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE
        copy = mount.open_tree(target, "", flags)
        mount.mount_setattr(copy, "", AT_RECURSIVE, attr_set=mount.MOUNT_ATTR_RDONLY)
        mount.move_mount(copy, "", target, "", 0)
        os.close(copy)
    os.close(target)


def _is_root(fd: int) -> bool:
    """Whether it is this process' root, over which nothing can be mounted that it would see."""
    if not os.path.samestat(os.fstat(fd), os.stat("/")):
        return False
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    same = mount.mount_id(fd) == mount.mount_id(root)
    os.close(root)
    return same


def _mount_tmp(path: str) -> None:
    target = _open(path, os.O_PATH | os.O_DIRECTORY)
    tmpfs = mount.new_mount("tmpfs", {"mode": "1777"}, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV)
    mount.move_mount(tmpfs, "", target, "", 0)
    os.close(tmpfs)
    os.close(target)


def _reduce_bounding(names: tuple[str, ...]) -> None:
    wanted = mask_of(names)
    held = capabilities.bounding_set()
    for name in names:
        if CAPABILITIES[name] not in held:
            raise OSError(errno.EPERM, "", f"{name} is not there to be had")
    capabilities.drop_bounding(number for number in held if not wanted >> number & 1)


def _set_capabilities(names: tuple[str, ...]) -> None:
    wanted = mask_of(names)
    # those that were ambient and are not inheritable any more go with this
    capabilities.set_capabilities(wanted, wanted, wanted)
    capabilities.clear_ambient()
    capabilities.raise_ambient(number for number in range(64) if wanted >> number & 1)
