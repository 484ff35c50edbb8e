"""`lcinit run` and `contain` in a test's own namespaces: a guest on tmpfs, and a launcher on a terminal or on pipes.

For the body of run_isolated(pid=True): mounts, processes and accounts are that body's alone.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tests.lab import guests
from tests.namespace import ordinary

GUEST = "/mnt/home/guest"
MAPS = ("-u", "0:1000000:65536")
OWNED = (0, 1_000_000, 65_536)


def prepare(name: str = "busybox", *, owner: int | None = None, subuid: str = "") -> str:
    """An ordinary user, and a copy of the guest `name`, all of it that user's where `owner` is one; its path."""
    ordinary.prepare(subuid)
    subprocess.run(["cp", "-a", guests.guest(name), GUEST], check=True)
    if owner is not None:
        for directory, names, files in os.walk(GUEST):
            for each in (".", *names, *files):
                os.chown(f"{directory}/{each}", owner, owner, follow_symlinks=False)
    return GUEST


def run(words: Sequence[str], *, user: int = 0, **options: Any) -> Any:
    """`lcinit WORDS` to its end, without a terminal; the CompletedProcess. As root with this Python, else Debian's."""
    if user:
        return ordinary.lcinit_as(words, uid=user, **({"stdin": subprocess.DEVNULL} | options))
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "cwd": "/mnt/home"}
    settings |= {"env": ordinary.environment(), "stdin": subprocess.DEVNULL} | options
    return subprocess.run(_argv(words, user), check=False, **settings)


def _argv(words: Sequence[str], user: int) -> list[str]:
    if user:
        return ordinary.argv(words)
    return [sys.executable, "-I", "-c", ordinary.START, *words]


class Launcher:
    """A running launcher. With `terminal` its streams are a terminal, its session's own, which `type` types at."""

    def __init__(self, words: Sequence[str], *, user: int = 0, terminal: bool = False, **options: Any) -> None:
        self.text = b""
        self._master = self._slave = -1
        settings: dict[str, Any] = {"cwd": "/mnt/home", "env": ordinary.environment(), "start_new_session": True}
        if user:
            settings |= {"user": user, "group": user, "extra_groups": []}
        if terminal:
            self._master, self._slave = pty.openpty()
            os.fchown(self._slave, user, user)
            slave = self._slave
            streams = {"stdin": slave, "stdout": slave, "stderr": slave}
            settings |= {"preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **streams}
        else:
            settings |= {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(_argv(words, user), **(settings | options))
        self.pid = self.process.pid

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.process.terminate()  # a killed one would leave the guest's cgroup to the next
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)

    def type(self, text: str) -> None:
        """At the terminal."""
        os.write(self._master, text.encode())

    def hang_up(self) -> None:
        """Close the terminal, as somebody who closes its window."""
        for fd in (self._master, self._slave):
            os.close(fd)
        self._master = self._slave = -1

    def settings(self) -> list[Any]:
        """The terminal's attributes."""
        return termios.tcgetattr(self._slave)

    def expect(self, text: str, timeout: float = 20) -> str:
        """Read until the output holds `text`; all that was read."""
        deadline = time.monotonic() + timeout
        fd = self._master if self._master >= 0 else self.process.stdout.fileno()  # type: ignore[union-attr]
        while text.encode() not in self.text:
            left = deadline - time.monotonic()
            ready = select.select([fd], [], [], max(0.0, left))[0]
            chunk = os.read(fd, 65536) if ready else b""
            assert chunk, f"no {text!r}, but {self.text.decode(errors='replace')!r}"
            self.text += chunk
        return self.text.decode(errors="replace")

    def wait(self, timeout: float = 20) -> int:
        """Its exit code, negative for a signal."""
        return self.process.wait(timeout)


def processes_with(text: str) -> list[int]:
    """PIDs, in this PID namespace, of processes whose command line holds `text`."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read()
        except OSError:
            continue
        if text.encode() in words and int(name) != os.getpid():
            found.append(int(name))
    return found


def wait_until_gone(text: str, timeout: float = 10) -> None:
    """Return once no process has `text` in its command line."""
    deadline = time.monotonic() + timeout
    while left := processes_with(text):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def remove_left_cgroup() -> None:
    """What a killed launcher of root's leaves goes with the next start."""
    time.sleep(0.1)  # the kernel still counts the last process for a moment after its end
    done = run(["run", *MAPS, GUEST, "true"])
    assert done.returncode == 0, done.stderr
