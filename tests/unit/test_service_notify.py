"""What a manager is told of all services, and when a watchdog expires."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lcinit.control import notify as control_notify
from lcinit.control.notify import ManagerSocket, tell_manager
from lcinit.service import notify
from lcinit.service.aggregate import Aggregate
from lcinit.service.notify import Watchdog


def test_ready_is_told_once_when_all_have_come_up_or_failed_for_good() -> None:
    told: list[str] = []
    aggregate = Aggregate(told.append)
    aggregate.update(0, 0, 3)
    aggregate.update(2, 0, 3)
    aggregate.update(2, 0, 3)
    aggregate.update(2, 1, 3)
    aggregate.update(1, 1, 3)
    aggregate.update(3, 0, 3)
    assert told == [
        "STATUS=0 of 3 services are up",
        "STATUS=2 of 3 services are up",
        "READY=1\nSTATUS=2 of 3 services are up, 1 has failed",
        "STATUS=1 of 3 services is up, 1 has failed",
        "STATUS=3 of 3 services are up",
    ]


def test_a_runlevel_without_services_is_ready_at_once() -> None:
    told: list[str] = []
    Aggregate(told.append).update(0, 0, 0)
    assert told == ["READY=1\nSTATUS=there are no services"]


def test_the_end_is_told_once_and_is_not_followed_by_readiness() -> None:
    told: list[str] = []
    aggregate = Aggregate(told.append)
    aggregate.update(0, 0, 1)
    aggregate.stopping()
    aggregate.stopping()
    aggregate.update(0, 2, 1)
    assert told == ["STATUS=0 of 1 service are up", "STOPPING=1", "STATUS=0 of 1 service are up, 2 have failed"]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "manager"))
        listener.settimeout(5)
        yield listener


def test_the_manager_is_reached_after_its_path_means_another_place(manager: socket.socket, tmp_path: Path) -> None:
    channel = ManagerSocket(str(tmp_path / "manager"))
    os.rename(tmp_path / "manager", tmp_path / "elsewhere")
    channel.tell("READY=1")
    assert manager.recv(100) == b"READY=1"
    channel.close()
    assert channel.fileno() == -1
    channel.tell("READY=1")  # to nobody


def test_the_environment_names_the_manager(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
    tell_manager("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_a_manager_may_be_in_the_abstract_namespace() -> None:
    name = f"lcinit-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        ManagerSocket(f"@{name}").tell("READY=1")
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("path", ["", "vsock:2:1234", "relative"])
def test_another_kind_of_manager_is_told_nothing(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    channel = ManagerSocket(path)
    channel.tell("READY=1")
    assert channel.fileno() == -1
    assert capfd.readouterr().err == ""


def test_a_manager_that_is_gone_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "manager")
    ManagerSocket(path).tell("READY=1")
    assert "No such file" in capfd.readouterr().err
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        channel = ManagerSocket(path)
    for _ in range(3):
        channel.tell("READY=1")
    assert capfd.readouterr().err == (
        f"lcinit: warning: cannot tell the manager on NOTIFY_SOCKET {path}: Connection refused\n"
    )


def _fill(channel: ManagerSocket) -> None:
    """Fill the queue of who does not read, up to the first that has to wait."""
    for count in range(100_000):
        if channel._waiting:
            return
        channel.tell(f"STATUS={count}\nX={count}")
    raise AssertionError("the queue has no end")


async def test_what_finds_the_queue_full_is_said_later_and_merged(manager: socket.socket, tmp_path: Path) -> None:
    channel = ManagerSocket(str(tmp_path / "manager"))
    _fill(channel)
    channel.tell("READY=1\nSTATUS=last")
    channel.tell("STATUS=very last")
    manager.settimeout(0)
    received = []
    for _ in range(100_000):
        try:
            received.append(manager.recv(1000).decode())
        except BlockingIOError:
            if received and "READY" in received[-1]:
                break
            await asyncio.sleep(0.001)
    lines = received[-1].split("\n")
    assert lines[1:] == ["READY=1", "STATUS=very last"]
    assert lines[0].startswith("X=")
    channel.tell("STATUS=after")
    assert manager.recv(1000) == b"STATUS=after"
    channel.close()


async def test_nothing_overtakes_what_waits(manager: socket.socket, tmp_path: Path) -> None:
    channel = ManagerSocket(str(tmp_path / "manager"))
    _fill(channel)
    channel.tell("STATUS=earlier")
    manager.recv(1000)  # there is room, and the loop has not had its turn
    channel.tell("READY=1")
    received = []
    manager.settimeout(0)
    for _ in range(100_000):
        try:
            received.append(manager.recv(1000))
        except BlockingIOError:
            if not channel._waiting:
                break
            await asyncio.sleep(0.001)
    assert received[-1].split(b"\n")[1:] == [b"STATUS=earlier", b"READY=1"]
    channel.close()


async def test_nothing_is_watched_once_it_is_said_or_given_up(manager: socket.socket, tmp_path: Path) -> None:
    channel = ManagerSocket(str(tmp_path / "manager"))
    _fill(channel)
    loop = cast("Any", asyncio.get_running_loop())
    watched = loop._selector.get_map()
    assert channel.fileno() in watched
    fd = channel.fileno()
    channel.close()
    assert fd not in watched


def test_a_full_queue_without_a_loop_is_told(
    manager: socket.socket, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    channel = ManagerSocket(str(tmp_path / "manager"))
    for count in range(3000):
        channel.tell(f"STATUS={count}")
    assert capfd.readouterr().err.count("it does not read") == 1
    channel.close()


class Clock:
    """A loop's clock and its one timer."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timer: tuple[float, Any] | None = None
        self.armed = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Clock:
        assert self.timer is None, "one timer at a time"
        self.armed += 1
        self.timer = when, callback
        return self

    def cancel(self) -> None:
        self.timer = None

    def advance(self, seconds: float) -> None:
        """Let the time pass, and the timer fire when it is due."""
        end = self.now + seconds
        while self.timer is not None and self.timer[0] <= end:
            self.now, callback = self.timer
            self.timer = None
            callback()
        self.now = end

    def freeze(self, seconds: float) -> None:
        """Let the time pass for all others; then the timer fires."""
        self.now += seconds
        self.advance(0) if self.timer is None or self.timer[0] > self.now else self._late()

    def _late(self) -> None:
        assert self.timer is not None
        callback, self.timer = self.timer[1], None
        callback()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(notify.asyncio, "get_running_loop", lambda: made)
    return made


def test_a_service_that_says_nothing_is_told_once(clock: Clock) -> None:
    expired: list[float] = []
    dog = Watchdog(10, lambda: expired.append(clock.now))
    dog.start()
    clock.advance(9.9)
    assert expired == []
    clock.advance(100)
    assert expired == [1010.0]
    assert clock.timer is None


def test_pings_move_the_end_and_set_no_timer(clock: Clock) -> None:
    expired: list[float] = []
    dog = Watchdog(10, lambda: expired.append(clock.now))
    dog.start()
    for _ in range(10_000):
        dog.ping()
        clock.advance(0.005)
    assert expired == []
    assert clock.armed <= 6
    clock.advance(20)
    assert expired == [pytest.approx(1000 + 10_000 * 0.005 - 0.005 + 10)]


def test_another_interval_begins_at_once(clock: Clock) -> None:
    expired: list[float] = []
    dog = Watchdog(1000, lambda: expired.append(clock.now))
    dog.start()
    clock.advance(5)
    dog.interval = 1
    clock.advance(0.9)
    assert expired == []
    clock.advance(0.2)
    assert expired == [1006.0]
    dog.interval = 5  # it has expired
    clock.advance(100)
    assert expired == [1006.0]


def test_no_interval_and_a_stop_end_it(clock: Clock) -> None:
    for end in ("interval", "stop"):
        dog = Watchdog(1, lambda: pytest.fail("it has expired"))
        dog.start()
        if end == "stop":
            dog.stop()
            dog.ping()
            dog.interval = 1
        else:
            dog.interval = 0
        assert clock.timer is None
        clock.advance(100)


def test_for_ever_is_no_overflow(clock: Clock) -> None:
    dog = Watchdog((2**64 - 1) / 1e6, lambda: pytest.fail("it has expired"))
    dog.start()
    clock.advance(30 * 86400)
    assert clock.timer is not None and clock.timer[0] - clock.now <= 86400


def test_a_service_that_was_frozen_together_with_lcinit_gets_its_time(clock: Clock) -> None:
    expired: list[float] = []
    dog = Watchdog(10, lambda: expired.append(clock.now))
    dog.start()
    clock.freeze(3600)
    assert expired == []
    clock.advance(9.9)
    assert expired == []
    clock.advance(1)
    assert expired == [1000.0 + 3600 + 10]


def test_a_loop_that_is_a_little_late_is_no_excuse(clock: Clock) -> None:
    expired: list[float] = []
    dog = Watchdog(0.1, lambda: expired.append(clock.now))
    dog.start()
    clock.freeze(0.3)
    assert expired == [1000.3]


async def test_errors_of_who_takes_datagrams_are_told_but_not_without_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def take(_pid: int, _uid: int, data: bytes) -> None:
        taken.append(data)
        raise ValueError("a mistake")

    taken: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    listener.bind(str(tmp_path / "socket"))
    datagrams = control_notify.Datagrams(listener, take)
    datagrams.start(asyncio.get_running_loop())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for _ in range(30):
            sender.sendto(b"READY=1", str(tmp_path / "socket"))
            await asyncio.sleep(0.002)
    datagrams.close()
    assert len(taken) == 30
    errors = capfd.readouterr().err.splitlines()
    assert (
        errors == [f"lcinit: error: unexpected, on a notification of process {os.getpid()}: ValueError: a mistake"] * 5
    )


async def test_a_socket_may_be_closed_by_who_takes_from_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    taken: list[tuple[int, int, bytes]] = []

    def take(*message: Any) -> None:
        taken.append(message)
        datagrams.close()

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    listener.bind(str(tmp_path / "socket"))
    datagrams = control_notify.Datagrams(listener, take)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for word in (b"1", b"2", b"3"):
            sender.sendto(word, str(tmp_path / "socket"))
    datagrams.start(asyncio.get_running_loop())
    await asyncio.sleep(0.05)
    assert taken == [(os.getpid(), os.getuid(), b"1")]
    assert datagrams.fileno() == -1
    datagrams.close()
    assert capfd.readouterr().err == ""


async def test_the_kernels_refusals_do_not_keep_the_loop_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        calls = 0

        def __init__(self, real: socket.socket) -> None:
            self.fileno, self.close, self.setblocking = real.fileno, real.close, real.setblocking

        def recvmsg(self, *_: int) -> None:
            Failing.calls += 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", str(tmp_path / "socket"))
    datagrams = control_notify.Datagrams(cast("Any", Failing(listener)), lambda *_: None)
    datagrams.start(asyncio.get_running_loop())
    await asyncio.sleep(0.5)
    datagrams.close()
    assert control_notify.BURST <= Failing.calls < control_notify.BURST + 100
    assert capfd.readouterr().err.count("Cannot allocate memory") == 5
