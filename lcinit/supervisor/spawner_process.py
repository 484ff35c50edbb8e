"""The spawner's own side: from its fork to its end it waits for a message, and forks for it.

It makes children of PID 1 (CLONE_PARENT), and keeps nothing of them. It never waits for one: the guest can hold up
an exec, but not the fork.
"""

from __future__ import annotations

import errno
import gc
import marshal
import mmap
import os
import sys

from lcinit import log
from lcinit.errors import EX_OSERR, EX_SOFTWARE, LcinitError, SystemFailure
from lcinit.linux import clone, launch, prepared, process, signals
from lcinit.supervisor import environments as environments  # what is used later must be imported before
from lcinit.supervisor import oom_score, spawn
from lcinit.supervisor.dumping import forbid_dumping
from lcinit.supervisor.place import enter
from lcinit.supervisor.spawner_messages import ROOM, Message, program_of, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any, Never

    Function = Callable[[list[int]], int]
else:
    import _socket as socket

SLOTS = 1024  # starts that may be under way at once
TABLE = 4096  # bytes of a table, with its words and variables
RECEIVED = 16  # the first number of a descriptor that is received
REMEMBERED = 256  # kinds of programs that differ in nothing but their words and variables
# What a fork that cannot be made would not be made without CLONE_INTO_CGROUP either; a join of the cgroup would then
# go around the limits of that cgroup.
NO_ROOM = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE)


class Memory:
    """What PID 1 and the spawner have at the same addresses. `slots` and `tables` are shared: a number and room for a
    table for each start. The number is 0 until there is a PID, or minus an errno. `room` is each one's own: where
    messages are received. `pad` is None where nothing can be launched.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._numbers, self.tables = mmap.mmap(-1, 4 * SLOTS), mmap.mmap(-1, TABLE * SLOTS)
        room = mmap.mmap(-1, ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.slots, self.room = memoryview(self._numbers).cast("i"), memoryview(room)
        self.slots_at, self.tables_at, self.room_at = map(clone.address_of, (self._numbers, self.tables, room))
        self.pad: launch.Pad | None = None
        try:
            self.pad = launch.Pad()
        except OSError as error:
            log.debug(f"every program is forked for: {error.strerror}")

    def keep(self) -> None:
        """No later fork of this process has what is shared."""
        for shared in (self._numbers, self.tables):
            shared.madvise(mmap.MADV_DONTFORK)

    def table(self, slot: int) -> int:
        """The address of a slot's table."""
        return self.tables_at + TABLE * slot


class SpawnerProcess:
    """The spawner, from its fork to its end."""

    def __init__(
        self,
        channel: socket.socket,
        bell: int,
        memory: Memory,
        functions: Mapping[str, Function],
        close_imports: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._bell = bell
        self._memory = memory
        self._functions = functions
        self._close_imports = close_imports
        self._siblings = clone.Siblings()
        self._children: dict[tuple[Any, ...], spawn.Child] = {}
        self._kept: set[int] = set()

    def run(self, parent: int, procfs: int) -> Never:
        """All of it, from a procfs by its handle."""
        try:
            self._settle(parent, procfs)
            while True:
                message = receive(self._channel, self._memory.room)
                if message is None:
                    os._exit(0)  # PID 1 has no more use for it, or is another program now
                self._take(message)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(EX_SOFTWARE)

    def _settle(self, parent: int, procfs: int) -> None:
        """Nothing of PID 1's is kept but the standard streams, and the memory that both have from before."""
        forbid_dumping()
        process.set_pdeathsig(signals.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        log.send_file_to(nowhere)  # the log's file is PID 1's
        self._memory.keep()
        self._place_descriptors(procfs)
        signals.reset_signals()
        signals.block_all()
        process.set_name("lcinit-spawner")
        gc.disable()
        gc.freeze()

    def _place_descriptors(self, procfs: int) -> None:
        """Its own are the lowest numbers from 3 on, and none is free below RECEIVED: what is received has the numbers
        that PID 1 reckons with, and none that a program is to have.
        """
        own = [process.move_up(fd, 100) for fd in (self._channel.detach(), self._bell, oom_score.hold(procfs))]
        for number in range(3, RECEIVED):
            os.dup2(own[number - 3] if number < 6 else own[1], number, inheritable=False)
        self._channel, self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 3), 4
        oom_score.moved(5)
        self._kept = set(range(3, RECEIVED))
        process.close_all_but(self._kept)

    def _take(self, message: Message) -> None:
        if message.values is None:
            self._answer(message.slot, -errno.EMFILE)
        elif message.values[0] == "enter":
            self._channel.send(marshal.dumps(self._enter(message)))
            message.descriptors = []
        else:
            self._answer(message.slot, self._make(message))
        message.close()

    def _make(self, message: Message) -> int:
        """Have a child made: 0, for the kernel has written its PID by then; or minus an errno."""
        assert message.values is not None
        try:
            {"launch": self._launch, "function": self._call, "program": self._start}[message.values[0]](message)
        except OSError as error:
            return -(error.errno or errno.EIO)
        except Exception as error:
            log.unexpected("in the spawner", error)
            return -errno.EINVAL
        return 0

    def _answer(self, slot: int, number: int) -> None:
        if number < 0:
            self._memory.slots[slot] = number
        os.eventfd_write(self._bell, 1)

    def _launch(self, message: Message) -> None:
        """Have the table of its slot done."""
        assert message.values is not None
        _, cgroup, start = message.values
        numbers = message.descriptors
        if self._memory.pad is None or numbers != [*range(RECEIVED, RECEIVED + len(numbers))]:
            raise OSError(errno.EBADF, "the table has other numbers")
        table = self._memory.table(message.slot) + start
        pid_at = self._memory.slots_at + 4 * message.slot
        self._memory.pad.launch(table, pid_at, None if cgroup is None else numbers[cgroup])

    def _start(self, message: Message) -> None:
        """Fork for a program."""
        assert message.values is not None
        _, values, addresses = message.values
        image = None if addresses is None else prepared.Image(*addresses)
        key = (values, *message.descriptors)
        child = self._children.get(key)
        if child is None:
            child = self._child(values, message.descriptors, within_cgroup=True)
            if len(self._children) >= REMEMBERED:
                self._forget()
            if not child.moved:
                self._children[key] = child
        try:
            self._fork(child, image, message.slot, child.program.cgroup)
        except OSError as error:
            if child.program.cgroup is None or error.errno in NO_ROOM:
                raise
            # the child enters the cgroup itself, or says why not
            other = self._child(values, message.descriptors, within_cgroup=False)
            try:
                self._fork(other, image, message.slot, None)
            finally:
                other.forget()
        finally:
            if child.moved:
                child.forget()

    def _child(self, values: tuple[Any, ...], descriptors: list[int], *, within_cgroup: bool) -> spawn.Child:
        program = program_of(values, descriptors)
        return spawn.Child(program, descriptors[-1], within_cgroup=within_cgroup, default_signals=True)

    def _forget(self) -> None:
        for child in self._children.values():
            child.forget()
        self._children.clear()

    def _fork(self, child: spawn.Child, image: prepared.Image | None, slot: int, cgroup: int | None) -> None:
        score = oom_score.Loan(child.program.oom_score_adj)
        try:
            if self._siblings.clone(self._memory.slots_at + 4 * slot, cgroup) == 0:
                child.run(image, score.failure)
        finally:
            score.end()

    def _call(self, message: Message) -> None:
        """Fork for a function."""
        assert message.values is not None
        *descriptors, report = message.descriptors
        function = self._functions[message.values[1]]
        if self._siblings.clone(self._memory.slots_at + 4 * message.slot, interpreter=True) == 0:
            run_function(function, descriptors, report)

    def _enter(self, message: Message) -> tuple[int, str, str]:
        """Go where PID 1 has gone: exit code, message and hint, all empty for success."""
        assert message.values is not None
        try:
            enter(message.values[1], message.descriptors, self._kept)
            self._close_imports()
        except LcinitError as error:
            return error.exit_code, error.message, error.hint
        except OSError as error:
            failure = SystemFailure.from_os_error("take the spawner into the guest", error)
            return failure.exit_code, failure.message, failure.hint
        return 0, "", ""


def nowhere(_line: bytes) -> None:
    """Where this process' lines of the log's file go."""


def run_function(function: Function, descriptors: list[int], report: int) -> Never:
    """In a fork: call it with these descriptors, and with none beside them; its result is the exit code."""
    try:
        os.setsid()
        nothing, _ = os.pipe()  # and not /dev/null: somebody may have mounted over /dev what never answers
        os.dup2(nothing, 0, inheritable=True)
        process.close_all_but({*descriptors, report})
        gc.enable()
    except OSError as error:
        os.write(report, spawn.report_of("start", error))
        os._exit(EX_OSERR)
    os.close(report)
    spawn.call(lambda: function(descriptors))
