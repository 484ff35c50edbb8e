"""Run a function in a forked child inside new namespaces, and fail as it failed."""

from __future__ import annotations

import os
import select
import signal
import time
import traceback

import pytest

from lcinit.linux import mount as mount_calls
from lcinit.linux import namespaces
from lcinit.linux.calls import AT_FDCWD
from lcinit.linux.process import pidfd_open, set_pdeathsig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces")


class IsolatedFailure(AssertionError):
    """What went wrong in the child, with its traceback."""


def run_isolated(
    function: Callable[[], object],
    *,
    mount: bool = True,
    net: bool = True,
    pid: bool = False,
    timeout: float = 30,
) -> None:
    """Call `function` in a forked child with a private mount namespace and an empty network namespace of its own.

    With `pid` it is PID 1 of a new PID namespace with its own /proc, so that whatever it leaves running ends with it.
    An exception fails the caller's test with the child's traceback; pytest.skip() in it skips. `timeout` is in
    seconds; then the child and its process group are killed. The child is forked from the test's process: only its
    own copy is changed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        _child(function, writer, mount=mount, net=net, pid=pid)
    os.close(writer)
    try:
        report = _wait(child, reader, timeout)
    finally:
        os.close(reader)
    if report.startswith("skip:"):
        pytest.skip(report[5:])
    if report != "done":
        raise IsolatedFailure(report)


def _wait(child: int, reader: int, timeout: float) -> str:
    """The child's report. It is killed at the deadline; its end is waited for in any case."""
    deadline = time.monotonic() + timeout
    pidfd = pidfd_open(child)
    chunks: list[bytes] = []
    try:
        ended = False
        while not ended:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([reader, pidfd], [], [], max(0, left))
            if reader in ready and (chunk := os.read(reader, 65536)):
                chunks.append(chunk)
            elif pidfd in ready:
                ended = True
            elif left <= 0:
                chunks.append(f"\nno end after {timeout} seconds".encode())
                break
            elif reader in ready:
                select.select([pidfd], [], [], max(0, left))  # the report's end; only the process is still to end
    finally:
        os.close(pidfd)
        try:
            os.killpg(child, signal.SIGKILL)  # not reaped yet, so the group is still its own
        except ProcessLookupError:
            pass
        _, status = os.waitpid(child, 0)
    report = b"".join(chunks).decode(errors="replace")
    return report or f"the child ended without a report, wait status {status:#x}"


def _child(function: Callable[[], object], writer: int, *, mount: bool, net: bool, pid: bool) -> None:
    status = 1
    try:
        flags = namespaces.CLONE_NEWNS * mount | namespaces.CLONE_NEWNET * net | namespaces.CLONE_NEWPID * pid
        if flags:
            namespaces.unshare(flags)
        if mount:
            mount_calls.make_private("/")
        if pid:
            inner = os.fork()
            if inner:
                os.close(writer)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) & 0xFF)
            set_pdeathsig(signal.SIGKILL)
            if mount:
                proc = mount_calls.new_mount("proc")
                mount_calls.move_mount(proc, "", AT_FDCWD, "/proc", 0)
                os.close(proc)
        function()
        os.write(writer, b"done")
        status = 0
    except pytest.skip.Exception as skipped:
        os.write(writer, f"skip:{skipped.msg}".encode())
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
    finally:
        os._exit(status)
