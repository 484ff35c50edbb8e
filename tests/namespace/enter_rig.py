"""A small container without a manager, to enter; and a terminal to enter it from."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import Self

from lcinit.linux import mount, namespaces, prepared, process
from lcinit.linux.calls import AT_FDCWD
from tests.lab.container import cgroup2_mount, kill_cgroup, remove_cgroup

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LCINIT = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from lcinit.cli.main import main; sys.exit(main(sys.argv))",
    ROOT,
]
SHIFT = 1000000
PYTHON = "/usr/bin/python3"
#: the same by an interpreter that everybody may run
SYSTEM_LCINIT = [PYTHON, *LCINIT[1:]]
#: an init that reaps and otherwise waits
INIT = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    signal.pause()
"""


class Rig:
    """The machine's files in new namespaces, with an id map or without; `init` is a Python script.

    `pid` is its PID 1 as the outside numbers it. It has a /proc, a /dev/pts and a cgroup of its own, and ends with
    the context.
    """

    _count = 0

    def __init__(
        self,
        init: str = INIT,
        *,
        mapped: bool = True,
        drop: tuple[int, ...] = (),
        chroot: str | None = None,
        argv: tuple[str, ...] = (),
    ) -> None:
        """`drop` are capabilities' numbers; `argv` is run instead of the script, in `chroot` if there is one.

        What the init prints can be read from `said`.
        """
        Rig._count += 1
        self.mapped = mapped
        self.cgroup = os.path.join(cgroup2_mount(), f"lcinit-enter-{os.getpid()}-{Rig._count}")
        os.mkdir(self.cgroup)
        flags = namespaces.CLONE_PIDFD | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNET
        flags |= namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWCGROUP
        flags |= namespaces.CLONE_NEWUSER if mapped else 0
        go, allow = os.pipe()
        ready, tell = os.pipe()
        self.said, self._say = os.pipe()
        directory = os.open(self.cgroup, os.O_RDONLY)
        sys.stdout.flush()
        self.pid, self.pidfd = namespaces.clone3(flags, cgroup_fd=directory)
        if self.pid == 0:
            self._guest(argv or (PYTHON, "-ISc", init), go, tell, drop, chroot)
        os.close(directory)
        os.close(go)
        os.close(tell)
        os.close(self._say)
        try:
            self._wait_for_guest(allow, ready)
        except BaseException:
            self.__exit__()
            raise

    def _wait_for_guest(self, allow: int, ready: int) -> None:
        procfs = os.open("/proc", os.O_PATH)
        if self.mapped:
            for name in ("uid_map", "gid_map"):
                namespaces.write_proc_file(procfs, self.pid, name, b"0 %d 65536\n" % SHIFT)
        os.close(procfs)
        os.write(allow, b"1")
        os.close(allow)
        said = os.read(ready, 4096)
        os.close(ready)
        if said != b"ready":
            raise AssertionError(f"the rig did not start: {said.decode(errors='replace')}")

    def _guest(self, argv: tuple[str, ...], go: int, tell: int, drop: tuple[int, ...], chroot: str | None) -> None:
        try:
            os.read(go, 1)
            for call in prepared.set_ids(0, 0, ()):
                # libc's functions would wait for a thread of the test's process that began while this one was cloned
                prepared.perform("change ids", *call)
            os.setsid()
            mount.make_private("/")
            for kind, target in (("proc", "/proc"), ("devpts", "/dev/pts")):
                options = {"mode": "0620", "ptmxmode": "0666"} if kind == "devpts" else {}
                made = mount.new_mount(kind, options)
                mount.move_mount(made, "", AT_FDCWD, target, 4)  # MOVE_MOUNT_F_EMPTY_PATH
                os.close(made)
            from lcinit.linux.capabilities import drop_bounding

            drop_bounding(drop)
            if chroot is not None:
                os.chroot(chroot)
                os.chdir("/")
            null = os.open("/dev/null", os.O_RDWR)
            for fd, number in ((null, 0), (self._say, 1), (null, 2)):
                os.dup2(fd, number)
            os.write(tell, b"ready")
            process.close_range(3)
            os.execve(argv[0], argv, {"PATH": "/usr/bin:/bin", "SECRET": "of the guest"})
        except BaseException as error:
            os.write(tell, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        process.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        kill_cgroup(self.cgroup)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        os.close(self.said)
        remove_cgroup(self.cgroup)

    def inject(self, *argv: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        """`lcinit inject PID -- ARGV`, with pipes."""
        options = {"stdin": subprocess.DEVNULL, "timeout": 20, "capture_output": True, **options}
        if "input" in options:
            del options["stdin"]
        return subprocess.run([*LCINIT, "inject", str(self.pid), "--", *argv], **options)  # type: ignore[call-overload,no-any-return]


class Terminal:
    """A program on a terminal of its own, as a user has one."""

    def __init__(self, *argv: str, size: tuple[int, int] = (24, 80), **options: object) -> None:
        self.master, slave = pty.openpty()
        self.slave = os.dup(slave)
        self.resize(*size)
        self.before = termios.tcgetattr(slave)
        self.output = b""

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

        options = {"stdin": slave, "stdout": slave, "stderr": slave, **options}
        self.process = subprocess.Popen(argv, preexec_fn=take_terminal, **options)  # type: ignore[call-overload]  # noqa: PLW1509
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str | bytes) -> None:
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def expect(self, pattern: str, timeout: float = 8) -> re.Match[bytes]:
        """Wait until the output matches; what came before the match's end is forgotten."""
        deadline = time.monotonic() + timeout
        while True:
            if found := re.search(pattern.encode(), self.output, re.MULTILINE):
                self.output = self.output[found.end() :]
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"no {pattern!r} in {self.output!r}")
            try:
                self.output += os.read(self.master, 65536)
            except OSError:
                raise AssertionError(f"the terminal closed; no {pattern!r} in {self.output!r}") from None

    def wait(self, timeout: float = 8) -> int:
        """Its exit status. Output is read meanwhile."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still running; output {self.output!r}")
            self._read(0.05)
        self._read(0.05)
        return int(self.process.returncode)

    def _read(self, within: float) -> None:
        while select.select([self.master], [], [], within)[0]:
            try:
                self.output += os.read(self.master, 65536)
            except OSError:
                return

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for name in ("master", "slave"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
