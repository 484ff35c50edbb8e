"""A process as PID 1 is when services run: PID 1, on an event loop, with imports refused, a /run and a loopback of its
own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lcinit.boot import guard
from lcinit.control import notify as _control_notify  # noqa: F401 (nothing can be imported later)
from lcinit.linux import mount as mount_calls
from lcinit.linux.calls import AT_FDCWD
from lcinit.service import health, notify, pid_file, ready_fd  # noqa: F401
from lcinit.supervisor.loop import new_loop
from tests.namespace.isolated import run_isolated

NOBODY = 65534


def as_pid1(body: Callable[[], Coroutine[Any, Any, object]], loop: str = "asyncio", *, timeout: float = 30) -> None:
    """Run the coroutine there, on the loop of that name. It fails if descriptors are left open."""

    def inside() -> None:
        filesystem = mount_calls.new_mount("tmpfs", {"mode": "755"})
        mount_calls.move_mount(filesystem, "", AT_FDCWD, "/run", 0)
        os.close(filesystem)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        os.environ["LCINIT_EVENT_LOOP"] = loop
        made = new_loop()
        assert ("uvloop" in type(made).__module__) == (loop == "uvloop")
        guard.close()
        made.run_until_complete(_checked(body))

    run_isolated(inside, pid=True, timeout=timeout)


async def _checked(body: Callable[[], Awaitable[object]]) -> None:
    await asyncio.sleep(0)
    before = open_files()
    await body()
    await asyncio.sleep(0)
    assert open_files() == before


def open_files() -> dict[str, str]:
    """Descriptors and what they are of this process."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


async def until(condition: Callable[[], object], what: str, seconds: float = 10) -> None:
    """Wait for it, while the loop runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.002)


async def ended(process: subprocess.Popen[Any], seconds: float = 10) -> int:
    """The exit code of a program, while the loop runs."""
    await until(lambda: process.poll() is not None, f"the end of {process.args}", seconds)
    return process.returncode


def started(*argv: str, **options: Any) -> subprocess.Popen[bytes]:
    """A program. Not the loop's: PID 1 starts programs in its own way."""
    return subprocess.Popen(argv, **options)


def read(path: str) -> bytes:
    """The content of a file."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Make or replace the content of a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def processor_time() -> float:
    """Seconds that this process has had."""
    times = os.times()
    return times.user + times.system
