"""The spawner's own side: from its fork to its end it waits for a message, and forks for it.

It makes children of PID 1 (CLONE_PARENT), and keeps nothing of them. It never waits for one: the guest can hold up
an exec, but not the fork.
"""

from __future__ import annotations

import errno
import gc
import marshal
import os
import sys

from lcinit import log
from lcinit.errors import EX_OSERR, EX_SOFTWARE, LcinitError, SystemFailure
from lcinit.linux import capabilities, clone, mount, namespaces, prepared, process, signals
from lcinit.supervisor import oom_score, spawn
from lcinit.supervisor.spawner_messages import ROOM, Message, program_of, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any, Never

    Function = Callable[[list[int]], int]

SLOTS = 1024  # requests that the spawner may have at once
TAKEN = 8
REMEMBERED = 256  # kinds of programs that differ in nothing but their words and variables
# What a fork that cannot be made would not be made without CLONE_INTO_CGROUP either; a join of the cgroup would then
# go around the limits of that cgroup.
_NO_ROOM = (errno.EAGAIN, errno.ENOMEM)


class Memory:
    """`slots` are numbers that PID 1 shares: one a message, 0 until there is a PID or minus an errno. `room` is where
    messages are received. `slots_at` and `room_at` are their addresses, the same in both.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        import mmap

        shared = mmap.mmap(-1, 4 * SLOTS)
        room = mmap.mmap(-1, ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.slots = memoryview(shared).cast("i")
        self.slots_at = clone.address_of(shared)
        self.room = memoryview(room)
        self.room_at = clone.address_of(room)


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

    def run(self, parent: int) -> Never:
        """All of it."""
        try:
            self._settle(parent)
            while True:
                message = receive(self._channel, self._memory.room)
                if message is None:
                    os._exit(0)  # PID 1 has no more use for it, or is another program now
                self._take(message)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(EX_SOFTWARE)

    def _settle(self, parent: int) -> None:
        """Nothing of PID 1's is kept but the standard streams, and the memory that both have from before."""
        harden()
        process.set_pdeathsig(signals.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        log.send_file_to(nowhere)  # the log's file is PID 1's
        self._kept = {self._channel.fileno(), self._bell, oom_score.hold()}
        process.close_all_but(self._kept)
        # the numbers that programs are given stay taken, so that nothing that is received has to be moved away first
        while len(self._kept) < TAKEN:
            self._kept.add(os.dup(self._bell))
        signals.reset_signals()
        signals.block_all()
        process.set_name("lcinit-spawner")
        gc.disable()
        gc.freeze()

    def _take(self, message: Message) -> None:
        if message.values is None:
            self._answer(message.slot, -errno.EMFILE)
        elif message.values[0] == "enter":
            self._channel.send(marshal.dumps(self._enter(message)))
            message.descriptors = []
        elif message.values[0] == "function":
            self._answer(message.slot, self._call(message))
        else:
            self._answer(message.slot, self._start(message))
        message.close()

    def _answer(self, slot: int, number: int) -> None:
        if number < 0:
            self._memory.slots[slot] = number
        os.eventfd_write(self._bell, 1)

    def _start(self, message: Message) -> int:
        """Fork for a program: 0, for the kernel has written the PID by then; or minus an errno."""
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
        number = self._fork(child, image, message.slot, child.program.cgroup)
        if number and child.program.cgroup is not None and -number not in _NO_ROOM:
            # the child enters the cgroup itself, or says why not
            other = self._child(values, message.descriptors, within_cgroup=False)
            number = self._fork(other, image, message.slot, None)
            other.forget()
        if child.moved:
            child.forget()
        return number

    def _child(self, values: tuple[Any, ...], descriptors: list[int], *, within_cgroup: bool) -> spawn.Child:
        program = program_of(values, descriptors)
        return spawn.Child(program, descriptors[-1], within_cgroup=within_cgroup, default_signals=True)

    def _forget(self) -> None:
        for child in self._children.values():
            child.forget()
        self._children.clear()

    def _fork(self, child: spawn.Child, image: prepared.Image | None, slot: int, cgroup: int | None) -> int:
        score = oom_score.Loan(child.program.oom_score_adj)
        try:
            pid = self._siblings.clone(self._memory.slots_at + 4 * slot, cgroup)
            if pid == 0:
                child.run(image, score.failure)
        except OSError as error:
            return -(error.errno or errno.EIO)
        finally:
            score.end()
        return 0

    def _call(self, message: Message) -> int:
        """Fork for a function."""
        assert message.values is not None
        *descriptors, report = message.descriptors
        function = self._functions[message.values[1]]
        try:
            pid = self._siblings.clone(self._memory.slots_at + 4 * message.slot, interpreter=True)
        except OSError as error:
            return -(error.errno or errno.EIO)
        if pid == 0:
            run_function(function, descriptors, report)
        return 0

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


def harden() -> None:
    """Not dumpable, verified: a change of ids may have set what fs.suid_dumpable says (proc_sys_fs(5))."""
    process.set_dumpable(False)
    if process.get_dumpable() != 0:
        raise SystemFailure("the kernel keeps the spawner dumpable, so that a guest could look into it")


def place_of(namespaces_entered: list[tuple[int, int]]) -> dict[str, Any]:
    """What PID 1 has that its children have from it: see `enter`."""
    return {
        "namespaces": [flag for flag, _ in namespaces_entered],
        "ids": (os.getresuid(), os.getresgid(), os.getgroups()),
        "capabilities": capabilities.get_capabilities(),
        "bounding": sum(1 << number for number in capabilities.bounding_set()),
        "no_new_privs": process.get_no_new_privs(),
        "keyring": process.session_keyring(),
    }


def enter(place: dict[str, Any], descriptors: list[int], kept: set[int]) -> None:
    """Become what a fork of PID 1 would be: `descriptors` are its namespaces, the user namespace the last of them, its
    root and its standard streams. All but `kept` are closed afterwards. Raises OSError, LcinitError.
    """
    *spaces, root, stdin, stdout, stderr = descriptors
    harden()
    for fd, flag in zip(spaces, place["namespaces"], strict=True):
        if flag == namespaces.CLONE_NEWUSER:
            _enter_root(root)
        namespaces.setns(fd, flag)
    _enter_root(root)
    os.chdir("/")
    uids, gids, groups = place["ids"]
    if os.getgroups() != groups:
        os.setgroups(groups)
    if os.getresgid() != gids:
        os.setresgid(*gids)
    if os.getresuid() != uids:
        os.setresuid(*uids)
    harden()
    process.set_pdeathsig(signals.SIGKILL)  # a change of ids has undone it
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream, number, inheritable=True)
    process.close_all_but(kept)
    if process.session_keyring() != place["keyring"]:
        process.join_session_keyring()
    capabilities.drop_bounding(number for number in range(64) if not place["bounding"] >> number & 1)
    capabilities.set_capabilities(*place["capabilities"])
    if place["no_new_privs"]:
        process.set_no_new_privs()


def _enter_root(root: int) -> None:
    own = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(own), os.fstat(root)) and mount.mount_id(own) == mount.mount_id(root):
            return
    finally:
        os.close(own)
    os.fchdir(root)
    os.chroot(".")


def run_function(function: Function, descriptors: list[int], report: int) -> Never:
    """In a fork: call it with these descriptors, and with none beside them; its result is the exit code."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.dup2(null, 0, inheritable=True)
        process.close_all_but({*descriptors, report})
        gc.enable()
    except OSError as error:
        os.write(report, spawn.report_of("start", error))
        os._exit(EX_OSERR)
    os.close(report)
    spawn.call(lambda: function(descriptors))
