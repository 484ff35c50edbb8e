"""Which processes belong to a service: those in its cgroup; without one, its session and what descends from its main
process (PID 1 is the parent of all orphans, but not of those that still have one).
"""

from __future__ import annotations

import asyncio
import os
import time

from lcinit.boot import cgroup_control
from lcinit.linux.signals import SIGKILL
from lcinit.supervisor.reaper import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lcinit.errors import CommandFailed
    from lcinit.service.cgroups import Cgroups
    from lcinit.service.launch import Launcher, Process
    from lcinit.supervisor.spawn import Program

TIMED_OUT = Status(-1)
SWEEP = 0.05  # seconds until those are looked for who have left their process group
SWEEPS = 8
MOST_ANCESTORS = 64
_TICKS = os.sysconf("SC_CLK_TCK")


class Table:
    """Where the table of processes is read: a handle of this PID namespace's procfs, since the guest may mount
    something over /proc.
    """

    def __init__(self, procfs: int) -> None:
        # a handle of a mount (fsmount(2)) is one with O_PATH, whose entries cannot be listed
        self.procfs = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=procfs)
        os.close(procfs)

    def processes(self) -> Iterator[tuple[int, int, int]]:
        """PID, parent's PID and session of each process, as far as they can be seen (proc_pid_stat(5))."""
        with os.scandir(self.procfs) as entries:
            pids = [entry.name for entry in entries if entry.name.isdigit()]
        for pid in pids:
            found = self.process(int(pid))
            if found is not None:
                yield found

    def process(self, pid: int) -> tuple[int, int, int] | None:
        """One of them; None where there is no such process."""
        stat = self.read(f"{pid}/stat")
        fields = stat[stat.rfind(b")") + 2 :].split()
        return (pid, int(fields[1]), int(fields[3])) if len(fields) > 3 else None

    def orphan_since(self, pid: int, began: float, uid: int) -> bool:
        """Whether a process that PID 1 has inherited has begun since `began` (of time.monotonic()), and is the one of
        `uid` where that is not root's.
        """
        stat = self.read(f"{pid}/stat")
        fields = stat[stat.rfind(b")") + 2 :].split()
        if len(fields) < 20 or int(fields[1]) != os.getpid():
            return False
        # proc_pid_stat(5), starttime: ticks of CLOCK_BOOTTIME, rounded down
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS
        try:
            owner = os.stat(str(pid), dir_fd=self.procfs).st_uid
        except OSError:
            return False
        return time.monotonic() - age > began - 2 / _TICKS and uid in (0, owner)

    def read(self, name: str) -> bytes:
        """The beginning of a file of it; empty where there is none."""
        try:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.procfs)
        except OSError:
            return b""
        try:
            return os.read(file, 4096)
        except OSError:
            return b""
        finally:
            os.close(file)

    def family(self, leaders: Collection[int]) -> list[int]:
        """Those whose session one of `leaders` leads or led, and all that descend from them."""
        children: dict[int, list[int]] = {}
        found = set()
        for pid, parent, session in self.processes():
            children.setdefault(parent, []).append(pid)
            if session in leaders:
                found.add(pid)
        pending = list(found)
        while pending:
            for child in children.get(pending.pop(), ()):
                if child not in found:
                    found.add(child)
                    pending.append(child)
        found.discard(os.getpid())
        return sorted(found)

    def ancestors(self, pid: int) -> Iterator[int]:
        """The leader of its session, its parent, the leader of that one's session, and so on."""
        for _ in range(MOST_ANCESTORS):
            found = self.process(pid)
            if found is None or pid <= 1:
                return
            yield found[2]
            pid = found[1]
            yield pid

    def belongs(self, pid: int, leader: int) -> bool:
        """Whether a process is `leader`, of its session, or one of its descendants."""
        return bool(leader) and (pid == leader or leader in self.ancestors(pid))


class Members:
    """The processes of services."""

    def __init__(self, cgroups: Cgroups, table: Table) -> None:
        self.cgroups = cgroups
        self.table = table
        self._left: set[int] = set()

    def pids(self, name: str, leader: int) -> list[int]:
        """Those of a service whose main process is or was `leader` (0: none)."""
        directory = self.cgroups.directory(name)
        if directory >= 0:
            return cgroup_control.processes(directory)
        return self.table.family((leader,)) if leader else []

    def signal_all(self, name: str, leader: int, number: int) -> int:
        """Signal all of them: how many."""
        if number == SIGKILL:
            count = len(self.pids(name, leader))
            self.kill_all(name, leader)
            return count
        return _signal(self.pids(name, leader), number)

    def kill_all(self, name: str, leader: int) -> None:
        """SIGKILL to all of them."""
        if self.cgroups.kill(name):
            return
        if not leader:
            return
        _kill_group(leader)
        # the rest are found in the table of processes, which takes its time: not while somebody waits for a restart
        if not self._left:
            asyncio.get_running_loop().call_later(SWEEP, self.sweep)
        self._left.add(leader)

    def sweep(self) -> None:
        """Kill those whose families were left, and whom they have forked meanwhile."""
        left, self._left = self._left, set()
        for _ in range(SWEEPS):
            if not left or not _signal(self.table.family(left), SIGKILL):
                return

    def belongs(self, name: str, leader: int, pid: int) -> bool:
        """Whether a process is one of a service's, whose first process `leader` was."""
        if self.cgroups.directory(name) >= 0:
            return self.service_of(pid) == name
        return self.table.belongs(pid, leader)

    def first_of(self, pid: int) -> int:
        """What is its `leader` from the time on when a process becomes a service's main one: the first process of its
        session, by which those beside it are found.
        """
        found = self.table.process(pid)
        return found[2] if found is not None and found[2] not in (0, 1, os.getsid(0)) else pid

    def left_behind(self, name: str, pid: int, began: float, uid: int) -> bool:
        """Whether a process may be the daemon that a service's first one, of the time `began`, has left in a session
        of its own. Only where there are no cgroups to tell; that it is no other service's is for the caller to know.
        """
        return self.cgroups.directory(name) < 0 and self.table.orphan_since(pid, began, uid)

    def oom_kills(self, name: str) -> int:
        """How many of its processes the kernel has killed for want of memory so far."""
        directory = self.cgroups.directory(name)
        return cgroup_control.oom_kills(directory) if directory >= 0 else 0

    def oom_kills_before(self, name: str, *, used: bool) -> int:
        """The same at a start: of a cgroup that was made for it, and not `used` since, the kernel need not be asked."""
        new = self.cgroups.take_new(name)
        return 0 if new and not used else self.oom_kills(name)

    def service_of(self, pid: int) -> str | None:
        """Which service a process belongs to, by its cgroup; None where that does not tell."""
        for line in self.table.read(f"{pid}/cgroup").decode("utf-8", "surrogateescape").splitlines():
            if line.startswith("0::"):
                return self.cgroups.service_of(line[3:])
        return None


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, SIGKILL)
    except OSError:
        return  # nobody is left in it


def _signal(pids: list[int], number: int) -> int:
    count = 0
    for pid in pids:
        try:
            os.kill(pid, number)
            count += 1
        except OSError:
            continue  # it has ended
    return count


class _Once:
    """Hears of one process that somebody waits for."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Status | CommandFailed] = asyncio.get_running_loop().create_future()

    def executed(self, _process: Process) -> None:
        """It runs."""

    def unstartable(self, _process: Process, failure: CommandFailed) -> None:
        """It never will."""
        if not self.result.done():
            self.result.set_result(failure)

    def ended(self, _process: Process, status: Status) -> None:
        """It has ended."""
        if not self.result.done():
            self.result.set_result(status)


async def run(launcher: Launcher, program: Program, seconds: float) -> Status:
    """Run a program to its end: its status, TIMED_OUT where that took longer. Raises CommandFailed, OSError."""
    once = _Once()
    process = launcher.launch(program, once)
    try:
        async with asyncio.timeout(seconds):
            result = await once.result
    except TimeoutError:
        return TIMED_OUT
    finally:
        if process.alive:
            process.signal(SIGKILL, group=True)
    if isinstance(result, Status):
        return result
    raise result
