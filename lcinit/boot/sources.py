"""What is mounted into the guest comes from the boot root, and no file of the guest chooses what it is.

A source is walked component by component. Where the kernel would follow a symbolic link that lies in the guest root,
the guest would say what of the outside it is given (`ln -s /etc/shadow srv`, and a configuration that names srv).
"""

from __future__ import annotations

import errno
import os
import stat

from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.linux import files

_MOST_LINKS = 40  # as the kernel's MAXSYMLINKS
# Links of /proc whose text is a path; all others are magic links, which lead to an object and not to a path (proc(5)).
_PLAIN_PROC_LINKS = frozenset(("self", "thread-self", "mounts", "net"))


def open_source(world: World, source: str, key: str = "mounts") -> int:
    """A handle of a source that the guest's files had no say in: links are followed outside of the guest root only.

    A source in the guest root is reached without any link. Raises SystemFailure.
    """
    if not source.startswith("/"):
        raise SystemFailure(f"{key}: {source!r} is not an absolute path")
    root = root_path(world)
    pending = _components(source)
    links = 0
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while pending:
            name = pending.pop()
            following = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            if stat.S_ISLNK(os.fstat(following).st_mode):
                links += 1
                to = _read_link(following, name, links)
                pending += _components(to)
                following = os.open("/", os.O_PATH | os.O_CLOEXEC) if to.startswith("/") else os.dup(here)
            os.close(here)
            here = following
            if is_in(root, here):
                if links:
                    raise SystemFailure(f"refused: {key}: {source} leads into the guest root {root}")
                rest = "/".join(reversed(pending))
                return files.open_in_root(here, rest or ".", os.O_PATH)
        found, here = here, -1
        return found
    except OSError as error:
        raise SystemFailure.from_os_error(f"open {source}, which {key} names", error) from error
    finally:
        if here >= 0:
            os.close(here)


def root_path(world: World) -> str | None:
    """The guest root's path with all links resolved; None where the boot root is kept."""
    return None if world.root == "/" else path_of(world.root_fd)


def is_in(root: str | None, handle: int) -> bool:
    """Whether a handle is of the guest root or of something below it."""
    path = path_of(handle)
    return root is not None and (path == root or path.startswith(f"{root}/"))


def path_of(handle: int) -> str:
    """The path of a handle without links in it (proc(5), /proc/PID/fd)."""
    return os.readlink(f"/proc/self/fd/{handle}")


def _components(path: str) -> list[str]:
    """The names in a path, last first. A trailing slash or a dot says nothing."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _read_link(handle: int, name: str, links: int) -> str:
    """The text of a symbolic link, whose handle is closed. ELOOP for a magic link and for one too many."""
    try:
        magic = files.statfs_type(handle) == files.PROC_SUPER_MAGIC and name not in _PLAIN_PROC_LINKS
        if magic or links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.readlink("", dir_fd=handle)
    finally:
        os.close(handle)
