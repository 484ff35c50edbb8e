"""A control server in a process of its own, over an object that plays PID 1 and notes what was asked of it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lcinit import log
from lcinit.control.client import Client
from lcinit.control.service import ControlServer
from lcinit.control.serving import serving
from lcinit.errors import LcinitError, SystemFailure
from lcinit.linux import process
from lcinit.supervisor.events import EventLog
from lcinit.supervisor.loop import new_loop

BOTH_LOOPS = ("asyncio", "uvloop")


class FakeTap:
    def __init__(self, console: FakeConsole, write: Callable[[bytes], object]) -> None:
        self.console = console
        self.write = write

    def close(self) -> None:
        self.console.taps.remove(self)
        self.console.events.record("tap-closed")


class FakeConsole:
    """Echoes what is typed in upper case, `room` bytes at a time; a newline empties the guest's input."""

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self.taps: list[FakeTap] = []
        self.seen = b"seen before\r\n"
        self.room = 1 << 30

    def tap(self, write: Callable[[bytes], object]) -> FakeTap:
        self.taps.append(FakeTap(self, write))
        return self.taps[-1]

    def scrollback(self) -> bytes:
        return self.seen

    def type(self, data: bytes) -> int:
        taken = data[: self.room]
        self.show(taken.upper())
        return len(taken)

    def show(self, data: bytes) -> None:
        for tap in list(self.taps):
            tap.write(data)

    def set_size(self, rows: int, columns: int) -> None:
        self.events.record("resized", rows=rows, columns=columns)


class FakeServed:
    """What plays PID 1, whatever it supervises. Every request is an event."""

    def __init__(self) -> None:
        self.events = EventLog(capacity=200)

    def status(self) -> dict[str, Any]:
        return report()

    def plan(self) -> dict[str, Any]:
        return {"steps": [{"step": "mount-proc"}]}

    def request(self, word: str, origin: str, *, at_once: bool = False) -> None:
        if word == "halt":
            raise SystemFailure("cannot halt: the guest does not run", hint="it ended with exit code 3", exit_code=71)
        if word == "restart":
            raise ZeroDivisionError("a bug")
        self.events.record("stop-asked", request=word, origin=origin, at_once=at_once)

    def set_log_level(self, level: str) -> None:
        log.set_level(level)


class FakeSupervised(FakeServed):
    """One that supervises a guest. Signals to "all" are the test's own commands: see `signal`."""

    def __init__(self) -> None:
        super().__init__()
        self.console: FakeConsole | None = FakeConsole(self.events)

    def signal(self, number: int, whom: str) -> int:
        self.events.record("signalled", number=number, whom=whom)
        if whom == "all" and number == signal.SIGUSR1:
            for line in range(2500):
                log.info(f"line {line}")
        if whom == "all" and number == signal.SIGUSR2 and self.console is not None:
            for _ in range(64):
                self.console.show(b"x" * 65536)
        if whom == "all" and number == signal.SIGWINCH and self.console is not None:
            self.console.show(b"and on\r\n")
        if whom == "all" and number == signal.SIGHUP and self.console is not None:
            self.console.room = 3
        return 7 if whom == "all" else 1

    def freeze(self) -> None:
        raise LcinitError("cannot freeze: there is no cgroup.freeze here", hint="it needs cgroup2")

    def thaw(self) -> None:
        self.events.record("thawed")

    def reexec(self) -> None:
        raise OSError(8, "Exec format error", "/sbin/init")


def report() -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "pid": 1,
        "manager": "podman",
        "mode": "nested",
        "state": "running",
        "since": 1790000000.5,
        "guest": {
            "pid": 42,
            "init": "/sbin/init",
            "kind": "systemd",
            "started": 1790000000.0,
            "uptime": 3725.0,
            "ready": True,
            "frozen": False,
            "cgroup": "/lcinit-1/guest",
            "processes": 12,
            "memory": 30 << 20,
            "command": ["/sbin/init"],
            "id_map": [[0, 1000000, 65536], [65536, 5000000, 10]],
        },
        "stop": None,
        "starts": 2,
        "history": [
            {
                "started": 1789990000.0,
                "ended": 1789999990.0,
                "reason": "signal SIGHUP",
                "status": 129,
                "request": "reboot",
                "oom_kills": 0,
            }
        ],
        "timings": {"setup.before": 0.012, "setup": 0.1, "exec": 0.002},
        "log_level": "info",
    }


def guest_server(path: str) -> ControlServer:
    """A server as it is beside a guest."""
    return ControlServer(serving(FakeSupervised()), path=path)


def later_server(path: str) -> ControlServer:
    """One that begins to serve when the first client comes, as beside services."""
    return ControlServer(serving(FakeSupervised()), path=path, later=True)


class Rig:
    """The server's process, from `with` to its end. `before` runs in it before the server, which `server` makes."""

    def __init__(
        self,
        path: str,
        loop: str = "asyncio",
        before: Callable[[], object] | None = None,
        server: Callable[[str], ControlServer] = guest_server,
    ) -> None:
        self.path = path
        self._loop = loop
        self._before = before
        self._server = server
        self.pid = 0
        self.output = b""
        self._console = -1

    def __enter__(self) -> Self:
        ready, told = os.pipe()
        self._console, console = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for fd in (1, 2):
                    os.dup2(console, fd)
                os.environ["LCINIT_EVENT_LOOP"] = self._loop
                self._serve(told)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        os.close(told)
        os.close(console)
        os.set_blocking(self._console, False)
        with open(ready, "rb") as file:
            started = file.read() == b"ready"  # to its end: the server has closed it, too
        if not started:
            self.__exit__(AssertionError, None, None)
            raise AssertionError(f"the server did not start: {self.output!r}")
        return self

    def _serve(self, told: int) -> None:
        process.set_pdeathsig(signal.SIGKILL)
        log.keep(1000)
        if self._before is not None:
            self._before()
        loop = new_loop()
        asyncio.set_event_loop(loop)
        server = self._server(self.path)
        loop.add_signal_handler(signal.SIGTERM, loop.stop)
        loop.run_until_complete(server.start())

        def tell() -> None:
            os.write(told, b"ready")
            os.close(told)

        loop.call_soon(tell)  # uvloop opens the last of its own descriptors when it runs
        loop.run_forever()
        server.close()
        os._exit(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pidfd = process.pidfd_open(self.pid)
        os.kill(self.pid, signal.SIGTERM)
        if not select.select([pidfd], [], [], 5)[0]:
            os.kill(self.pid, signal.SIGKILL)
        os.close(pidfd)
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.said()
        os.close(self._console)
        if kind is None:
            assert self.status == 0, self.output.decode()

    def said(self) -> str:
        """What lcinit wrote on its console up to now."""
        while True:
            try:
                data = os.read(self._console, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self.output += data
        return self.output.decode(errors="replace")

    def client(self) -> Client:
        return Client(self.path, timeout=5, silence=10)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_ticks(self) -> int:
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def switches(self) -> int:
        """How often the process gave up the processor of its own accord: once for each wait that ended."""
        with open(f"/proc/{self.pid}/status") as file:
            return int(next(line for line in file if line.startswith("voluntary_ctxt")).split()[1])


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.01)
