"""A guest with real daemons under lcinit as its init, asked from outside, over the container's own control socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from lcinit.control.client import Client, NotServed
from lcinit.errors import SystemFailure
from lcinit.linux.signals import SIGTERM
from tests.hostile.attempt import ID_MAP, SHIFT, Outcome, outcome
from tests.lab import guests
from tests.lab.boot_root import boot_root
from tests.lab.container import PATH, ContainerError
from tests.lab.managers import Unshare

SERVICES = "io.lcinit.Services"
MAP = f"mount-idmapped --map-mount=b:0:{SHIFT}:65536 /mnt/root /mnt/root"
Files = Mapping[str, tuple[int, str]]
"""Path below the guest's root → mode and content; the mode 0o777 makes a symbolic link, as in a Recipe of the lab."""


class Guest:
    """The guest "services", mapped and pivoted into, lcinit its PID 1. Leaving it as a context manager removes it.

    `directory` is the test's own: what the guest writes is kept there in `cache`, so that a second one over the same
    directory goes on where the first has ended.
    """

    def __init__(self, directory: str, *, services: Mapping[str, Any], files: Files | None = None, **keys: Any) -> None:
        self.container = Unshare(console="pipe")
        self.layer = os.path.join(directory, f"layer-{self.container.name}")
        cache = os.path.join(directory, "cache")
        os.mkdir(self.layer, 0o755)
        os.makedirs(cache, mode=0o755, exist_ok=True)
        for path, (mode, content) in (files or {}).items():
            guests.place_file(self.layer, path, mode, content)
        guests.shift_owners(self.layer, SHIFT)
        config = {
            "id_map": ID_MAP,
            "setup": {"before": [MAP, "overlay /mnt/layers/own"]},
            "exec": {"mode": "tolerant", "pid": "shared"},
            "services": dict(services),
            **keys,
        }
        self.container.start(
            boot_root(),
            guest_root=guests.guest("services"),
            config=json.dumps(config),
            binds=[(self.layer, "/mnt/layers/own", True), (cache, "/mnt/cache")],
            cache=False,
        )
        self._pid1 = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.container.stop()

    # -- lcinit's answers --------------------------------------------------------------------------------------------

    @property
    def pid1(self) -> int:
        """lcinit, as the outside numbers it."""
        self._pid1 = self._pid1 or self.container.pid1()
        return self._pid1

    def path(self, inside: str) -> str:
        """What `inside` of the guest is called outside."""
        return f"/proc/{self.pid1}/root{inside}"

    @property
    def socket(self) -> str:
        """The control socket."""
        return self.path("/run/lcinit/control")

    def client(self, timeout: float = 10) -> Client:
        """A connection to lcinit, which serves as soon as it is in the guest."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return Client(self.socket, timeout=30)
            except NotServed:
                if time.monotonic() > deadline or not self.container.running():
                    raise ContainerError(f"nobody serves {self.socket}; console:\n{self.console()}") from None
                time.sleep(0.01)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of io.lcinit.Services."""
        with self.client() as client:
            return client.call(f"{SERVICES}.{method}", **parameters)

    def services(self) -> dict[str, dict[str, Any]]:
        """The state of every service, by name."""
        return {each["name"]: each for each in self.call("List")["services"]}

    def service(self, name: str) -> dict[str, Any]:
        """The state of one."""
        return self.services()[name]

    def awaited(self, name: str, holds: Callable[[dict[str, Any]], bool], what: str, timeout: float = 15) -> Any:
        """Wait until a service's state is such; the state."""
        deadline = time.monotonic() + timeout
        while not holds(found := self.service(name)):
            assert time.monotonic() < deadline, f"{name}: not {what} within {timeout} s: {found}\n{self.console()}"
            time.sleep(0.02)
        return found

    def up(self, name: str, timeout: float = 15) -> Any:
        """Wait until a service is up, which it must be at once where nothing goes wrong."""

        def holds(state: dict[str, Any]) -> bool:
            assert state["sub"] != "failed", f"{state}\n{self.console()}"
            return bool(state["sub"] == "running")

        return self.awaited(name, holds, "up", timeout)

    def asked(self, method: str, *names: str) -> list[dict[str, Any]]:
        """Start, Stop, Restart or Reload, to its end: what has become of each."""
        done = self.call(method, names=list(names))["done"]
        assert all(each["ok"] for each in done), f"{done}\n{self.console()}"
        return list(done)

    def lcinit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the outside that talks to it over the socket."""
        command = [sys.executable, "-m", "lcinit", *words, "--socket", self.socket]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def initctl(self, runlevel: str) -> None:
        """`initctl RUNLEVEL` of the outside, into the guest's FIFO."""
        command = [sys.executable, "-m", "lcinit", "initctl", "--fifo", self.path("/run/initctl"), runlevel]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done

    def events(self) -> list[dict[str, Any]]:
        """All events so far, oldest first."""
        with self.client() as client:
            return list(client.call("Events")["events"])

    # -- the guest itself --------------------------------------------------------------------------------------------

    def run(self, *argv: str, check: bool = True, timeout: float = 30) -> str:
        """What a program of the guest prints, run in it as its root. It must end with 0; without `check` the exit code
        comes first.
        """
        clean = ("env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C")
        done = self.container.run(*clean, *argv, timeout=timeout, pid=self.pid1)
        assert not check or done.returncode == 0, f"{argv}: {done}\n{self.console()}"
        return done.stdout.strip() if check else f"{done.returncode} {done.stdout}{done.stderr}".strip()

    def process(self, pid: int, field: str) -> str:
        """A field of /proc/PID/status, where PID is as the guest numbers it."""
        for line in self.run("cat", f"/proc/{pid}/status").splitlines():
            if line.startswith(f"{field}:"):
                return line.partition(":")[2].strip()
        raise KeyError(field)

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Replace a file of the guest, as its root would."""
        with open(self.path(path), "w", encoding="utf-8") as file:
            os.fchown(file.fileno(), SHIFT, SHIFT)
            os.fchmod(file.fileno(), mode)
            file.write(content)

    def read(self, path: str) -> str:
        """A file of the guest."""
        with open(self.path(path), encoding="utf-8", errors="backslashreplace") as file:
            return file.read()

    def console(self) -> str:
        """What the container has printed."""
        return self.container.console().decode(errors="backslashreplace").replace("\r\n", "\n")

    def poweroff(self, timeout: float = 30) -> Outcome:
        """Ask as a container manager does, and wait for the end."""
        os.kill(self.pid1, SIGTERM)
        return outcome(self.container, timeout)


def killed_and_back(guest: Guest, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill a service's main process with SIGKILL and wait until lcinit has it up again: its state before and after.

    Whatever children it had must be gone by then.
    """
    before = guest.up(name)
    children = guest.run("ps", "-o", "pid=", "--ppid", str(before["pid"]), check=False).split()[1:]
    guest.run("kill", "-KILL", str(before["pid"]))
    after = guest.awaited(
        name, lambda state: state["sub"] == "running" and state["restarts"] == before["restarts"] + 1, "up again"
    )
    assert after["pid"] not in (None, before["pid"])
    assert not [pid for pid in children if os.path.exists(guest.path(f"/proc/{pid}"))], children
    return before, after


def wait_until(holds: Callable[[], bool], what: str, guest: Guest, timeout: float = 10) -> None:
    """Poll what only the guest itself can tell."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if holds():
                return
        except SystemFailure:
            pass  # lcinit has just ended, which is for the deadline to tell
        assert time.monotonic() < deadline, f"{what} within {timeout} s\n{guest.console()}"
        time.sleep(0.02)
