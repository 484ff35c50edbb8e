"""Looking at the guest root: what its init is. It is read, never run."""

from __future__ import annotations

import errno
import os
import stat

from lcinit.boot.world import World
from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, LcinitError, SystemFailure
from lcinit.linux import files
from lcinit.plan import steps as s
from lcinit.plan.guest import DEFAULT_PATH
from lcinit.plan.inits import kind_of, refuse_init

_LOOKED_AT = 4 << 20
_MOST_LINKS = 40
_BUSYBOX_INIT = frozenset(("init", "linuxrc", "busybox"))  # names by which busybox is an init, or may be one


def check_init(world: World, step: s.CheckInit) -> None:
    """Know the guest's init, and refuse one that could never end (exit code 78) or never start (126, 127)."""
    if world.root_fd < 0:
        world.reopen_root()
    resolved, kind = identify(world.root_fd, step.command)
    world.init_kind = kind
    refuse_init(kind, resolved, because=step.why if step.needs_no_reboot else "", shared=step.shared)


def identify(root_fd: int, command: str) -> tuple[str, str]:
    """The path that a command resolves to inside a root, and the kind of init that it is.

    Raises LcinitError with 127 if there is no such file and 126 if it is nothing that can be run.
    """
    if "/" not in command:
        for directory in DEFAULT_PATH.split(":"):
            try:
                return identify(root_fd, f"{directory}/{command}")
            except LcinitError as error:
                if error.exit_code != EX_NOT_FOUND:
                    raise
        raise LcinitError(f"{command} is not in the guest root's PATH", hint="set exec.command", exit_code=EX_NOT_FOUND)
    resolved = _follow(root_fd, command)
    try:
        # a handle first: to open a device node is to use the device, and the root is not nodev yet
        handle = files.openat2(
            root_fd, resolved, os.O_PATH | os.O_CLOEXEC, 0, files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise LcinitError(
                f"the guest root has no {command}", hint="set exec.command", exit_code=EX_NOT_FOUND
            ) from error
        raise SystemFailure.from_os_error(f"read the guest's {command}", error) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise LcinitError(f"the guest's {command} is not a regular file", exit_code=EX_CANNOT_RUN)
        kind = kind_of(resolved, b"")
        if kind == "busybox" and command.rpartition("/")[2] not in _BUSYBOX_INIT:
            return resolved, "plain"  # one program with many names: this is its shell, or something else of it
        return resolved, kind if kind != "plain" else kind_of(resolved, _beginning(handle, command))
    finally:
        os.close(handle)


def _beginning(handle: int, command: str) -> bytes:
    try:
        file = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure.from_os_error(f"read the guest's {command}", error) from error
    try:
        return os.read(file, _LOOKED_AT)
    finally:
        os.close(file)


def _follow(root_fd: int, path: str) -> str:
    """The path with the links of its last component followed, for its name; the kernel judges the rest."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_MOST_LINKS):
        try:
            handle = files.openat2(root_fd, path, flags, 0, files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                raise SystemFailure.from_os_error(f"read the guest's {path}", error) from error
            return path
        try:
            if not stat.S_ISLNK(os.fstat(handle).st_mode):
                return path
            to = os.readlink("", dir_fd=handle)
        finally:
            os.close(handle)
        path = to if to.startswith("/") else f"{os.path.dirname(path)}/{to}"
    raise SystemFailure(f"the guest's {path} is a loop of links")
