"""A guest of one process with the filter on, and whoever answers its calls, in namespaces of their own."""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import traceback
from collections.abc import Callable
from typing import Any

from lcinit.control.rebooting import RebootCalls
from lcinit.linux import capabilities, namespaces, process, seccomp
from lcinit.linux.calls import by_machine
from lcinit.linux.signals import SIGKILL
from tests.namespace.isolated import run_isolated

MAGIC1, MAGIC2 = 0xFEE1DEAD, 672274793
RESTART, RESTART2, HALT, POWER_OFF = 0x01234567, 0xA1B2C3D4, 0xCDEF0123, 0x4321FEDC
CAD_ON, CAD_OFF = 0x89ABCDEF, 0
KEXEC, SW_SUSPEND = 0x45584543, 0xD000FCE2

_libc = ctypes.CDLL(None, use_errno=True)
_REBOOT = by_machine(169, 142)


def reboot(command: int, magic1: int = MAGIC1, magic2: int = MAGIC2) -> int:
    """The bare system call: 0, or errno."""
    arguments = (ctypes.c_long(argument) for argument in (_REBOOT, magic1, magic2, command, 0))
    return 0 if _libc.syscall(*arguments) == 0 else ctypes.get_errno()


def forked(body: Callable[[], int]) -> int:
    """Run `body` in a child: its result, or minus the signal it died of."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def without_sys_boot() -> None:
    """Drop CAP_SYS_BOOT from the effective set, and no other."""
    effective, permitted, _ = capabilities.get_capabilities()
    mask = ~(1 << capabilities.CAPABILITIES["sys_boot"])
    capabilities.set_capabilities(effective & mask, permitted & mask, 0)


def note_reboots(made: list[int]) -> None:
    """In this process no call ends anything any more: commands are added to the list."""
    process.reboot = made.append  # type: ignore[assignment]


class Guest:
    """A process that is root of a user namespace with an id map and has the filter on; it runs `script` and ends.

    `listener` answers its calls, `namespace` is the identity of its user namespace, `result` what `script` returned.
    """

    def __init__(self, script: Callable[[], Any]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.report, report = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _be_guest(script, theirs, report)
        theirs.close()
        os.close(report)
        assert ours.recv(1) == b"u"
        procfs = namespaces.open_procfs()
        for name in ("uid_map", "gid_map"):
            namespaces.write_proc_file(procfs, self.pid, name, b"0 100000 65536\n")
        found = os.stat(f"{self.pid}/ns/user", dir_fd=procfs)
        self.namespace = found.st_dev, found.st_ino
        os.close(procfs)
        ours.send(b"m")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        (self.listener,) = descriptors
        ours.send(b"g")
        ours.close()

    def answer(self, calls: RebootCalls) -> Any:
        """Serve the guest until it ends; what its script returned."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self.report, select.POLLIN)
        text = b""
        while True:
            for fd, event in poll.poll():
                if fd == self.listener:
                    if event & select.POLLIN:
                        calls.serve()
                    else:
                        poll.unregister(fd)
                elif received := os.read(fd, 65536):
                    text += received
                else:
                    os.waitpid(self.pid, 0)
                    return _result(text)

    def result(self) -> Any:
        """The same when somebody else answers."""
        text = b""
        while received := os.read(self.report, 65536):
            text += received
        os.waitpid(self.pid, 0)
        return _result(text)


def _result(text: bytes) -> Any:
    said = json.loads(text or b'{"error": "the guest ended without a report"}')
    if "error" in said:
        raise AssertionError(said["error"])
    return said["result"]


def _be_guest(script: Callable[[], Any], channel: socket.socket, report: int) -> None:
    try:
        process.set_pdeathsig(SIGKILL)
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        channel.send(b"u")
        assert channel.recv(1) == b"m"
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        listener = seccomp.listen(seccomp.notify_program(seccomp.REBOOT_CALLS))
        socket.send_fds(channel, [b"l"], [listener])
        os.close(listener)
        assert channel.recv(1) == b"g"
        said = {"result": script()}
    except BaseException:
        said = {"error": traceback.format_exc()}
    os.write(report, json.dumps(said).encode())
    os._exit(0)


def answered(script: Callable[[], Any], *, machine: bool = False, pid: bool = True) -> tuple[Any, list[int], list[str]]:
    """What `script` returned as the guest, which commands its calls led to, and what was said for the log.

    The call that ends PID 1 is replaced by a note of it, and so returns 0. `pid`: in a PID namespace of its own.
    """
    reader, writer = os.pipe()

    def body() -> None:
        made: list[int] = []
        said: list[str] = []
        note_reboots(made)
        guest = Guest(script)
        calls = RebootCalls(guest.listener, guest.namespace, machine=machine, say=said.append)
        result = guest.answer(calls)
        os.write(writer, json.dumps([result, made, said]).encode())

    try:
        run_isolated(body, pid=pid)
        os.close(writer)
        writer = -1
        result, made, said = json.loads(os.read(reader, 65536))
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    return result, made, said
