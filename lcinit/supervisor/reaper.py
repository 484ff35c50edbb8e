"""The one place that waits for children. Nothing else in the process may call a wait function."""

from __future__ import annotations

import os

from lcinit import log
from lcinit.supervisor.loop import loop_needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable
    from typing import Self


class Child:
    """A registered child. `status` is its exit code, or 128 + the signal that ended it, once it was reaped.

    `on_end` is called with it then.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: Status | None = None
        self.on_end: Callable[[Status], None] | None = None
        self._waiter: Future[None] | None = None

    async def wait(self) -> Status:
        """The status; needs the loop and a reaper that is fed. One waiter at a time."""
        await loop_needed()
        if self.status is None:
            import asyncio

            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.status is None:
            raise RuntimeError(f"woken before child {self.pid} was reaped")
        return self.status

    def ended(self, status: Status) -> None:
        """Called by the reaper."""
        self.status = status
        if self.on_end is not None:
            self.on_end(status)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


UNCLAIMED = 64  # how many ended children are remembered whose registration is still to come


class Reaper:
    """Reaps every child that there is, registered or not, and tells the registered ones.

    `before_reaping` is called before each look, and for each child that is not known: those that another process makes
    are registered there, and may be born and end between the two. With `remember` the last that nobody has registered
    are kept: a guest's leader is made by another process, and its PID may come later than its end.
    """

    def __init__(self) -> None:
        self.children: dict[int, Child] = {}
        self.before_reaping: Callable[[], None] | None = None
        self.remember = False
        self._unclaimed: dict[int, Status] = {}

    def register(self, pid: int) -> Child:
        """Must be called before the child can be reaped: in the same stretch of code as the fork."""
        child = self.children[pid] = Child(pid)
        if pid in self._unclaimed:
            del self.children[pid]
            child.ended(self._unclaimed.pop(pid))
        return child

    def unclaimed(self, pid: int) -> Status | None:
        """The status of a remembered child that nobody has registered; None for one that has not ended."""
        return self._unclaimed.get(pid)

    def forget(self, pid: int) -> None:
        """Wait for a child that is about to end and was never registered."""
        os.waitpid(pid, 0)

    def reap(self) -> None:
        """Reap until nothing is left that has ended: signals coalesce, one SIGCHLD may stand for many children."""
        if self.before_reaping is not None:
            self.before_reaping()
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is None and self.before_reaping is not None:
                self.before_reaping()
                child = self.children.pop(pid, None)
            if child is not None:
                try:
                    child.ended(status_of(wait_status))
                except Exception as error:
                    log.unexpected(f"at the end of process {pid}", error)
            elif self.remember:
                self._unclaimed.pop(pid, None)
                self._unclaimed[pid] = status_of(wait_status)
                if len(self._unclaimed) > UNCLAIMED:
                    del self._unclaimed[next(iter(self._unclaimed))]


class Status(int):
    """How a process ended, as a shell says it: its exit code, or 128 + the signal. `signal` is 0 for an exit.

    The number alone does not tell a death by SIGINT from an exit with 130. `core`: it left a core dump.
    """

    signal: int
    core: bool

    def __new__(cls, code: int = 0, signal: int = 0, *, core: bool = False) -> Self:
        """From the exit code, or from the signal that ended it."""
        status = super().__new__(cls, 128 + signal if signal else code)
        status.signal = signal
        status.core = core
        return status


def status_of(wait_status: int) -> Status:
    """The status of a wait status of waitpid(2)."""
    code = os.waitstatus_to_exitcode(wait_status)
    return Status(code) if code >= 0 else Status(signal=-code, core=os.WCOREDUMP(wait_status))


def describe_status(status: Status) -> str:
    """`exit code 3`, `signal SIGKILL`: what happened to a child, in words."""
    from lcinit.linux.signals import signal_name

    return f"signal {signal_name(status.signal)}" if status.signal else f"exit code {int(status)}"
