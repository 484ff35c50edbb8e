"""A cgroup as the one who supervises its processes uses it: kill, freeze, and what it counts (cgroup v2 documentation).

The hierarchy's real root has none of these files, and a directory may be missing altogether: each function then says
so by its value, and the caller has another way or none.
"""

from __future__ import annotations

import errno
import os

from lcinit import log
from lcinit.boot.cgroup_tree import children, read, removal, walk, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

# Seconds before each look at a cgroup whose last process was just reaped: the kernel lets go of it a little later.
EMPTYING = (0, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.004, 0.02, 0.1, 0.4)
COUNTED = 1000  # cgroups that are looked into to say how many processes there are: some ten milliseconds
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
    return _processes(directory)[0]


def count(directory: int) -> tuple[int, bool]:
    """How many processes there are, and whether that is all of them: no more than COUNTED cgroups are looked into."""
    found, whole = _processes(directory, COUNTED)
    return len(found), whole


def _processes(directory: int, most: int | None = None) -> tuple[list[int], bool]:
    found: list[int] = []
    if directory < 0:
        return found, True
    seen = 0
    try:
        for handle, name in walk(directory):
            if name is None:
                if seen == most:
                    return found, False
                seen += 1
                found += map(int, _read(handle, "cgroup.procs").split())
    except OSError as error:
        log.debug(f"not all of the guest's cgroups can be looked into: {error.strerror}")
        return found, False
    return found, True


def emptying(directory: int) -> Generator[None, None, bool]:
    """Kill who is left in it from outside of the guest's PID namespace, and remove it, in pieces: returns whether it
    is gone.
    """
    try:
        kill(directory)
        yield from removal(directory)
        _remove(directory)
    except OSError as error:
        log.debug(f"the guest's cgroup stays for now: {error.strerror}")
        return False
    return True


def emptied(directory: int) -> bool:
    """`emptying` all at once."""
    pieces = emptying(directory)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return bool(end.value)


def _remove(directory: int) -> None:
    """Remove an empty cgroup. Raises OSError."""
    own = os.fstat(directory)
    parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        for name in children(parent):
            if os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino == own.st_ino:
                os.rmdir(name, dir_fd=parent)
    finally:
        os.close(parent)


def _write(directory: int, name: str, data: bytes) -> bool:
    if directory < 0:
        return False
    try:
        write(directory, name, data)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return False
    return True


def _read(directory: int, name: str) -> str:
    if directory < 0:
        return ""
    try:
        return read(directory, name).decode("ascii", "replace")
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return ""


def _pairs(directory: int, name: str) -> dict[str, int]:
    pairs = (line.split() for line in _read(directory, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
