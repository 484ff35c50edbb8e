"""Who is killed when memory runs out: the guest, not the lcinit that stays for it (proc_pid_oom_score_adj(5)).

Many small processes can use up a limit while each of them is smaller than PID 1, which would be the one that the kernel
picks. To be spared takes CAP_SYS_RESOURCE in the machine's first user namespace; without it all stays as it is.
"""

from __future__ import annotations

import os

from lcinit import log
from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.supervisor.oom_score import SPARED

_FILE = "/proc/self/oom_score_adj"


def spare(world: World) -> None:
    """Have PID 1 killed last, and remember what it was given."""
    try:
        given = _read()
        if given > SPARED:
            _write(SPARED)
            world.oom_score_adj = given
    except (OSError, ValueError) as error:
        log.debug(f"PID 1 is not spared when memory runs out: {error}")


def give_back(world: World) -> None:
    """What others are to inherit; with the capability that is also the least that they can ever set.

    Raises SystemFailure.
    """
    if world.oom_score_adj is None:
        return
    try:
        _write(world.oom_score_adj)
    except OSError as error:
        raise SystemFailure.from_os_error(f"write {_FILE}", error) from error


def _read() -> int:
    file = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 16))
    finally:
        os.close(file)


def _write(value: int) -> None:
    file = os.open(_FILE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, b"%d" % value)
    finally:
        os.close(file)
