"""PID 1's handle of the spawner, a small process that forks for it.

A fork costs what the memory of the one who forks costs, and PID 1's has grown by the time it starts services; so it
forks the spawner early, and has it make its children (CLONE_PARENT). PID 1 never waits: a request is sent or queued,
and what becomes of it is told by descriptors. Where the spawner is lost PID 1 forks by itself, with the same code.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import resource
import sys
import time
from collections import deque

from lcinit import log
from lcinit.errors import SystemFailure
from lcinit.linux import clone, process
from lcinit.linux.files import PROC_SUPER_MAGIC, check_statfs_type
from lcinit.linux.signals import SIGKILL
from lcinit.supervisor import oom_score, spawn
from lcinit.supervisor.asked import Forked, Function, Kinds, Launched, can_be_launched
from lcinit.supervisor.loop import forget_loop
from lcinit.supervisor.place import bring, own_namespaces
from lcinit.supervisor.spawner_messages import NO_SLOT, flat
from lcinit.supervisor.spawner_process import (
    NO_ROOM,
    SLOTS,
    Memory,
    SpawnerProcess,
    nowhere,
    run_function,
)
from lcinit.supervisor.starting import Starting as Starting
from lcinit.supervisor.userns import any_procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable, Mapping

    from lcinit.supervisor.asked import Asked
    from lcinit.supervisor.program import Program
    from lcinit.supervisor.reaper import Status
else:
    import _socket as socket

QUIET = 0.2  # seconds that an exec that somebody holds up can have those wait that wait for it
PATIENCE = 5.0  # seconds without a single fork after which the spawner is held for lost
FEW = 16  # slots whose memory is worth less than giving it back
RESERVE = 64  # slots that are not for what is launched, whose exec may be held up


class Spawner:
    """The spawner as PID 1 has it. `on_pid` is called when a start's process exists, and before it can be reaped if
    `drain` is called before each reaping.
    """

    def __init__(self, pid: int, pidfd: int, channel: socket.socket, bell: int, memory: Memory, procfs: int) -> None:
        self.pid = pid
        self.alive = True
        self.on_pid: Callable[[Starting], None] | None = None
        self._pidfd = pidfd
        self._channel = channel
        self._bell = bell
        self._memory = memory
        self._slots = memory.slots
        self._free = list(range(SLOTS))
        self._most = 0  # that were used at once since the memory of their tables was given back
        self._kinds = Kinds()
        self._procfs = procfs
        self._namespaces = own_namespaces(procfs)
        self._functions: Mapping[str, Callable[[list[int]], int]] = {}
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._queued: deque[Starting] = deque()
        self._sent: deque[Starting] = deque()
        self._waiting: deque[Starting] = deque()  # for those that were launched to be executed
        self._quiet_by = 0.0
        self._launched = 0
        self._loop: AbstractEventLoop | None = None
        self._writing = False
        self._timer: TimerHandle | None = None
        self._births = 0
        self._closing = False
        self._held_up = False
        self._left: list[Starting] = []  # by their owners, before they were done
        self._score = oom_score.own()

    @classmethod
    def start(
        cls, functions: Mapping[str, Callable[[list[int]], int]], *, close_imports: Callable[[], None]
    ) -> Spawner:
        """Fork it: early in PID 1, while that is small, has one thread and is where it was started.

        `functions` are what begin_function() can run. `close_imports` is called once it is in the guest's root.
        Raises SystemFailure.
        """
        try:
            procfs = any_procfs()
            check_statfs_type(procfs, PROC_SUPER_MAGIC, "/proc")
            oom_score.hold(procfs)
            memory = Memory()
            bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            gc.freeze()  # what both have is not touched by PID 1's collections, and so is not copied
            parent, pid = os.getpid(), os.fork()
        except OSError as error:
            raise SystemFailure.from_os_error("fork the spawner", error) from error
        if pid == 0:
            SpawnerProcess(theirs, bell, memory, functions, close_imports).run(parent, procfs)
        theirs.close()
        ours.setblocking(False)
        memory.keep()
        try:
            clone.keep_in_memory(memory.slots_at, 4 * SLOTS)
        except OSError as error:
            log.debug(f"the spawner's memory may be swapped: {error.strerror}")
        spawner = cls(pid, process.pidfd_open(pid), ours, bell, memory, procfs)
        spawner._functions = functions
        return spawner

    def enter(self) -> None:
        """Take it to where PID 1 is by now: namespaces, root, ids, capabilities, standard streams. Raises LcinitError.

        Nobody of the guest's should run by then; the spawner is not dumpable all the while.
        """
        procfs, self._procfs = self._procfs, -1
        bring(self._channel, procfs, self._namespaces)

    def begin(self, program: Program) -> Starting:
        """Have a program started. Raises OSError where there is no descriptor for it, or no process if PID 1 forks."""
        values, numbers = flat(program)
        if program.function is not None:
            starting = Starting(Forked(program, self._memory, values, numbers), self)
            self._fork_program(starting, program)
            return starting
        quiet = self._waiting or self._held_up
        if self.alive and self._memory.pad is not None and not quiet and can_be_launched(program):
            kind = self._kinds.kind(values, len(numbers))
            return self._begin(Starting(Launched(program, self._memory, values, numbers, kind), self))
        return self._begin(Starting(Forked(program, self._memory, values, numbers), self))

    def begin_function(self, name: str, descriptors: tuple[int, ...]) -> Starting:
        """Have one of start()'s functions run with these descriptors, in a process that has no others but the streams.

        Its signals stay blocked. `done` tells that it has begun. Raises as begin() does.
        """
        return self._begin(Starting(Function(name, [*descriptors]), self))

    def _begin(self, starting: Starting) -> Starting:
        if not self.alive:
            self._fork(starting)
            return starting
        self._attach()
        if isinstance(starting.asked, Launched):
            self._launched += 1
        if starting.asked.quiet and self._launched:
            self._waiting.append(starting)
            self._quiet_by = time.monotonic() + QUIET
            if self._loop is not None:
                self._loop.call_later(QUIET, self.drain)
        else:
            self._queued.append(starting)
        self._send()
        return starting

    def drain(self) -> None:
        """Take notice of the processes that exist by now: to be called before children are reaped. It never waits."""
        if self._left and len(self._free) <= 2 * RESERVE:
            left, self._left = self._left, []
            for starting in left:
                starting.take()
                starting.close()
        sent, slots = self._sent, self._slots
        while sent and (number := slots[sent[0].slot]):
            starting = sent.popleft()
            self._births += 1
            if not starting.asked.holds_slot or number < 0:
                self._free_slot(starting)
            self._tell(starting, number)
        if self._waiting and (not self._launched or time.monotonic() >= self._quiet_by):
            self._queued.extend(self._waiting)
            self._waiting.clear()
        if self._queued:
            self._send()
        elif not sent:
            self._forget_timer()

    def leave(self, starting: Starting) -> None:
        """For `starting`: its owner has closed it, and its slot is still used."""
        self._left.append(starting)

    def _free_slot(self, starting: Starting) -> None:
        self._slots[starting.slot] = 0
        self._free.append(starting.slot)
        starting.slot = NO_SLOT
        self._held_up = self._held_up and len(self._free) <= 2 * RESERVE
        if self._most > FEW and len(self._free) == SLOTS:
            self._most = 0
            self._memory.tables.madvise(mmap.MADV_REMOVE)

    def _tell(self, starting: Starting, number: int) -> None:
        if number < 0:
            other = starting.asked.otherwise() if -number not in NO_ROOM else None
            if other is None:
                starting.unborn(-number)
            else:
                starting.ask(other)
                self._queued.appendleft(starting)
            return
        starting.born(number)
        if self.on_pid is not None:
            try:
                self.on_pid(starting)
            except Exception as error:
                log.unexpected(f"at the start of process {number}", error)

    def over(self, starting: Starting, asked: Asked) -> None:
        """For `starting`: what was asked for has been executed, or will not be in this way."""
        if isinstance(asked, Launched):
            self._launched -= 1
        if starting.slot != NO_SLOT:
            self._free_slot(starting)
        if self.alive and (self._queued or (self._waiting and not self._launched)):
            self.drain()  # there is a slot again, or what was waited for

    def ended(self, _status: Status | None = None) -> None:
        """It is gone: PID 1 forks by itself from here on, also for what it had been asked for.

        On a loop it is noticed without this call. Elsewhere it is for whoever reaps it.
        """
        if not self.alive:
            return
        self.drain()
        self.alive = False
        self._hang_up()
        if not self._closing:
            log.warning("the spawner has ended: PID 1 starts programs by itself from here on, and takes longer for it")
        lost = [*self._sent, *self._queued, *self._waiting]
        for waiting in (self._sent, self._queued, self._waiting):
            waiting.clear()
        for starting in lost:
            self._fork_or_fail(starting)

    def close(self) -> None:
        """Have it end."""
        self._closing = True
        self.alive = False
        self._hang_up()

    def _hang_up(self) -> None:
        self._detach()
        self._channel.close()
        for fd in (self._bell, self._pidfd):
            os.close(fd)

    def _send(self) -> None:
        """As many requests as there is room for."""
        queued = self._queued
        try:
            while queued:
                starting = queued[0]
                if starting.slot == NO_SLOT:
                    if len(self._free) <= (RESERVE if isinstance(starting.asked, Launched) else 0):
                        break
                    starting.slot = self._free.pop()
                    self._most = max(self._most, SLOTS - len(self._free))
                starting.send(self._channel)
                self._sent.append(queued.popleft())
        except BlockingIOError:
            self._await_room(True)
            return
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                return  # its end is told
            if error.errno == errno.ETOOMANYREFS and self._sent:
                return  # too many descriptors are on their way: with the next birth there are fewer
            self._fork_instead(error)
            return
        self._await_room(False)
        self._watch()

    def _fork_instead(self, error: OSError) -> None:
        """What cannot be sent is forked here."""
        log.debug(f"a request to the spawner cannot be sent: {error.strerror}")
        starting = self._queued.popleft()
        starting.forget_packets()
        if starting.slot != NO_SLOT:
            self._free_slot(starting)
        self._fork_or_fail(starting)

    def _fork_or_fail(self, starting: Starting) -> None:
        try:
            self._fork(starting)
        except OSError as error:
            starting.unborn(error.errno or errno.EIO)

    def _fork(self, starting: Starting) -> None:
        """Make its process here. Raises OSError."""
        other = starting.asked.otherwise()
        if other is not None:
            starting.ask(other)
        asked = starting.asked
        if isinstance(asked, Forked):
            self._fork_program(starting, asked.program_with(starting.descriptors))
            return
        pid = os.fork()
        if pid == 0:
            forget_loop()
            log.send_file_to(nowhere)
            run_function(self._functions[asked.name], starting.descriptors, starting.writer)
        self._tell(starting, pid)

    def _fork_program(self, starting: Starting, program: Program) -> None:
        """With what a child of the spawner has from it, and PID 1 has otherwise by now."""
        score = self._score if program.oom_score_adj is None else program.oom_score_adj
        limits = ((resource.RLIMIT_NOFILE, *self._limit), *program.limits)
        self._tell(starting, spawn.fork(program.replace(limits=limits, oom_score_adj=score), starting.writer))

    # on the loop

    def _attach(self) -> None:
        """Hear of births and of its end on the loop that runs now, if one does."""
        events = sys.modules.get("asyncio.events")
        loop = None if events is None else events._get_running_loop()
        if self._loop is None and loop is not None:
            self._loop = loop
            loop.add_reader(self._bell, self._rung)
            loop.add_reader(self._pidfd, self.ended)

    def _detach(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._bell)
            self._loop.remove_reader(self._pidfd)
            self._await_room(False)
            self._loop = None
        self._forget_timer()

    def _rung(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return
        self.drain()

    def _await_room(self, wanted: bool) -> None:
        if self._loop is not None and wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._channel.fileno(), self._send)
            else:
                self._loop.remove_writer(self._channel.fileno())

    def _watch(self) -> None:
        """Somebody in the guest may stop or freeze it: see that there is progress while anything is waited for."""
        if self._timer is None and self._loop is not None and (self._sent or self._queued):
            self._timer = self._loop.call_later(PATIENCE, self._look, self._births)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, births: int) -> None:
        self._timer = None
        self.drain()
        if self._births != births:
            self._watch()
        elif self._sent:
            log.warning(f"the spawner has not forked for {PATIENCE:g} s, though it was asked to")
            self._kill()
        elif self._queued:
            # so many execs are held up that no slot is left but the reserve: those need none that are forked for
            self._held_up = True
            for starting in list(self._queued):
                other = starting.asked.otherwise()
                if other is not None and starting.slot == NO_SLOT:
                    starting.ask(other)
            self.drain()

    def _kill(self) -> None:
        try:
            process.pidfd_send_signal(self._pidfd, SIGKILL)
        except ProcessLookupError:
            pass  # it has ended
