"""Looking into a pipe without taking anything out of it: tee(2)."""

from __future__ import annotations

from .calls import by_machine, syscall

SPLICE_F_NONBLOCK = 2

_TEE = by_machine(276, 77)


def tee(source: int, target: int, count: int) -> int:
    """Copy up to `count` bytes from pipe to pipe; they stay in `source`. How many; 0 when all its writers are gone.

    Never blocks: EAGAIN when nothing is in `source`, or no room in `target`. A pipe holds buffers, not bytes: a
    `source` that was written in small pieces may give fewer than `target` has room for.
    """
    return syscall("tee", _TEE, source, target, count, SPLICE_F_NONBLOCK)
