"""The guest's cgroup as its supervisor uses it: kill, freeze, and what it counts (cgroup v2 documentation).

The hierarchy's real root has none of these files, and a directory may be missing altogether: each function then says
so by its value, and the caller has another way or none.
"""

from __future__ import annotations

import errno
import os

from lcinit import log

# Seconds before each look at a cgroup whose last process was just reaped: the kernel lets go of it a little later.
EMPTYING = (0, 0.001, 0.004, 0.02, 0.1, 0.4)
_ABSENT = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM)


def kill(directory: int) -> bool:
    """SIGKILL to every process in it and below, also to those being forked (Linux 5.14); false where it cannot be."""
    return _write(directory, "cgroup.kill", b"1")


def set_frozen(directory: int, frozen: bool) -> bool:
    """Stop or continue every process in it and below; false where it cannot be."""
    return _write(directory, "cgroup.freeze", b"1" if frozen else b"0")


def events(directory: int) -> dict[str, int]:
    """`populated` and `frozen`; empty where the kernel does not tell."""
    return _pairs(directory, "cgroup.events")


def oom_kills(directory: int) -> int:
    """How many processes of it the kernel has killed for lack of memory, as far as that can be read."""
    try:
        return _pairs(directory, "memory.events").get("oom_kill", 0)
    except OSError as error:
        log.warning(f"the guest's memory.events cannot be read: {error.strerror}")
        return 0


def number(directory: int, name: str) -> int | None:
    """The one number in a file such as memory.current; None where there is none."""
    text = _read(directory, name).strip()
    return int(text) if text.isdigit() else None


def processes(directory: int) -> list[int]:
    """The PIDs in it and below, as this PID namespace numbers them."""
    found: list[int] = []
    pending = ["."]
    while pending:
        path = pending.pop()
        found += [int(pid) for pid in _read(directory, f"{path}/cgroup.procs").split()]
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            continue
        try:
            pending += [f"{path}/{name}" for name in _children(handle)]
        finally:
            os.close(handle)
    return found


def emptied(directory: int) -> bool:
    """Kill who is left in it from outside of the guest's PID namespace, and remove it; false while it is not empty."""
    try:
        kill(directory)
        remove(directory)
    except OSError as error:
        log.debug(f"the guest's cgroup stays for now: {error.strerror}")
        return False
    return True


def remove(directory: int) -> None:
    """Remove it and the cgroups below it, as far as nobody lives there. Raises OSError for one that cannot be."""
    _remove_below(directory)
    own = os.fstat(directory)
    parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        for name in _children(parent):
            if os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino == own.st_ino:
                os.rmdir(name, dir_fd=parent)
    finally:
        os.close(parent)


def _remove_below(directory: int) -> None:
    for name in _children(directory):
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            _remove_below(child)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=directory)


def _children(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [each.name for each in entries if each.is_dir(follow_symlinks=False)]


def _write(directory: int, name: str, data: bytes) -> bool:
    if directory < 0:
        return False
    try:
        file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(file, data)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return False
    return True


def _read(directory: int, name: str) -> str:
    if directory < 0:
        return ""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            chunks = []
            while chunk := os.read(file, 1 << 16):
                chunks.append(chunk)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return ""
    return b"".join(chunks).decode("ascii", "replace")


def _pairs(directory: int, name: str) -> dict[str, int]:
    pairs = (line.split() for line in _read(directory, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
