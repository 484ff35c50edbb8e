"""`lcinit reexec`: PID 1 becomes the lcinit that is installed now, and the guest notices nothing.

What is known travels as JSON in a sealed memory file, what is held as descriptors that exec leaves open. First a child
goes the whole way of the new lcinit up to the point where it would take over (`rehearse`): one that is broken, or a
configuration that is, is refused while the old one still works.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys

from lcinit import log
from lcinit.errors import EX_UNAVAILABLE, LcinitError, SystemFailure
from lcinit.linux import signals
from lcinit.supervisor.spawn import Program, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Never

    from lcinit.guest.supervisor import Supervisor

STATE_FD = "LCINIT_STATE_FD"  # in the new program's environment: where the state is
REHEARSAL = "LCINIT_REHEARSAL"  # set: go as far as taking over, and exit
FORMAT = 1
REHEARSAL_TIMEOUT = 20.0  # seconds
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_LARGEST = 16 << 20


class Handed:
    """What the old lcinit left: `facts` from its memory, and descriptors by name."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self._descriptors: dict[str, int] = facts["descriptors"]

    def descriptor(self, name: str) -> int:
        """One of them, close-on-exec again; -1 where there was none."""
        fd = self._descriptors.get(name, -1)
        if fd >= 0:
            os.set_inheritable(fd, False)
        return fd

    def kept(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(fd for fd in self._descriptors.values() if fd >= 0)


def command() -> tuple[str, ...]:
    """The argv that started this lcinit, with the interpreter's own path."""
    return (sys.executable, *sys.orig_argv[1:])


def write_state(facts: dict[str, Any]) -> int:
    """A sealed memory file with the facts. Raises OSError."""
    fd = os.memfd_create("lcinit-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        data = json.dumps({"format": FORMAT, **facts}).encode()
        while data:
            data = data[os.write(fd, data) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_state(text: str) -> Handed:
    """What STATE_FD of the environment leads to; closed afterwards. Raises SystemFailure for anything else."""
    try:
        fd = int(text)
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS or os.fstat(fd).st_size > _LARGEST:
            raise ValueError("it is not sealed")
        facts = json.loads(os.pread(fd, _LARGEST, 0))
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, and this lcinit knows {FORMAT}")
        os.close(fd)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemFailure(f"the state of the lcinit before cannot be read: {error}") from error
    return Handed(facts)


async def rehearse(supervisor: Supervisor, state: int) -> None:
    """Have a child do all that the new lcinit will do before it takes over. Raises LcinitError where it fails."""
    import asyncio

    environment = {**os.environ, STATE_FD: "0", REHEARSAL: "1"}
    pid = spawn(Program(argv=command(), environment=tuple(environment.items()), stdin=state))
    child = supervisor.world.reaper.register(pid)
    try:
        async with asyncio.timeout(REHEARSAL_TIMEOUT):
            status = await child.wait()
    except TimeoutError:
        os.kill(pid, signals.SIGKILL)
        raise LcinitError(
            f"the new lcinit is not ready within {REHEARSAL_TIMEOUT:g} s; this one goes on", exit_code=EX_UNAVAILABLE
        ) from None
    if status != 0:
        raise LcinitError(
            f"the new lcinit cannot take over (exit code {int(status)}); this one goes on",
            hint="the lines above on the console tell why",
            exit_code=EX_UNAVAILABLE,
        )


def become(facts: dict[str, Any]) -> Never:
    """Exec the new lcinit with this state. Raises OSError, and then nothing has changed."""
    state = write_state(facts)
    kept = [fd for fd in (state, *facts["descriptors"].values()) if fd >= 0]
    argv = command()
    log.info("becoming the lcinit that is installed now")
    for fd in kept:
        os.set_inheritable(fd, True)
    try:
        os.execve(argv[0], argv, {**os.environ, STATE_FD: str(state)})
    except BaseException:
        for fd in kept:
            os.set_inheritable(fd, False)
        os.close(state)
        raise
