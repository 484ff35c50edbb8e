"""Row 50, for services: what anybody in the guest may do to the socket on which they say that they are ready."""

from __future__ import annotations

import array
import asyncio
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lcinit.control.notify import LARGEST
from lcinit.service.notifications import Notification
from lcinit.service.notify import PATH, NotifySocket, Watchdog
from tests.hostile.attempt import BOTH_LOOPS
from tests.namespace.isolated import needs_root
from tests.namespace.readiness_rig import NOBODY, as_pid1, ended, open_files, processor_time, started, until

pytestmark = [needs_root, pytest.mark.row(50)]

SERVICE_UID = 1000
_UCRED = struct.Struct("=iII")


class Heard:
    """How many messages each uid has sent, and the last of the PIDs that count."""

    def __init__(self, on_message: Callable[[int, Notification], object] = lambda *_: None) -> None:
        self.by_uid: dict[int, int] = {}
        self.pids: dict[int, int] = {}
        self.last: dict[int, Notification] = {}
        self._on_message = on_message
        self.socket = NotifySocket(self._take)
        self.socket.start(asyncio.get_running_loop())

    def _take(self, pid: int, uid: int, said: Notification) -> None:
        self.by_uid[uid] = self.by_uid.get(uid, 0) + 1
        self.pids[uid], self.last[uid] = pid, said
        self._on_message(pid, said)


@contextmanager
def attackers(count: int, attack: Callable[[socket.socket], object], uid: int = NOBODY) -> Iterator[list[int]]:
    """Processes of that uid that do it again and again, whatever comes of it."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                channel.connect(PATH)
                while True:
                    try:
                        attack(channel)
                    except OSError:
                        continue
            finally:
                os._exit(1)
        pids.append(pid)
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def as_service(script: Callable[[], object], uid: int = SERVICE_UID) -> int:
    """A child of that uid that does it once: its PID."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            script()
            status = 0
        finally:
            os._exit(status)
    return pid


async def over(pid: int, seconds: float = 10) -> int:
    """The exit code of a child, while the loop runs."""
    found: list[int] = []

    def look() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append(os.waitstatus_to_exitcode(status))
        return bool(done)

    await until(look, f"the end of process {pid}", seconds)
    return found[0]


RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))
FLOODS: dict[str, Callable[[socket.socket], object]] = {
    "large, with descriptors": lambda channel: channel.sendmsg([b"READY=1\nX=" + b"x" * 4000], [RIGHTS]),
    "empty": lambda channel: channel.send(b""),
    "newlines": lambda channel: channel.send(b"\n" * LARGEST),
    "broken numbers": lambda channel: channel.send((b"ERRNO=x\n" * LARGEST)[:LARGEST]),
    "unprintable": lambda channel: channel.send(b"STATUS=" + b"\x01" * 4000),
    "too large": lambda channel: channel.send(b"READY=1\n" + b"x" * LARGEST),
}


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_costs_little_and_holds_nobody_up(flood: str, loop: str) -> None:
    async def body() -> None:
        heard = Heard()
        with attackers(3, FLOODS[flood]):
            await asyncio.sleep(1)
            spent, files = processor_time(), open_files()
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await asyncio.sleep(3)
            assert processor_time() - spent < 0.9
            assert open_files().keys() == files.keys()
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 1024
            began = time.monotonic()
            notify = started("systemd-notify", "--ready", env={"NOTIFY_SOCKET": PATH}, user=SERVICE_UID)
            assert await ended(notify) == 0
            assert time.monotonic() - began < 3
            assert heard.by_uid[SERVICE_UID] == 2  # READY=1 and its barrier
        heard.socket.close()

    as_pid1(body, loop)


def test_the_pace_is_what_makes_a_flood_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pauses are for: without them the same flood takes all the time there is."""

    async def body() -> None:
        monkeypatch.setattr("lcinit.control.notify.BURST", 1_000_000)
        heard = Heard()
        with attackers(3, FLOODS["newlines"]):
            spent = processor_time()
            await asyncio.sleep(2)
            assert processor_time() - spent > 0.6
        heard.socket.close()

    as_pid1(body)


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_flood_does_not_starve_anothers_watchdog(loop: str) -> None:
    async def body() -> None:
        expired: list[str] = []
        honest = Watchdog(2.0, lambda: expired.append("honest"))
        hanging = Watchdog(2.0, lambda: expired.append("hanging"))

        def take(pid: int, said: Notification) -> None:
            if said.watchdog and pid == service:
                honest.ping()

        def ping() -> None:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            channel.connect(PATH)
            while True:
                channel.send(b"WATCHDOG=1")
                time.sleep(0.5)

        heard = Heard(take)
        service = as_service(ping)
        with attackers(3, lambda channel: channel.send(b"WATCHDOG=1")):
            honest.start()
            hanging.start()
            await asyncio.sleep(5)
        assert expired == ["hanging"]
        honest.stop()
        os.kill(service, signal.SIGKILL)
        await over(service)
        heard.socket.close()

    as_pid1(body, loop)


def _claim(pid: int, uid: int, gid: int) -> Callable[[], None]:
    def script() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(PATH)
            credentials = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, _UCRED.pack(pid, uid, gid))
            try:
                channel.sendmsg([b"READY=1"], [credentials])
            except PermissionError:
                channel.send(b"STATUS=refused")

    return script


@pytest.mark.parametrize("claim", ["another's PID", "root"])
def test_nobody_speaks_in_anothers_name(claim: str) -> None:
    async def body() -> None:
        heard = Heard()
        victim = as_service(signal.pause)
        pid, uid = (victim, SERVICE_UID) if claim == "another's PID" else (1, 0)
        forger = as_service(_claim(pid, uid, uid), NOBODY)
        assert await over(forger) == 0
        await until(lambda: heard.by_uid, "the message")
        assert heard.by_uid == {NOBODY: 1}
        assert heard.pids == {NOBODY: forger}
        assert heard.last == {NOBODY: Notification(status="refused")}
        os.kill(victim, signal.SIGKILL)
        await over(victim)
        heard.socket.close()

    as_pid1(body)


def test_a_sender_from_outside_of_the_pid_namespace_is_nobody() -> None:
    async def body() -> None:
        heard = Heard()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(PATH)
            socket.send_fds(ours, [b"x"], [channel.fileno()])
            ours.setblocking(False)
            said: list[bytes] = []
            await until(lambda: said or _received(ours, said), "its word")
            channel.send(b"STATUS=own")
        await until(lambda: heard.by_uid, "the own message")
        assert (heard.by_uid, heard.last) == ({0: 1}, {0: Notification(status="own")})
        heard.socket.close()

    ours, its = socket.socketpair()
    outsider = os.fork()
    if outsider == 0:
        try:
            _, (fd,), _, _ = socket.recv_fds(its, 1, 1)
            with socket.socket(fileno=fd) as given:
                given.send(b"READY=1")
            its.send(b"x")
        finally:
            os._exit(0)
    try:
        as_pid1(body)
    finally:
        os.kill(outsider, signal.SIGKILL)
        os.waitpid(outsider, 0)
        ours.close()
        its.close()


def _received(channel: socket.socket, said: list[bytes]) -> None:
    try:
        said.append(channel.recv(1))
    except BlockingIOError:
        return


def test_what_is_too_large_is_told_a_few_times_and_not_believed(capfd: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        heard = Heard()

        def script() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.connect(PATH)
                for size in (LARGEST, LARGEST + 1, 100_000):
                    channel.send((b"READY=1\nX=" + b"x" * size)[:size])
                for _ in range(50):
                    channel.send(b"x" * (LARGEST + 1))

        child = as_service(script)
        assert await over(child) == 0
        await asyncio.sleep(0.2)
        assert heard.by_uid == {SERVICE_UID: 1}
        heard.socket.close()

    as_pid1(body)
    lines = [line for line in capfd.readouterr().err.splitlines() if "4096 bytes" in line]
    assert len(lines) == 5
    assert "(uid 1000) has more than 4096 bytes and is ignored" in lines[0]


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_whoever_waits_for_a_barrier_goes_on_when_it_was_heard(loop: str) -> None:
    """sd_notify_barrier(3): the other end of a pipe that was sent is closed once what came before is taken."""

    async def body() -> None:
        heard = Heard()

        def script() -> None:
            reader, writer = os.pipe()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.connect(PATH)
                channel.send(b"READY=1")
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))
                channel.sendmsg([b"BARRIER=1"], [rights])
                os.close(writer)
                assert os.read(reader, 1) == b""

        assert await over(as_service(script), 5) == 0
        assert heard.by_uid == {SERVICE_UID: 2}
        heard.socket.close()

    as_pid1(body, loop)


def test_descriptors_to_be_stored_are_closed() -> None:
    async def body() -> None:
        heard = Heard()
        before = open_files()

        def script() -> None:
            reader, writer = os.pipe()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer, writer]))
                channel.sendmsg([b"FDSTORE=1\nFDNAME=x"], [rights], 0, PATH)
            os.close(writer)
            assert os.read(reader, 1) == b""

        assert await over(as_service(script), 5) == 0
        assert heard.last == {SERVICE_UID: Notification()}
        assert open_files() == before
        heard.socket.close()

    as_pid1(body)
