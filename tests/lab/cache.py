"""What is slow to build and the same for every run, kept outside the repository.

An entry is a directory `NAME-STAMP`, the stamp being a hash of its recipe: a changed recipe is another entry. It is
built under another name and renamed when complete, under a lock that parallel runs share, so nobody ever sees half.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable


def cache_directory() -> str:
    """`$LCINIT_LAB_CACHE`, else `/var/cache/lcinit-lab` for root, else `$XDG_CACHE_HOME/lcinit-lab`."""
    chosen = os.environ.get("LCINIT_LAB_CACHE")
    if not chosen and os.geteuid() == 0:
        chosen = "/var/cache/lcinit-lab"
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(base, "lcinit-lab")
    os.makedirs(chosen, mode=0o755, exist_ok=True)
    return chosen


def stamp_of(*parts: object) -> str:
    """Twelve hex digits that change when any part of a recipe does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def cached(name: str, stamp: str, build: Callable[[str], None]) -> str:
    """The path of entry `name`-`stamp`, made by `build(directory)` (an empty directory, 0755) if it is not there.

    Whatever `build` raises goes to the caller, and nothing of the attempt is left behind.
    """
    base = cache_directory()
    final = os.path.join(base, f"{name}-{stamp}")
    if os.path.isdir(final):
        return final
    with open(os.path.join(base, f".{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(final):
            return final
        parent = tempfile.mkdtemp(prefix=f".{name}-", dir=base)
        try:
            work = os.path.join(parent, "tree")
            os.mkdir(work)
            os.chmod(work, 0o755)
            build(work)
            os.rename(work, final)
        finally:
            shutil.rmtree(parent)
    return final
