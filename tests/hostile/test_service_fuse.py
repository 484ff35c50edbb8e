"""A service mounts a file system over the paths of lcinit's own and never answers: PID 1 goes on, and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lcinit.control.client import Client
from lcinit.control.initctl import runlevel_request
from lcinit.errors import LcinitError
from tests.hostile.attempt import outcome
from tests.hostile.test_services import Hostile, attacks
from tests.services.bare import sh
from tests.services.rig import Guest

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse"),
    pytest.mark.row(58),
]

LIMIT = 5.0  # seconds that what may be held up is given
STAY = "exec sleep 1000"

# The daemon of a file system that answers FUSE_INIT, and takes every other request without an answer: who waits for one
# cannot even be killed (linux/fuse.h). It goes with the daemon alone, which ends by SIGKILL alone.
FUSE = r"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
device = os.open("/dev/fuse", os.O_RDWR)
for target in TARGETS:
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    check(libc.mount(b"silent", target.encode(), b"fuse", 0, options))
request = os.read(device, 1 << 18)
unique = struct.unpack_from("=IIQ", request)[2]
answer = struct.pack("=IIIIHHIIHHI28x", 7, 31, 1 << 16, 0, 12, 9, 1 << 16, 1, 32, 0, 0)
os.write(device, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
say("fuse", "mounted")
while True:
    os.read(device, 1 << 18)
"""


def silent(target: str, **keys: Any) -> dict[str, Any]:
    """A service that mounts such a file system over `target` when it is started."""
    return attacks(f"TARGETS = [{target!r}]\n{FUSE}", runlevels=[4], stop_timeout=1, **keys)


class Held(Hostile):
    """A guest with such a service, and two others; asked by what was opened before."""

    def __init__(self, target: str, **keys: Any) -> None:
        services = {"fuse": silent(target), "other": sh(STAY), "last": sh(STAY, runlevels=[5])}
        keys |= {"devices": {"include": ["/dev/fuse"]}, "shutdown": {"timeout": "3s"}}
        super().__init__(services, setup={"before": ["mknod -m 666 /dev/fuse c 10 229"]}, **keys)
        self.directory = self.fifo = -1

    def prepare(self) -> Client:
        """Open what the mount will cover; a connection."""
        self.up("other")
        while not os.path.exists(self.path("/run/initctl")):
            time.sleep(0.01)
        self.directory = os.open(self.path("/run/lcinit"), os.O_PATH | os.O_DIRECTORY)
        self.fifo = os.open(self.path("/run/initctl"), os.O_WRONLY | os.O_NONBLOCK)
        return self.client()

    def client(self, timeout: float = 10) -> Client:
        """A connection; once all is prepared, one whose answers do not take so long as that."""
        return super().client(timeout) if self.directory < 0 else Client(self.socket, timeout=8)

    def cover(self, client: Client) -> None:
        """Have it mounted."""
        client.call("io.lcinit.Services.Start", names=["fuse"], wait=False)
        self.container.expect("fuse: mounted", 10)

    @property
    def socket(self) -> str:
        return self.path("/run/lcinit/control") if self.directory < 0 else f"/proc/self/fd/{self.directory}/control"

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for fd in (self.directory, self.fifo):
            if fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def within(seconds: float, guest: Guest) -> Iterator[None]:
    """What is done takes no longer."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"{took:.1f} s\n{guest.console()}"


def why_not(client: Client, method: str, **parameters: Any) -> str:
    """Why a call is refused; empty where it is not."""
    try:
        client.call(f"io.lcinit.Services.{method}", **parameters)
    except LcinitError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
@pytest.mark.parametrize("target", ["/run", "/run/lcinit", "/etc", "/dev", "/proc"])
def test_a_file_system_that_never_answers_holds_pid_1_up_nowhere(target: str, mapped: bool) -> None:
    with Held(target, mapped=mapped) as guest:
        client = guest.prepare()
        guest.cover(client)
        with within(1, guest):
            client.call("Status")
        guest.answers()  # a new connection: it is looked at who asks
        for number in (signal.SIGUSR1, signal.SIGHUP):
            os.kill(guest.pid1, number)
            time.sleep(0.3)
            with within(1, guest):
                client.call("Status")
        os.write(guest.fifo, runlevel_request("4").pack())
        time.sleep(0.2)
        with within(1, guest):
            assert client.call("io.lcinit.Services.GetRunlevel")["runlevel"] == "4", guest.console()
        for method in ("Enable", "Disable"):
            with guest.client() as asks, within(LIMIT + 1, guest):
                why = why_not(asks, method, names=["last"])
            assert ("mounted" in why) == (target == "/etc"), why
            guest.answers()
        with guest.client() as asks, within(1, guest):
            asks.call("io.lcinit.Services.Restart", names=["other"], wait=target != "/dev")
        guest.answers()
        with within(7, guest):
            os.kill(guest.pid1, signal.SIGTERM)
            result = outcome(guest.container, 15)
    assert result.status == 130, result  # reboot(2), poweroff
    assert "unexpected" not in str(result), result


@pytest.mark.row(28)
def test_a_fifo_that_is_removed_replaced_or_covered_is_made_again_by_another_process() -> None:
    with Hostile({"other": sh(STAY)}) as guest:
        guest.up("other")
        covers = "mount -t tmpfs -o mode=755 none /run"
        for level, script in enumerate(
            ("rm /run/initctl", "until rm -f /run/initctl; mkdir /run/initctl; do :; done", covers), 2
        ):
            before = os.lstat(guest.path("/run/initctl"))
            guest.run("/bin/sh", "-c", script)
            if script is covers:
                os.kill(guest.pid1, signal.SIGUSR1)

            def made_again(before: os.stat_result = before) -> bool:
                found = os.lstat(guest.path("/run/initctl"))
                return stat.S_ISFIFO(found.st_mode) and not os.path.samestat(found, before)

            deadline = time.monotonic() + 5
            while not (os.path.exists(guest.path("/run/initctl")) and made_again()):
                assert time.monotonic() < deadline, guest.console()
                time.sleep(0.02)
            time.sleep(0.3)  # the process that has made it hands it over
            guest.initctl(str(level))
            deadline = time.monotonic() + 5
            while f"runlevel {level}, asked for by initctl" not in guest.console():
                assert time.monotonic() < deadline, guest.console()
                time.sleep(0.02)
        assert os.readlink(guest.path("/dev/initctl")) == "/run/initctl"
        guest.initctl("0")
        result = outcome(guest.container)
    assert result.status == 130, result
    assert str(result).count("was replaced; made it again") == 3 and "cannot" not in str(result), result
