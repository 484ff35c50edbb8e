"""Which process a service that has forked left behind. Its PID file is looked for by another process: `pid_look`."""

from __future__ import annotations

import asyncio
import marshal
import os

from lcinit import log
from lcinit.linux.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.errors import CommandFailed
    from lcinit.service.launch import Launcher, Process
    from lcinit.service.task import Task
    from lcinit.service.tracking import Members
    from lcinit.supervisor.reaper import Status


class PidFiles:
    """Finds the main processes of services that have forked."""

    def __init__(
        self, launcher: Launcher, root_fd: int, members: Members, task_of: Callable[[int], Task | None]
    ) -> None:
        self._launcher = launcher
        self._root_fd = root_fd
        self._members = members
        self._task_of = task_of

    def find(self, task: Task) -> None:
        """Have it found: `task.found_main` is called in the end."""
        try:
            _Search(self._launcher, self._root_fd, self._members, self._task_of, task)
        except OSError as error:
            task.found_main(0, f"its PID file cannot be read: {error.strerror}")


class _Search:
    """One search."""

    def __init__(
        self,
        launcher: Launcher,
        root_fd: int,
        members: Members,
        task_of: Callable[[int], Task | None],
        task: Task,
    ) -> None:
        self._members = members
        self._task_of = task_of
        self._task = task
        self._start = task.starts
        self._why = "its PID file was not read in time"
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        orders = os.memfd_create("orders", os.MFD_CLOEXEC)
        try:
            order = {"path": task.service.pid_file, "user": task.service.user}
            os.write(orders, marshal.dumps(order))
            self._process = launcher.launch_function("pid-file", (root_fd, writer, orders), self)
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
            os.close(orders)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._reader, 4096)
        except BlockingIOError:
            return
        for line in data.decode("utf-8", "replace").splitlines():
            if line.startswith("!"):
                self._why = line[1:]
                continue
            pid, uid = map(int, line.split())
            if self._belongs(pid, uid):
                self._finish(pid)
                return
            self._why = f"process {pid}, which {self._task.service.pid_file} names, is not one of the service's"
        if not data or self._task.starts != self._start or self._task.state.sub != "start":
            self._finish(0)

    def _belongs(self, pid: int, uid: int) -> bool:
        task, members = self._task, self._members
        if pid <= 1:
            return False
        if members.belongs(task.name, task.last_leader, pid):
            return True
        return members.left_behind(task.name, pid, task.begun, uid) and self._task_of(pid) in (None, task)

    def _finish(self, pid: int) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self._process.orphan()
        self._process.signal(SIGKILL)
        if self._task.starts == self._start:
            self._task.found_main(pid, self._why)

    # what the launcher tells

    def executed(self, _process: Process) -> None:
        """It looks."""

    def unstartable(self, _process: Process, failure: CommandFailed) -> None:
        """It never will."""
        log.warning(f"{self._task.name}: {failure.message}")

    def ended(self, _process: Process, _status: Status) -> None:
        """It has looked for long enough: the end of its pipe says so."""
