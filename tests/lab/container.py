"""What all drivers of container managers share: staging, the console, waiting, and cleaning up on every exit."""

from __future__ import annotations

import atexit
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple, Self

STARTER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "starter.py")
#: what everything that a run makes is called; the processes that share a run's tests among them share it too
PREFIX = f"lcinit-lab-{os.environ.setdefault('LCINIT_LAB_RUN', str(os.getpid()))}-"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ContainerError(AssertionError):
    """The container did not do what the test waits for; the message ends with its console."""


class Bind(NamedTuple):
    """`source` of the outside at `target` (absolute) of the container."""

    source: str
    target: str
    read_only: bool = False


class Ended(NamedTuple):
    """How a container ended: `status` is the manager's exit status (128 + N for signal N), None where it has none.

    `reason` is the manager's word for it, where it has one.
    """

    status: int | None
    reason: str = ""


class Specification(NamedTuple):
    """What start() was asked for, in the form that every driver translates into its manager's own words."""

    root: str
    binds: tuple[Bind, ...]
    tmpfs: tuple[str, ...]
    environment: dict[str, str]
    init: str
    arguments: tuple[str, ...]
    read_only: bool


class Container:
    """One container of one manager. Use as a context manager: leaving it kills and removes everything it made.

    Drivers set `manager` and implement `command`; those that need more override `pid1`, `wait`, `poweroff`, `reboot`.
    """

    manager: ClassVar[str]
    #: whether the manager itself starts the container again when its PID 1 calls reboot(LINUX_REBOOT_CMD_RESTART)
    restarts: ClassVar[bool] = False
    _count: ClassVar[int] = 0
    _alive: ClassVar[set[Container]] = set()

    def __init__(self, *, console: str = "pty") -> None:
        """`console`: "pty" (a terminal, 80x24) or "pipe" (standard input is /dev/null, output a pipe)."""
        Container._count += 1
        self.name = f"{PREFIX}{os.getpid()}-{Container._count}"
        self.console_kind = console
        self.process: subprocess.Popen[bytes] | None = None
        self.specification: Specification | None = None
        self._buffer = bytearray()
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None
        self._console_fd = -1
        self._descriptors: list[int] = []
        self.directory = tempfile.mkdtemp(prefix=f"{self.name}-")
        self.cgroup = os.path.join(cgroup2_mount(), self.name)
        os.mkdir(self.cgroup)
        mounted = {each: cgroup1_mount(each) for each in self.controllers_v1}
        self.cgroups_v1 = {each: os.path.join(where, self.name) for each, where in mounted.items() if where}
        Container._alive.add(self)
        for directory in self.cgroups_v1.values():
            os.mkdir(directory)

    # -- what a driver says ------------------------------------------------------------------------------------------

    def command(self, spec: Specification) -> Sequence[str]:
        """The manager's own command line for `spec`. May write files below `self.directory`."""
        raise NotImplementedError

    def manager_environment(self) -> dict[str, str]:
        """The environment of the manager itself: nothing of the caller's, so that nothing of it leaks through."""
        return {"PATH": PATH, "HOME": "/root", "TERM": "vt220", "LANG": "C.UTF-8"}

    #: directories that the manager writes to and the machine is not to keep: hidden by an empty tmpfs
    private_directories: ClassVar[tuple[str, ...]] = ("/run",)
    #: cgroup v1 hierarchies for a manager that cannot do with cgroup2 alone; empty: it sees cgroup2 and nothing else
    controllers_v1: ClassVar[tuple[str, ...]] = ()

    # -- starting ----------------------------------------------------------------------------------------------------

    def start(
        self,
        boot_root: str,
        *,
        guest_root: str | None = None,
        guest_read_only: bool = False,
        config: str | None = None,
        binds: Iterable[Bind | tuple[str, str] | tuple[str, str, bool]] = (),
        cache: bool = True,
        env: dict[str, str] | None = None,
        init: str = "/sbin/init",
        args: Iterable[str] = (),
        read_only: bool = False,
    ) -> Self:
        """Start `init` of `boot_root` (never written to: an overlay on it is the container's root).

        `guest_root` appears at /mnt/root, the text `config` as /mnt/init.yml, `binds` where they say; `cache` puts an
        empty tmpfs at /mnt/cache. `env` reaches PID 1 as the manager passes variables, `args` are PID 1's arguments.
        `read_only` makes the boot root read-only where the manager can.
        """
        mounts = [Bind(*each) for each in binds]
        if guest_root is not None:
            mounts.append(Bind(guest_root, "/mnt/root", guest_read_only))
        if config is not None:
            path = os.path.join(self.directory, "init.yml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(config)
            mounts.append(Bind(path, "/mnt/init.yml", True))
        root = os.path.join(self.directory, "root")
        overlay = {"lower": boot_root, "root": root}
        for part in ("upper", "work"):
            overlay[part] = os.path.join(self.directory, part)
            os.mkdir(overlay[part], 0o755)
        os.mkdir(root, 0o755)
        tmpfs = ("/mnt/cache",) if cache else ()
        self.specification = Specification(root, tuple(mounts), tmpfs, dict(env or {}), init, tuple(args), read_only)
        targets = [(root + mount.target, mount.source) for mount in mounts]
        targets += [(root + target, "/") for target in tmpfs]
        stage: dict[str, object] = {
            "cgroup": self.cgroup,
            "cgroups_v1": self.cgroups_v1,
            "overlay": overlay,
            "targets": targets,
            "tmpfs": self.private_directories,
            "argv": list(self.command(self.specification)),
            "environment": self.manager_environment(),
        }
        self._spawn(stage)
        try:
            self._started()
        except BaseException:
            self.stop()
            raise
        return self

    def _started(self) -> None:
        """What a driver does once its manager's process exists: tell a daemon about the container."""

    def _spawn(self, stage: dict[str, object]) -> None:
        """Run the starter with `stage`, its terminal or pipe being the console."""
        if self.console_kind == "pty":
            self._console_fd, inner = pty.openpty()
            os.set_blocking(self._console_fd, True)
            _set_window_size(inner)
            stage["terminal"] = 0
            streams = (inner, inner, inner)
        else:
            self._console_fd, inner = os.pipe()
            streams = (subprocess.DEVNULL, inner, inner)
        path = self.write_json("stage.json", stage)
        self.process = subprocess.Popen(
            [sys.executable, "-I", STARTER, path],
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            start_new_session=True,
        )
        os.close(inner)
        self.read_console(self._console_fd)

    def write_json(self, name: str, content: object) -> str:
        """Write `content` to a file of the container's own directory; its path."""
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        return path

    # -- console -----------------------------------------------------------------------------------------------------

    def read_console(self, descriptor: int) -> None:
        """Collect everything from `descriptor` in a thread until its end (a pty's end is EIO)."""

        self._descriptors.append(descriptor)

        def collect() -> None:
            while True:
                try:
                    chunk = os.read(descriptor, 65536)
                except OSError:
                    chunk = b""
                with self._changed:
                    self._buffer += chunk
                    self._changed.notify_all()
                if not chunk:
                    return

        self._reader = threading.Thread(target=collect, daemon=True)
        self._reader.start()

    def console(self) -> bytes:
        """Everything printed so far."""
        with self._changed:
            return bytes(self._buffer)

    def send(self, text: bytes) -> None:
        """Type `text` at the console."""
        os.write(self._console_fd, text)

    def expect(self, pattern: str, timeout: float = 30, *, start: int = 0) -> re.Match[bytes]:
        """Wait until the console, from byte `start` on, matches the regular expression `pattern` (multi-line)."""
        expression = re.compile(pattern.encode(), re.MULTILINE)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = expression.search(self._buffer, start)
                if found:
                    # A match keeps its string, and a bytearray that is exported cannot grow.
                    return re.compile(expression).search(bytes(self._buffer), start)  # type: ignore[return-value]
                left = deadline - time.monotonic()
                ended = self._reader is None or not self._reader.is_alive()
                if left <= 0 or ended:
                    why = "it ended" if ended else f"nothing within {timeout} s"
                    raise ContainerError(f"{self.name}: waiting for {pattern!r}: {why}; console:\n{self._printable()}")
                self._changed.wait(min(left, 0.5))

    def _printable(self) -> str:
        return bytes(self._buffer).decode(errors="backslashreplace").replace("\r\n", "\n")[-6000:]

    # -- processes ---------------------------------------------------------------------------------------------------

    def running(self) -> bool:
        """Whether the manager still holds the container."""
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout: float = 60) -> Ended:
        """Wait until the manager says that the container has ended; ContainerError after `timeout` seconds."""
        assert self.process is not None
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ContainerError(f"{self.name}: still running after {timeout} s; console:\n{self._text()}") from None
        if self._reader is not None:
            self._reader.join(5)
        return Ended(status)

    def _text(self) -> str:
        with self._changed:
            return self._printable()

    def manager_pid(self) -> int:
        """The manager's own process: the one child of the stage's PID 1 that the starter executed it in."""
        assert self.process is not None
        return self._poll(lambda: next(iter(descendants(self.process.pid)[1:2]), None), 10, "manager")  # type: ignore[union-attr]

    def pid1(self, timeout: float = 10) -> int:
        """The container's PID 1, as the outside numbers it. Changes when the manager starts the container again."""
        return self._poll(lambda: self._first_of_namespace(2), timeout, "PID 1")

    def guest_pid1(self, timeout: float = 30) -> int:
        """PID 1 of a guest in a PID namespace nested in the container's, as the outside numbers it."""
        return self._poll(lambda: self._first_of_namespace(3), timeout, "PID 1 of a nested guest")

    def _first_of_namespace(self, depth: int) -> int | None:
        """The process that is PID 1 `depth` namespaces further in than this one: 1 is the stage, 2 the container."""
        if self.process is None:
            return None
        for pid in descendants(self.process.pid):
            numbers = namespace_pids(pid)
            if len(numbers) == depth + 1 and numbers[-1] == 1 and self._has_other_root(pid):
                return pid
        return None

    def _has_other_root(self, pid: int) -> bool:
        """Not the manager's own code, which is PID 1 for a moment before it executes init."""
        try:
            return not os.path.samestat(os.stat(f"/proc/{pid}/root/."), os.stat("/"))
        except OSError:
            return False

    def _poll(self, find: Callable[[], int | None], timeout: float, what: str) -> int:
        deadline = time.monotonic() + timeout
        while True:
            found = find()
            if found:
                return found
            if time.monotonic() > deadline or not self.running():
                raise ContainerError(f"{self.name}: no {what}; console:\n{self._text()}")
            time.sleep(0.02)

    def run(self, *argv: str, timeout: float = 30, pid: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command inside all namespaces of PID 1, or of outer process `pid` (a nested guest's), as its root."""
        target = str(pid or self.pid1())
        command = ["nsenter", "--target", target, "--all", "--root", "--wd", "--", *argv]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    # -- ending ------------------------------------------------------------------------------------------------------

    def poweroff(self) -> None:
        """Ask for poweroff the manager's own way; returns at once."""
        os.kill(self.pid1(), signal.SIGTERM)

    def reboot(self) -> None:
        """Ask for reboot the manager's own way; returns at once."""
        os.kill(self.pid1(), signal.SIGINT)

    def stop(self) -> None:
        """Kill what is left and remove every trace. Safe to call again, and called on every exit."""
        if self not in Container._alive:
            return
        Container._alive.discard(self)
        process = self.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        kill_cgroup(self.cgroup)
        self.release()
        for directory in (self.cgroup, *self.cgroups_v1.values()):
            remove_cgroup(directory)
        if self._reader is not None:
            self._reader.join(5)
        while self._descriptors:
            os.close(self._descriptors.pop())
        shutil.rmtree(self.directory)

    def release(self) -> None:
        """What a driver has to remove besides, once every process is dead."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def _set_window_size(descriptor: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))


@atexit.register
def stop_all() -> None:
    """Stop whatever a test left behind."""
    for container in list(Container._alive):
        container.stop()


# -- /proc and cgroup2 -------------------------------------------------------------------------------------------------


def cgroup2_mount() -> str:
    """Where this machine has cgroup2."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields, _, kind = line.partition(" - ")
            if kind.startswith("cgroup2 "):
                return fields.split()[4]
    raise RuntimeError("the lab needs a cgroup2 mount")


def cgroup1_mount(controller: str) -> str | None:
    """Where this machine has the cgroup v1 hierarchy of `controller`; None where cgroup2 has taken its place."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields, _, kind = line.rstrip("\n").partition(" - ")
            if kind.startswith("cgroup ") and controller in kind.split()[2].split(","):
                return fields.split()[4]
    return None


def descendants(pid: int) -> list[int]:
    """Children of process `pid` and theirs, nearest first."""
    found = [pid]
    for each in found:
        try:
            # A child belongs to the thread that made it: a Go program's main thread has few.
            for thread in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{thread}/children", encoding="utf-8") as file:
                    found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found[1:]


def namespace_pids(pid: int) -> list[int]:
    """`NSpid` of /proc/PID/status: the process's numbers from this PID namespace inwards; [] when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return [int(number) for number in line.split()[1:]]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return []


def kill_cgroup(directory: str, timeout: float = 10) -> None:
    """SIGKILL everything in a cgroup and below, and wait until it is gone."""
    if not os.path.isdir(directory):
        return
    with open(os.path.join(directory, "cgroup.kill"), "w") as file:
        file.write("1")
    events = os.path.join(directory, "cgroup.events")
    deadline = time.monotonic() + timeout
    with open(events) as file:
        poller = select.poll()
        poller.register(file, select.POLLPRI | select.POLLERR)
        while "populated 1" in os.pread(file.fileno(), 4096, 0).decode():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{directory} still has processes {timeout} s after cgroup.kill")
            poller.poll(100)


def remove_cgroup(directory: str) -> None:
    """Remove a cgroup of our own and those below it."""
    if not os.path.isdir(directory):
        return
    for parent, names, _ in os.walk(directory, topdown=False):
        for name in names:
            os.rmdir(os.path.join(parent, name))
    os.rmdir(directory)
