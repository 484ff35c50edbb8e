"""A user namespace that holds an id map and nothing else, for idmapped mounts (mount_setattr(2), MOUNT_ATTR_IDMAP)."""

from __future__ import annotations

import errno
import os

from lcinit.errors import EX_CONFIG, SystemFailure
from lcinit.linux import namespaces, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Ranges = Sequence[tuple[int, int, int]]
    Write = Callable[[int, int], None]

MAX_RANGES = 340  # UID_GID_MAP_MAX_EXTENTS of linux/user_namespace.h
_SIGKILL = 9
_WALL = 0x40000000  # __WALL of wait(2): children whose end sends no SIGCHLD


def user_namespace_with(users: Ranges, groups: Ranges) -> int:
    """A close-on-exec descriptor of a new user namespace with these `(inside, outside, size)` ranges.

    A side without ranges is left unwritten: none of its ids is mapped. Raises SystemFailure that names the map and
    the reason. Needs CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID; EPERM in a chroot (user_namespaces(7)).
    """
    texts = {"uid_map": map_text("users", users), "gid_map": map_text("groups", groups)}

    def write(procfs: int, pid: int) -> None:
        for name, text in texts.items():
            if text:
                namespaces.write_proc_file(procfs, pid, name, text)

    return new_user_namespace(
        write, hint="it takes root with CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID, and no chroot around it"
    )


def new_user_namespace(write: Write, *, hint: str) -> int:
    """A close-on-exec descriptor of a new user namespace whose maps `write(procfs, pid)` has written.

    `pid` is of a child in it that is killed before this returns, and `procfs` a handle of a procfs that shows it. The
    child's end sends no SIGCHLD, so a reaper that waits for every child neither sees nor takes it. Raises
    SystemFailure, with `hint` where it is not permitted, and what `write` raises but for OSError.
    """
    try:
        procfs = any_procfs()
        try:
            return _hold(procfs, write)
        finally:
            os.close(procfs)
    except OSError as error:
        hints = {
            errno.EPERM: hint,
            errno.EINVAL: "ranges may not overlap, neither inside nor outside, nor leave 0-4294967294",
            errno.ENOSPC: "raise /proc/sys/user/max_user_namespaces",
        }
        hint = hints.get(error.errno or 0, "")
        raise SystemFailure.from_os_error("make a user namespace for an id map", error, hint=hint) from error


def map_text(side: str, ranges: Ranges) -> bytes:
    """The map as the kernel takes it: one write below a page, and up to 340 lines."""
    text = namespaces.format_id_map(ranges)
    page = os.sysconf("SC_PAGE_SIZE")
    if len(ranges) > MAX_RANGES or len(text) >= page:
        raise SystemFailure(
            f"the id map of {side} has {len(ranges)} ranges in {len(text)} bytes; "
            f"the kernel takes {MAX_RANGES} ranges in fewer than {page} bytes",
            hint="join neighbouring ranges",
            exit_code=EX_CONFIG,
        )
    return text


def any_procfs() -> int:
    """A procfs that nobody can have replaced; where none may be mounted, /proc, which is checked to be one."""
    try:
        return namespaces.open_procfs()
    except PermissionError:
        return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _hold(procfs: int, write: Write) -> int:
    ready, child_end = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = namespaces.clone3(namespaces.CLONE_NEWUSER | namespaces.CLONE_PIDFD, exit_signal=0)
        if pid == 0:
            _wait_for_death(ready, child_end)
        try:
            os.close(child_end)
            child_end = -1
            if os.read(ready, 1) != b"1":
                raise OSError(errno.ESRCH, "the process that should hold it ended")
            write(procfs, pid)
            return os.open(f"{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)
        finally:
            process.pidfd_send_signal(pidfd, _SIGKILL)
            os.close(pidfd)
            os.waitpid(pid, _WALL)
    finally:
        os.close(ready)
        if child_end >= 0:
            os.close(child_end)


def _wait_for_death(ready: int, child_end: int) -> None:
    """In the child. PID 1 is not dumpable, and of such a process not even the namespace may be looked at."""
    try:
        process.set_pdeathsig(_SIGKILL)
        process.set_dumpable(True)
        os.close(ready)
        os.write(child_end, b"1")
        while True:
            os.read(_never(), 1)
    finally:
        os._exit(1)


def _never() -> int:
    """The reading end of a pipe that is never written to and never closed."""
    reading, _ = os.pipe2(0)
    return reading
