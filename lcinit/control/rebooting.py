"""Answering the reboot(2) of a handed-off guest with an id map: the keeper makes the call that the guest may not.

The PID namespace of such a guest belongs to the outside, so the kernel refuses reboot(2) to everybody in it. A seccomp
filter that PID 1 put on before its exec has every such call wait here (seccomp_unotify(2)). Nothing of a call is
believed but its registers and its caller, and the kernel is never told to go on with it: it is answered, or it is made.

Who may: a process with CAP_SYS_BOOT in the guest's own user namespace, as if that owned the PID namespace. Who is in a
PID namespace of its own, as the init of a container in the guest, may end that one alone, by the kernel's own rule:
CAP_SYS_BOOT in the user namespace that owns it, or in one above.
"""

from __future__ import annotations

import errno
import os

from lcinit.control.reboot_call import holds_sys_boot, is_in_own_pidns, judge
from lcinit.linux import namespaces, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Identity = tuple[int, int]

_STATUS_SIZE = 1 << 20  # bytes: a process may be in 65536 groups, which stand before its capabilities
_MOST_LEVELS = 33  # the kernel nests no more user namespaces than 32 below the first


class RebootCalls:
    """The calls that come through `listener`; `say` takes a line for the log.

    `guest` is the device and inode number of the guest's user namespace, which lives as long as any process of it.
    `machine`: the guest's PID 1 is the machine's first process, and its end the machine's. In the machine's first PID
    namespace every call is refused without it.
    """

    def __init__(self, listener: int, guest: Identity, *, machine: bool, say: Callable[[str], None]) -> None:
        self._listener = listener
        self._guest = guest
        self._machine = machine
        self._say = say
        self._procfs = namespaces.open_procfs()  # of its own, because nobody can have put another in its place
        self._forbidden = namespaces.in_initial_pidns(self._procfs) != machine

    def serve(self) -> None:
        """Answer the one call that waits longest. Raises OSError when the listener itself fails."""
        call = seccomp.receive(self._listener)
        if call is None:
            return  # its caller was killed meanwhile
        error = errno.EPERM
        try:
            error = self._perform(call)
        except (FileNotFoundError, ProcessLookupError):
            pass  # the caller has ended
        except OSError as failed:
            self._say(f"keeper: cannot answer reboot(2) of PID {call.pid}: {failed.strerror or failed}")
        finally:
            seccomp.answer(self._listener, call.id, error)  # whatever happens: its caller would wait for ever

    def _perform(self, call: seccomp.Notification) -> int:
        """Do what the call asks for, if its caller may ask: the errno of the answer, 0 where it succeeds."""
        caller = os.open(str(call.pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._procfs)
        try:
            # the handle stays with one process; asked now, the number was not another's when it was opened
            if not seccomp.is_waiting(self._listener, call.id):
                return errno.EPERM
            status = _read(caller, "status")
            if self._forbidden or not holds_sys_boot(status):
                return errno.EPERM
            pidns = os.open("ns/pid", os.O_RDONLY | os.O_CLOEXEC, dir_fd=caller) if is_in_own_pidns(status) else -1
            try:
                if not self._may(_identity(os.stat("ns/user", dir_fd=caller)), pidns):
                    return errno.EPERM
                error, command = judge(call.arguments, machine=self._machine and pidns < 0)
                if command is None:
                    return error
                return self._reboot(command, call.pid) if pidns < 0 else _reboot_in(pidns, command)
            finally:
                if pidns >= 0:
                    os.close(pidns)
        finally:
            os.close(caller)

    def _may(self, user: Identity, pidns: int) -> bool:
        """Whether CAP_SYS_BOOT in the user namespace `user` reaches the caller's PID namespace (-1: the guest's)."""
        if pidns < 0:
            return user == self._guest
        owner = namespaces.ns_get_userns(pidns)
        for _ in range(_MOST_LEVELS):
            try:
                found = _identity(os.fstat(owner))
                if found == user:
                    return True
                if found == self._guest:
                    return False  # what lies above is not the guest's
                above = namespaces.ns_get_parent(owner)
            finally:
                os.close(owner)
            owner = above
        os.close(owner)
        return False

    def _reboot(self, command: int, pid: int) -> int:
        """reboot(2) from here: in a PID namespace this process ends with it (pid_namespaces(7))."""
        if self._machine:
            os.sync()  # the guest cannot remount what is the outside's, and reboot(2) writes nothing back
        try:
            process.reboot(command)
        except OSError as error:
            self._say(f"keeper: reboot(2) for PID {pid} of the guest failed: {error.strerror}")
            return error.errno or errno.EPERM
        return 0


def _reboot_in(pidns: int, command: int) -> int:
    """reboot(2) from inside a PID namespace below this one, by a child of a child, which enters it by being forked."""
    child = os.fork()
    if child == 0:
        code = errno.EPERM
        try:
            namespaces.setns(pidns, namespaces.CLONE_NEWPID)
            inside = os.fork()
            if inside == 0:
                process.reboot(command)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1])
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code if 0 <= code < 128 else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else errno.EPERM


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _read(directory: int, name: str) -> str:
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(file, _STATUS_SIZE).decode("ascii", "replace")
    finally:
        os.close(file)
