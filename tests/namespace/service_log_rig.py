"""A logger process and PID 1's handle of it, with a /var/log and a console of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lcinit.boot import guard
from lcinit.config.service_values import ServiceLog
from lcinit.linux import mount
from lcinit.linux.calls import AT_FDCWD
from lcinit.linux.signals import SIGKILL, block_all
from lcinit.service import log_writer
from lcinit.service.log_files import DIRECTORY, TIMES, older_names
from lcinit.service.logger import Logger
from tests.namespace.isolated import run_isolated


class LogRig:
    """`console` is the reading end of the pipe that is the logger's standard output, `writer` what it writes to."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.console, self.writer = os.pipe()
        os.set_blocking(self.console, False)
        self.before = before  # runs in the logger process
        self.said = bytearray()
        self.lines = 0
        self.logger = Logger(self._start)
        self.pid = 0

    def _start(self, channel: int) -> int:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                block_all()
                os.dup2(self.writer, 1)
                guard.close()  # as in a guest's root: whatever was imported too late shows
                self.before()
                status = log_writer.run([channel, os.open("/proc", os.O_PATH)])
            except BaseException as error:
                guard.show_exception(type(error), error, error.__traceback__)
            finally:
                os._exit(status)
        self.pid = pid
        return pid

    def open(self, name: str, to: Any = "file", **settings: Any) -> int:
        """The pipe of a service."""
        return self.logger.open(name, ServiceLog(to=to, **settings))

    def close(self, name: str, fd: int) -> None:
        """As PID 1 does it when a service is down."""
        os.close(fd)
        self.logger.close(name)

    async def flush(self) -> None:
        """Until all that was written is where it belongs."""
        assert await self.logger.flush(10)

    def kill(self) -> None:
        """The logger is gone, and PID 1 notices it."""
        os.kill(self.pid, SIGKILL)
        self.reap()
        self.logger.ended()

    async def stop(self) -> None:
        """To the end of the process, which is one without errors."""
        await self.logger.stop(10)
        status = self.reap()
        assert status == 0, f"the logger ended with wait status {status:#x}"

    def reap(self) -> int:
        """Wait for the process' end: its wait status."""
        return os.waitpid(self.pid, 0)[1]

    def read(self) -> int:
        """Read what is on the console: how many lines there were by now, in all."""
        try:
            while data := os.read(self.console, 1 << 20):
                self.said += data
                self.lines += data.count(b"\n")
        except BlockingIOError:
            pass
        return self.lines

    def shown(self) -> str:
        """All that was on the console by now."""
        self.read()
        return self.said.decode()

    async def expect(self, text: str) -> None:
        """Wait until the console has it."""
        await self.until(lambda: text in self.shown(), text)

    async def until(self, condition: Callable[[], bool], what: str = "end of waiting") -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"no {what!r}; the console: {self.said[-2000:]!r}"
            await asyncio.sleep(0.01)


def isolated(body: Callable[[LogRig], Awaitable[object]], *, size: str = "", timeout: float = 60, **rig: Any) -> None:
    """Run `body` beside a logger, in namespaces with a /var/log of its own; `size` limits it, as for tmpfs(5)."""

    def run() -> None:
        fresh = mount.new_mount("tmpfs", {"size": size} if size else ())
        mount.move_mount(fresh, "", AT_FDCWD, "/var/log", 0)
        os.close(fresh)

        async def main() -> None:
            await body(LogRig(**rig))

        asyncio.run(main())

    run_isolated(run, timeout=timeout)


def directory(name: str) -> str:
    """Where the files of a service are."""
    return f"{DIRECTORY}/{name}"


def files(name: str) -> list[str]:
    """They, oldest first, without their indexes."""
    fd = os.open(directory(name), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [*older_names(fd), *[each for each in ("current",) if os.path.exists(f"{directory(name)}/{each}")]]
    finally:
        os.close(fd)


def plant(path: str, data: bytes) -> None:
    """Make a file, and what is above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def contents(name: str) -> list[bytes]:
    """What is in each of them. Each has its index."""
    found = []
    for each in files(name):
        assert os.path.exists(f"{directory(name)}/{each}{TIMES}"), each
        with open(f"{directory(name)}/{each}", "rb") as file:
            found.append(file.read())
    return found
