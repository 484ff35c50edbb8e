"""Making mount points inside a guest root that nobody trusts.

Every component is opened by openat2(2) below the root's handle, no link is followed, and what is made belongs to the
guest's root: it is created with its file-system ids, which also is the only way on an idmapped mount that does not map
the outer root.
"""

from __future__ import annotations

import errno
import os
import stat

from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.linux import credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class AsGuestRoot:
    """While it lasts, files are made and judged with the guest root's ids (setfsuid(2))."""

    def __init__(self, world: World) -> None:
        self.owner = (0, 0) if world.inside else world.owner

    def __enter__(self) -> None:
        if self.owner != (0, 0):
            credentials.setfsgid(self.owner[1])
            credentials.setfsuid(self.owner[0])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.owner != (0, 0):
            credentials.setfsuid(0)
            credentials.setfsgid(0)


def directory(world: World, path: str, *, make: bool = True) -> int:
    """An O_PATH handle of the directory `path` of the guest root, made with its parents where it is missing.

    Raises SystemFailure naming the path for a link, a file, or a directory that cannot be made; FileNotFoundError when
    `make` is false and it is missing.
    """
    try:
        return world.open_guest(path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        raise refusal(world, path, error) from error
    done = ""
    for component in path.split("/"):
        parent = done
        done = f"{done}/{component}" if done else component
        _make_directory(world, parent, component, done)
    try:
        return world.open_guest(path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise refusal(world, path, error) from error


def on_own_mount(world: World, mounted: str, handle: int) -> int:
    """The same handle, if it is on the file system that lcinit mounted at `mounted`; else SystemFailure, and closed.

    Who can write to the guest's files meanwhile may rename a mount point, and its mount goes with it.
    """
    if world.mounted.get(mounted) == os.fstat(handle).st_dev:
        return handle
    os.close(handle)
    raise SystemFailure(
        f"refused: /{mounted} in the guest root {world.root} is not what was mounted there",
        hint="something else changes the guest's files",
    )


def _make_directory(world: World, parent: str, name: str, whole: str) -> None:
    handle = world.open_guest(parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with AsGuestRoot(world):
            os.mkdir(name, 0o755, dir_fd=handle)
    except FileExistsError:
        pass
    except OSError as error:
        raise SystemFailure.from_os_error(
            f"make /{whole} in the guest root", error, hint=f"create /{whole} in {world.root}"
        ) from error
    finally:
        os.close(handle)


def regular_file(world: World, path: str) -> int:
    """An O_PATH handle of a file to mount on, made empty where it is missing; SystemFailure for anything else."""
    head, _, name = path.rpartition("/")
    parent = directory(world, head) if head else os.dup(world.root_fd)
    try:
        with AsGuestRoot(world):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent))
    except FileExistsError:
        pass
    except OSError as error:
        raise SystemFailure.from_os_error(f"make /{path} in the guest root", error) from error
    finally:
        os.close(parent)
    try:
        handle = world.open_guest(path)
    except OSError as error:
        raise refusal(world, path, error) from error
    if stat.S_ISLNK(os.fstat(handle).st_mode):
        os.close(handle)
        raise refusal(world, path, OSError(errno.ELOOP, "a symbolic link"))
    return handle


def refusal(world: World, path: str, error: OSError) -> SystemFailure:
    """The clear line for a mount point that is not what it must be."""
    hint = "a mount point must be a directory or file of the guest itself, not a symbolic link"
    if error.errno == errno.ELOOP:
        return SystemFailure(
            f"refused: /{path} in the guest root {world.root} is, or lies behind, a symbolic link", hint=hint
        )
    if error.errno == errno.ENOTDIR:  # the answer to O_DIRECTORY for a link too
        return SystemFailure(f"refused: /{path} in the guest root {world.root} is not a directory", hint=hint)
    return SystemFailure.from_os_error(f"open /{path} in the guest root {world.root}", error)
