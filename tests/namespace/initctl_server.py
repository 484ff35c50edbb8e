"""The initctl service in a process that does with signals what PID 1 does."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from lcinit.control.initctl import runlevel_request
from lcinit.control.initctl_service import BURST

# What PID 1 does around the service: signals through a signalfd, SIGIO and SIGUSR1 to look(), SIGTERM the end.
SERVER = r"""
import asyncio, json, os, resource, sys
from lcinit import log
from lcinit.control.initctl_service import InitctlService
from lcinit.errors import LcinitError
from lcinit.linux import signals
from lcinit.supervisor.loop import new_loop

log.configure("debug", "text", None)
signals.block_all()
fd = signals.SignalFd()
output = os.fdopen(1, "wb", buffering=1 << 16)

def request(word, origin):
    output.write(f"{word} {origin}\n".encode())
    if word == "halt":
        raise LcinitError("there is no guest", hint="start one")
    if word == "reexec":
        raise ValueError("a bug")

adopt = int(os.environ.pop("ADOPT", "-1"))
variables = json.loads(os.environ.pop("VARIABLES", "{}"))

def become_another(service):
    output.flush()
    os.set_inheritable(service.fifo_fd(), True)
    os.environ |= {"ADOPT": str(service.fifo_fd()), "VARIABLES": json.dumps(service.variables())}
    os.execv(sys.executable, sys.orig_argv)

async def main():
    ended = asyncio.Event()
    service = InitctlService(request, places=sys.argv[2:], adopt=adopt, variables=variables)
    spare = int(sys.argv[1])
    def caught():
        for info in fd.read():
            if info.signo == signals.SIGUSR1:
                resource.setrlimit(resource.RLIMIT_NOFILE, plenty)
            if info.signo in (signals.SIGIO, signals.SIGUSR1):
                service.look()
            if info.signo == signals.SIGHUP:
                become_another(service)
            if info.signo == signals.SIGTERM:
                ended.set()
            if info.signo == signals.SIGUSR2:
                output.flush()
    asyncio.get_running_loop().add_reader(fd.fileno(), caught)
    plenty = resource.getrlimit(resource.RLIMIT_NOFILE)
    if spare >= 0:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + spare, plenty[1]))
    await service.start()
    output.write(f"at {service.place}\n".encode())
    output.flush()
    await ended.wait()
    service.close()
    output.write(f"environment {sorted(os.environ)}\nended after {service.taken}\n".encode())
    output.flush()

print("uvloop" if type(loop := new_loop()).__module__.startswith("uvloop") else "asyncio", flush=True)
loop.run_until_complete(main())
"""
LOOPS = ("asyncio", "uvloop")
ROOT = str(Path(__file__).parents[2])
POWEROFF, REBOOT = runlevel_request("0").pack(), runlevel_request("6").pack()


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


class Server:
    """The process, and what it said. Until SIGUSR1 comes it has so many spare `descriptors`; -1 for plenty."""

    def __init__(self, loop: str, log: Path, *places: Path, descriptors: int = -1) -> None:
        self.log = log
        self.fifo = places[0]
        environment = {**os.environ, "LCINIT_EVENT_LOOP": loop, "PYTHONPATH": ROOT}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(descriptors), *map(str, places)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self._text = ""
        assert wait_until(lambda: "at " in self.heard(), 20), log.read_text()
        assert self.heard().startswith(loop)

    def heard(self) -> str:
        while select.select([self._output], [], [], 0)[0]:
            received = os.read(self._output, 1 << 16)
            if not received:
                break
            self._text += received.decode()
        return self._text

    def words(self) -> list[str]:
        """What was requested so far."""
        self.process.send_signal(signal.SIGUSR2)  # it writes what it has
        return [line.split()[0] for line in self.heard().splitlines() if line.endswith(" initctl")]

    def write_in_its_pause(self, data: bytes) -> int:
        """Write so often that it pauses, and then the data while it does not look; how many requests came before."""
        for count in range(BURST + 20):
            time.sleep(0.002)
            if pending(self.fifo):
                self.write(data)
                return count
            self.write(POWEROFF)
        raise AssertionError("it does not pause")

    def write(self, data: bytes, fifo: Path | None = None) -> None:
        fd = os.open(fifo or self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def wake_ups(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)

    def sleeps(self, seconds: float) -> bool:
        """Whether it is neither woken up nor takes processor time for so long."""
        before = self.ticks(), self.wake_ups()
        time.sleep(seconds)
        return (self.ticks(), self.wake_ups()) == before

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> None:
        """Whatever happened."""
        self.process.kill()
        self.process.wait(10)

    def end(self) -> str:
        """End it in its own way; all it said."""
        self.process.terminate()
        assert wait_until(lambda: "ended after" in self.heard(), 10)
        self.process.wait(10)
        return self.heard()


def written_kib(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty:"))


def pending(fifo: Path) -> int:
    """How many bytes wait in the FIFO (FIONREAD, pipe(7))."""
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        return int(struct.unpack("=i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(fd)
