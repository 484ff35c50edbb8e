"""The cgroups below one, which a guest may have made: as many, as deep and with names as long as it pleases.

So the way there and back is taken step by step, with one descriptor and without recursion, and no path is ever put
together. cgroup2 has no rename(2), so `..` leads back to where one came from.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PIECE = 64  # cgroups that are seen to before others have their turn

# What a guest may make in its own, where lcinit makes that: its bookkeeping is the machine's memory and lcinit's time.
LIMITS = {"cgroup.max.depth": 64, "cgroup.max.descendants": 4096}


def children(directory: int) -> list[str]:
    """The cgroups directly below one; their names may hold dots (init.scope), as its files' do."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def walk(top: int) -> Iterator[tuple[int, str | None]]:
    """`(handle, None)` for each cgroup, `top` first; `(handle of the one above, name)` when all below a name was seen.

    A handle is valid until the next step. What is removed meanwhile is left out. Raises OSError.
    """
    here = os.dup(top)
    entered: list[tuple[str, list[str]]] = []  # each name on the way, and what is left to be seen beside it
    try:
        yield here, None
        left = children(here)
        while True:
            if left:
                name = left.pop()
                try:
                    below = os.open(name, DIRECTORY, dir_fd=here)
                except FileNotFoundError:
                    continue
                os.close(here)
                here = below
                entered.append((name, left))
                yield here, None
                try:
                    left = children(here)
                except FileNotFoundError:
                    left = []
            elif entered:
                above = os.open("..", DIRECTORY, dir_fd=here)
                os.close(here)
                here = above
                name, left = entered.pop()
                yield here, name
            else:
                return
    finally:
        os.close(here)


def removal(top: int) -> Iterator[None]:
    """Remove all below `top` in pieces, as far as nobody lives there. Raises the first OSError when all was tried."""
    failed: OSError | None = None
    for number, (handle, name) in enumerate(walk(top), start=1):
        if name is not None:
            try:
                os.rmdir(name, dir_fd=handle)
            except FileNotFoundError:
                pass
            except OSError as error:
                failed = failed or error
        if number % PIECE == 0:
            yield
    if failed is not None:
        raise failed


def limit(directory: int) -> None:
    """Bound what may be made below a new cgroup. OSError; a kernel before 4.14 has no such files (ENOENT)."""
    for name, most in LIMITS.items():
        write(directory, name, b"%d" % most)


def write(directory: int, name: str, data: bytes) -> None:
    """One write to a file of a cgroup. Raises OSError."""
    file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def read(directory: int, name: str) -> bytes:
    """All of a file of a cgroup. Raises OSError."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        chunks = []
        while chunk := os.read(file, 1 << 16):
            chunks.append(chunk)
    finally:
        os.close(file)
    return b"".join(chunks)
