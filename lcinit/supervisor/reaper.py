"""The one place that waits for children. Nothing else in the process may call a wait function."""

from __future__ import annotations

import os

from lcinit.supervisor.loop import loop_needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable


class Child:
    """A registered child. `status` is its exit code, or 128 + the signal that ended it, once it was reaped.

    `on_end` is called with it then.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.on_end: Callable[[int], None] | None = None
        self._waiter: Future[None] | None = None

    async def wait(self) -> int:
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

    def ended(self, status: int) -> None:
        """Called by the reaper."""
        self.status = status
        if self.on_end is not None:
            self.on_end(status)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


UNCLAIMED = 64  # how many ended children are remembered whose registration is still to come


class Reaper:
    """Reaps every child that there is, registered or not, and tells the registered ones.

    With `remember` the last that nobody has registered are kept: a guest's leader is made by another process, and its
    PID may come later than its end.
    """

    def __init__(self) -> None:
        self.children: dict[int, Child] = {}
        self.remember = False
        self._unclaimed: dict[int, int] = {}

    def register(self, pid: int) -> Child:
        """Must be called before the child can be reaped: in the same stretch of code as the fork."""
        child = self.children[pid] = Child(pid)
        if pid in self._unclaimed:
            del self.children[pid]
            child.ended(self._unclaimed.pop(pid))
        return child

    def forget(self, pid: int) -> None:
        """Wait for a child that is about to end and was never registered."""
        os.waitpid(pid, 0)

    def reap(self) -> None:
        """Reap until nothing is left that has ended: signals coalesce, one SIGCHLD may stand for many children."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is not None:
                child.ended(status_of(wait_status))
            elif self.remember:
                self._unclaimed.pop(pid, None)
                self._unclaimed[pid] = status_of(wait_status)
                if len(self._unclaimed) > UNCLAIMED:
                    del self._unclaimed[next(iter(self._unclaimed))]


def status_of(wait_status: int) -> int:
    """The shell's exit status of a wait status: the code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def describe_status(status: int) -> str:
    """`exit code 3`, `signal SIGKILL`: what happened to a child, in words."""
    from lcinit.linux.signals import signal_name

    if status > 128:
        try:
            return f"signal {signal_name(status - 128)}"
        except ValueError:
            pass
    return f"exit code {status}"
