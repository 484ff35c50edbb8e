"""Starting processes for services, and hearing of their ends: one object a process, whoever forks it."""

from __future__ import annotations

import asyncio
import os

from lcinit import log
from lcinit.linux.process import pidfd_open
from lcinit.linux.signals import signal_name
from lcinit.service.exits import UNKNOWN

AGAIN = 0.1  # seconds until what the kernel cannot watch now is tried again (epoll's limit for each user)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from lcinit.errors import CommandFailed
    from lcinit.supervisor.reaper import Reaper, Status
    from lcinit.supervisor.spawn import Program
    from lcinit.supervisor.spawner import Spawner, Starting

    class Heard(Protocol):
        """Whoever wants to know of a process."""

        def executed(self, process: Process) -> None:
            """Its program runs."""

        def unstartable(self, process: Process, failure: CommandFailed) -> None:
            """It never will; the process is gone."""

        def ended(self, process: Process, status: Status) -> None:
            """It ran, and has ended."""


class Process:
    """One process, from its request on. `pid` is None until it exists, `status` until it was reaped.

    `orphaned`: nobody wants to hear of it any more.
    """

    def __init__(self, heard: Heard | None) -> None:
        self.pid: int | None = None
        self.status: Status | None = None
        self.executed = False
        self._heard = heard
        self._starting: Starting | None = None
        self._pending: list[tuple[int, bool]] = []

    @property
    def alive(self) -> bool:
        """Whether it was asked for and has not been reaped."""
        return self.status is None

    def orphan(self) -> None:
        """Tell nobody any more."""
        self._heard = None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Signal it, or with `group` its process group; one that does not exist yet gets it as soon as it does."""
        if self.status is not None:
            return
        if self.pid is None:
            self._pending.append((number, group))
            return
        try:
            if group:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            if group:  # it has not made its group yet, or left it
                self.signal(number)
        except OSError as error:
            log.warning(f"cannot send {signal_name(number)} to process {self.pid}: {error.strerror}")

    # told by the launcher

    def begun(self, starting: Starting) -> None:
        """It is under way."""
        self._starting = starting

    def born(self, pid: int) -> None:
        """It exists."""
        self.pid = pid
        pending, self._pending = self._pending, []
        for number, group in pending:
            self.signal(number, group=group)

    def look(self) -> None:
        """Take what was told of its start."""
        starting = self._starting
        if starting is None:
            return
        starting.take()
        if starting.done:
            self._starting = None
            self._failure = starting.failure
            if starting.failure is None:
                self._execute()
            elif self.pid is None:
                self._fail(starting.failure)
            self._settle()

    _failure: CommandFailed | None = None

    def reaped(self, status: Status) -> None:
        """It has ended. What it had to say of its start may come a moment later, and counts first."""
        if self.status is None:
            self.status = status
            self.look()
            self._settle()

    def _settle(self) -> None:
        if self.status is None or self._starting is not None:
            return
        if self._failure is not None:
            self._fail(self._failure)
        elif self._heard is not None:
            heard, self._heard = self._heard, None
            heard.ended(self, self.status)

    def _execute(self) -> None:
        self.executed = True
        if self._heard is not None:
            self._heard.executed(self)

    def _fail(self, failure: CommandFailed) -> None:
        if self._heard is not None:
            heard, self._heard = self._heard, None
            heard.unstartable(self, failure)


class Launcher:
    """Starts processes through the spawner, and has them reaped. Needs the running loop."""

    def __init__(self, spawner: Spawner, reaper: Reaper) -> None:
        self._spawner = spawner
        self._reaper = reaper
        self._under_way: dict[Starting, Process] = {}
        spawner.on_pid = self._born
        reaper.before_reaping = spawner.drain

    def launch(self, program: Program, heard: Heard | None) -> Process:
        """Ask for a process. Raises OSError where there is no room for one."""
        return self._follow(self._spawner.begin(program), heard)

    def _follow(self, starting: Starting, heard: Heard | None) -> Process:
        process = Process(heard)
        process.begun(starting)
        self._under_way[starting] = process
        asyncio.get_running_loop().call_soon(self._watch, starting)
        return process

    def _watch(self, starting: Starting) -> None:
        """Wait for one, unless it is executed by now: of many that were asked for at once most are."""
        if self._look(starting):
            return
        loop, fd = asyncio.get_running_loop(), starting.fileno()
        try:
            loop.add_reader(fd, self._look, starting, fd)
        except OSError as error:
            log.debug(f"the start of a process is looked at again later: {error.strerror}")
            loop.call_later(AGAIN, self._watch, starting)

    def launch_function(self, name: str, descriptors: tuple[int, ...], heard: Heard | None) -> Process:
        """Ask for a process that runs one of the spawner's functions. Raises OSError."""
        return self._follow(self._spawner.begin_function(name, descriptors), heard)

    def adopt(self, pid: int, heard: Heard) -> Process:
        """A process that is there already: what a daemon has left behind, or names as its main one."""
        process = Process(heard)
        process.executed = True
        process.pid = pid
        self._register(pid, process)
        try:
            pidfd = pidfd_open(pid)
        except OSError:
            asyncio.get_running_loop().call_soon(self._has_ended, process, -1)  # it has ended by now
        else:
            self._watch_adopted(process, pidfd)
        return process

    def _watch_adopted(self, process: Process, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(pidfd, self._has_ended, process, pidfd)
        except OSError as error:
            log.debug(f"the end of process {process.pid} is not watched yet: {error.strerror}")
            loop.call_later(AGAIN, self._watch_adopted, process, pidfd)

    def _has_ended(self, process: Process, pidfd: int) -> None:
        """An adopted process has: where it was not PID 1's child, its own parent alone is told how."""
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._reaper.reap()
        process.reaped(UNKNOWN)

    def _born(self, starting: Starting) -> None:
        process = self._under_way.get(starting)
        if process is not None and starting.pid is not None and process.pid is None:
            self._register(starting.pid, process)
            process.born(starting.pid)

    def _register(self, pid: int, process: Process) -> None:
        child = self._reaper.register(pid)
        child.on_end = process.reaped
        if child.status is not None:
            asyncio.get_running_loop().call_soon(process.reaped, child.status)

    def _look(self, starting: Starting, fd: int = -1) -> bool:
        """Take what was told of a start: whether that is all. `fd` is the descriptor that is watched for it."""
        process = self._under_way[starting]
        starting.take()
        if starting.pid is not None and process.pid is None:
            self._born(starting)
        if not starting.done:
            return False
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
        del self._under_way[starting]
        try:
            process.look()
        finally:
            starting.close()
        return True
