"""A PID 1 for tests of the spawner: real root, or uid 0 of a user namespace in a root that it has pivoted to."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable
from typing import Any

from lcinit.boot import guard
from lcinit.linux import capabilities, launch, mount, namespaces, process, signals
from lcinit.linux.calls import AT_FDCWD, AT_RECURSIVE
from lcinit.supervisor import spawn
from lcinit.supervisor.reaper import Child, Reaper, Status
from lcinit.supervisor.spawn import Program
from lcinit.supervisor.spawner import Spawner, Starting
from lcinit.supervisor.userns import any_procfs
from tests.namespace.isolated import run_isolated

SHIFT = 1000000
IDS = 65536
DROPPED = ("sys_module", "sys_rawio", "sys_time", "mac_admin", "audit_control")
PATH = ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
UNSHARED = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWCGROUP
)


class Ended:
    """What became of a start. `output` is what the program wrote."""

    def __init__(self, pid: int | None, failure: str, exit_code: int, status: Status | None, output: str) -> None:
        self.pid = pid
        self.failure = failure
        self.exit_code = exit_code
        self.status = status
        self.output = output

    def __repr__(self) -> str:
        return f"pid {self.pid}, failure {self.failure!r}, status {self.status}, output {self.output!r}"

    def fields(self) -> dict[str, str]:
        """The output as `NAME:TAB VALUE` lines, as those of /proc/PID/status."""
        return {
            name: value.strip() for name, _, value in (line.partition(":") for line in self.output.splitlines()) if name
        }


class Ground:
    """PID 1 without a loop."""

    def __init__(self, spawner: Spawner) -> None:
        self.spawner = spawner
        self.reaper = Reaper()
        self.children: dict[Starting, Child] = {}
        spawner.on_pid = self._born
        self.reaper.before_reaping = spawner.drain
        self.reaper.register(spawner.pid).on_end = spawner.ended

    def _born(self, starting: Starting) -> None:
        assert starting.pid is not None
        self.children[starting] = self.reaper.register(starting.pid)

    def reap(self) -> None:
        """As PID 1 does it at a SIGCHLD."""
        self.reaper.reap()

    def until(self, condition: Callable[[], Any], timeout: float = 10) -> None:
        """Be PID 1 until something is so."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it is not so in time"
            self.reap()
            time.sleep(0.002)

    def finish(self, starting: Starting, timeout: float = 10) -> Child | None:
        """Wait for a start's end: the child, None where there was none."""

        def is_over() -> bool:
            starting.take()
            child = self.children.get(starting)
            return starting.done and (child is None or child.status is not None)

        self.until(is_over, timeout)
        starting.close()
        return self.children.get(starting)

    def run(self, program: Program, *, timeout: float = 10) -> Ended:
        """Run it to its end, through the spawner."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        starting = self.spawner.begin(program.replace(stdout=writer, stderr=writer))
        os.close(writer)
        child = self.finish(starting, timeout)
        failure = starting.failure
        status = None if child is None else child.status
        return Ended(
            starting.pid,
            "" if failure is None else failure.message,
            0 if failure is None else failure.exit_code,
            status,
            drained(reader),
        )

    def run_here(self, program: Program) -> Ended:
        """The same, forked by PID 1 itself."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid, report = spawn.begin(program.replace(stdout=writer, stderr=writer))
        os.close(writer)
        child = self.reaper.register(pid)
        failure = spawn.told(program, report)
        self.until(lambda: child.status is not None)
        message, code = ("", 0) if failure is None else (failure.message, failure.exit_code)
        return Ended(pid, message, code, child.status, drained(reader))

    def sh(self, script: str, **fields: Any) -> Ended:
        """Run a shell's script; fields are those of Program."""
        return self.run(shell(script, **fields))


def shell(script: str, **fields: Any) -> Program:
    """A shell that runs a script."""
    environment = (PATH, *fields.pop("environment", ()))
    return Program(argv=("/bin/sh", "-c", script), environment=environment, **fields)


def drained(reader: int) -> str:
    """What is in a pipe that nobody writes to any more, which is closed. What is kept open is not waited for."""
    chunks = []
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while poll.poll(2000) and (chunk := os.read(reader, 65536)):
        chunks.append(chunk)
    os.close(reader)
    return b"".join(chunks).decode(errors="replace")


def on_ground(
    function: Callable[[Ground], object],
    *,
    mapped: bool,
    functions: dict[str, Callable[[list[int]], int]] | None = None,
    before: Callable[[], object] | None = None,
    enter: bool = True,
    launching: bool = True,
    timeout: float = 60,
) -> None:
    """Call it in PID 1 of a PID namespace; `before` is called before the spawner is forked.

    With `mapped` PID 1 then becomes uid 0 of a user namespace with IDS ids, in all the namespaces that a guest has, and
    pivots. /tmp is an empty tmpfs of its own in both. Without `launching` no memory can be made executable.
    """

    def inside() -> None:
        signals.block_all()
        process.set_dumpable(False)
        os.chdir("/")
        if before is not None:
            before()
        if not launching:
            launch.Pad = NoPad  # type: ignore[misc]
        spawner = Spawner.start(functions or {}, close_imports=guard.close)
        if mapped:
            _become_guest()
        else:
            process.join_session_keyring()
        _own_tmp()
        if enter:
            spawner.enter()
        function(Ground(spawner))

    run_isolated(inside, pid=True, timeout=timeout)


class NoPad(launch.Pad):
    """As under SELinux or a filter of a manager."""

    def __init__(self) -> None:
        raise PermissionError(errno.EACCES, "mprotect: Permission denied")


def _become_guest() -> None:
    ready, begin = os.pipe2(os.O_CLOEXEC)
    done, end = os.pipe2(os.O_CLOEXEC)
    mapper = os.fork()
    if mapper == 0:
        _write_maps(ready, end)
    namespaces_flags = UNSHARED
    namespaces.unshare(namespaces_flags)
    os.write(begin, b"1")
    assert os.read(done, 1) == b"1"
    os.waitpid(mapper, 0)
    for fd in (ready, begin, done, end):
        os.close(fd)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    process.set_dumpable(False)
    root = mount.open_tree(AT_FDCWD, "/", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | AT_RECURSIVE)
    mount.move_mount(root, "", AT_FDCWD, "/", 0)
    os.fchdir(root)
    os.close(root)
    mount.pivot_root(".", ".")
    mount.umount2(".", mount.MNT_DETACH)
    os.chdir("/")
    process.join_session_keyring()
    capabilities.drop_bounding(capabilities.CAPABILITIES[name] for name in DROPPED)
    effective, permitted, _ = capabilities.get_capabilities()
    capabilities.set_capabilities(effective, permitted, 0)


def _write_maps(ready: int, end: int) -> None:
    status = 1
    try:
        os.read(ready, 1)
        procfs = any_procfs()
        for name in ("uid_map", "gid_map"):
            namespaces.write_proc_file(procfs, 1, name, namespaces.format_id_map([(0, SHIFT, IDS)]))
        os.write(end, b"1")
        status = 0
    finally:
        os._exit(status)


def _own_tmp() -> None:
    tmpfs = mount.new_mount("tmpfs", {"mode": "1777"})
    mount.move_mount(tmpfs, "", AT_FDCWD, "/tmp", 0)
    os.close(tmpfs)
