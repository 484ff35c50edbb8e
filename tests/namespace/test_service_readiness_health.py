"""Health checks against real servers and commands, good and bad ones, on both loops."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lcinit.config.service_values import Health
from lcinit.config.values import Command
from lcinit.errors import CommandFailed
from lcinit.service import health_http
from lcinit.service.health import LEAST_INTERVAL, HealthChecker
from lcinit.supervisor.reaper import Status
from tests.hostile.attempt import BOTH_LOOPS
from tests.namespace.isolated import needs_root
from tests.namespace.readiness_rig import as_pid1, ended, read, started, until, write

pytestmark = needs_root

PORT = 8080


class Checking:
    """A checker that runs; what it said and when."""

    def __init__(self, run: Any = None, **rules: Any) -> None:
        given = {"interval": 0.05, "timeout": 1.0, "failures": 2, **rules}
        self.results: list[tuple[bool, str]] = []
        self.unhealthy: list[str] = []
        self.times: list[float] = []
        self.began = time.monotonic()
        self.checker = HealthChecker(Health(**given), run, self._result, self.unhealthy.append)
        self.checker.start()

    def _result(self, ok: bool, detail: str) -> None:
        self.results.append((ok, detail))
        self.times.append(time.monotonic() - self.began)

    async def first(self, count: int = 1) -> list[tuple[bool, str]]:
        """The first results; then it stops."""
        await until(lambda: len(self.results) >= count, f"{count} results, not {self.results}")
        await self.stop()
        return self.results[:count]

    async def stop(self) -> None:
        self.checker.stop()
        for _ in range(3):
            await asyncio.sleep(0)


def listening(address: str = "127.0.0.1", backlog: int = 16) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, PORT))
    listener.listen(backlog)
    return listener


@contextmanager
def server(answer: Callable[[socket.socket], object], address: str = "127.0.0.1") -> Iterator[None]:
    """Threads in a forked child that do with each connection what `answer` does."""
    listener = listening(address)
    child = os.fork()
    if child == 0:
        try:
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=_served, args=(answer, peer), daemon=True).start()
        finally:
            os._exit(1)
    listener.close()
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _served(answer: Callable[[socket.socket], object], peer: socket.socket) -> None:
    try:
        answer(peer)
    except OSError:
        pass
    peer.close()


def url(path: str = "/") -> str:
    return f"http://127.0.0.1:{PORT}{path}"


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_real_web_server_is_healthy_until_it_ends(host: str, loop: str) -> None:
    async def body() -> None:
        os.mkdir("/run/www")
        write("/run/www/index.html", "x" * 10_000)
        os.mkdir("/run/www/moved")
        log = os.open("/run/log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        program = (sys.executable, "-u", "-m", "http.server", "--bind", host.strip("[]"), f"{PORT}")
        web = started(*program, cwd="/run/www", stderr=log, stdout=log)
        base = f"http://{host}:{PORT}"
        up = Checking(http=base + "/", failures=1000)
        await until(lambda: any(ok for ok, _ in up.results), "the server")
        for path, expected in (
            ("/", (True, "HTTP status 200 OK")),
            ("/moved", (True, "HTTP status 301 Moved Permanently")),
            ("/none", (False, "HTTP status 404 File not found")),
        ):
            assert await Checking(http=base + path).first() == [expected]
        await up.stop()
        await asyncio.sleep(0.1)
        web.kill()
        await ended(web)
        # it could write all of its responses, but for those that nobody waited for any more
        if not any("no answer within" in detail for _, detail in up.results):
            assert b"Traceback" not in os.pread(log, 1 << 20, 0)
        os.close(log)
        down = Checking(http=base + "/")
        await until(lambda: down.unhealthy, "the action")
        await down.stop()
        assert down.unhealthy == ["Connection refused"]
        assert down.results == [(False, "Connection refused")] * 2

    as_pid1(body, loop)


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_that_accepts_is_healthy(address: str, loop: str) -> None:
    async def body() -> None:
        listener = listening(address)
        up = Checking(tcp=(address, PORT))
        assert await up.first(3) == [(True, "connected")] * 3
        assert up.unhealthy == []
        listener.close()
        assert await Checking(tcp=(address, PORT)).first() == [(False, "Connection refused")]

    as_pid1(body, loop)


def test_no_route_is_a_failure() -> None:
    async def body() -> None:
        assert await Checking(tcp=("192.0.2.1", 1)).first() == [(False, "Network is unreachable")]
        assert await Checking(http="http://192.0.2.1/").first() == [(False, "Network is unreachable")]

    as_pid1(body)


@pytest.mark.row(55)
@pytest.mark.parametrize(
    ("rules", "detail"),
    [
        ({"tcp": ("localhost", PORT)}, "'localhost' is no IP address"),
        ({"tcp": ("fe80::1%lo", PORT)}, "'fe80::1%lo' is no IP address"),
        ({"http": "http://localhost/"}, "'localhost' is no IP address"),
        ({"http": "https://127.0.0.1/"}, "it begins with http://"),
        ({}, "there is nothing to check"),
    ],
)
def test_names_are_never_looked_up(rules: dict[str, Any], detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a resolver is asked")

    async def body() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", refused)
        assert await Checking(**rules).first() == [(False, detail)]

    as_pid1(body)


@pytest.mark.row(55)
def test_a_full_queue_of_connections_ends_with_the_timeout() -> None:
    async def body() -> None:
        listener = listening(backlog=0)
        others = [socket.socket() for _ in range(4)]
        for each in others:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", PORT))
        found = Checking(tcp=("127.0.0.1", PORT), timeout=0.3)
        assert await found.first() == [(False, "no answer within 0.3 s")]
        assert found.times[0] < 2
        for each in (*others, listener):
            each.close()

    as_pid1(body)


HEAD = b"HTTP/1.1 200 OK\r\n"


def _drip(peer: socket.socket) -> None:
    for byte in HEAD + b"X: " + b"x" * 1000:
        peer.send(bytes((byte,)))
        time.sleep(0.05)


def _endless(peer: socket.socket) -> None:
    peer.sendall(HEAD + b"X: ")
    while True:
        peer.sendall(b"x" * 65536)


def _silent(peer: socket.socket) -> None:
    time.sleep(100)


def _reads_nothing_and_resets(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


BAD = {
    "drips": (_drip, "no answer within 0.5 s"),
    "is silent": (_silent, "no answer within 0.5 s"),
    "never ends its head": (_endless, "the response's head has more than 16384 bytes"),
    "speaks another protocol": (
        lambda peer: peer.sendall(b"220 smtp\r\n\r\n"),
        'the server does not speak HTTP/1: "220 smtp"',
    ),
    "closes at once": (lambda peer: peer.recv(4096), "the server closed the connection before its response was whole"),
    "closes in the middle": (
        lambda peer: peer.sendall(HEAD) or peer.recv(4096),
        "the server closed the connection before its response was whole",
    ),
    "resets": (_reads_nothing_and_resets, "Connection reset by peer"),
}


@pytest.mark.row(55)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("what", BAD)
def test_a_server_that_is_no_good_is_a_result_in_time(what: str, loop: str) -> None:
    async def body() -> None:
        answer, detail = BAD[what]
        with server(answer):
            found = Checking(http=url(), timeout=0.5)
            await until(lambda: found.unhealthy, "the action")
            await found.stop()
        assert found.results == [(False, detail)] * 2
        assert found.unhealthy == [detail]
        assert found.times[-1] < 3

    as_pid1(body, loop)


def _healthy_without_end(peer: socket.socket) -> None:
    peer.recv(4096)
    peer.sendall(HEAD + b"\r\n")
    while True:
        peer.sendall(b"x" * 65536)


def _healthy_and_then_nothing(peer: socket.socket) -> None:
    peer.recv(4096)
    peer.sendall(HEAD + b"\r\nbody")
    time.sleep(100)


@pytest.mark.row(55)
@pytest.mark.parametrize(
    ("answer", "patience"), [(_healthy_without_end, 100.0), (_healthy_and_then_nothing, health_http._PATIENCE)]
)
def test_a_body_without_end_is_left_soon(
    answer: Callable[[socket.socket], object], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_http, "_PATIENCE", patience)

    async def body() -> None:
        with server(answer):
            found = Checking(http=url(), timeout=0.3, interval=0.1)
            assert await found.first(2) == [(True, "HTTP status 200 OK")] * 2

    as_pid1(body)


def _slow_body(peer: socket.socket) -> None:
    peer.recv(4096)
    said = "whole"
    try:
        for piece in (HEAD + b"\r\n", b"a", b"b"):
            peer.sendall(piece)
            time.sleep(0.1)
    except OSError as error:
        said = str(error)
    write("/run/said", said)


def test_a_server_may_send_its_body_to_the_end() -> None:
    async def body() -> None:
        with server(_slow_body):
            assert await Checking(http=url(), timeout=0.05).first() == [(True, "HTTP status 200 OK")]
            await until(lambda: os.path.exists("/run/said"), "the server's word")
        assert read("/run/said") == b"whole"

    as_pid1(body)


def test_the_first_check_comes_one_interval_after_the_start_and_none_overlaps() -> None:
    async def body() -> None:
        running = most = 0
        begun: list[float] = []

        async def run(_command: Command, _timeout: float) -> Status:
            nonlocal running, most
            begun.append(time.monotonic() - found.began)
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.2)
            running -= 1
            return Status(0)

        found = Checking(run, exec=Command(argv=("x",)), interval=0.1)
        await found.first(3)
        assert most == 1
        assert begun[0] >= 0.1
        assert all(later - earlier >= 0.29 for earlier, later in itertools.pairwise(begun))

    as_pid1(body)


async def _raises(error: BaseException) -> Status:
    raise error


async def _returns(status: Status) -> Status:
    return status


async def _hangs() -> Status:
    await asyncio.sleep(100)
    return Status(0)


@pytest.mark.parametrize(
    ("run", "result"),
    [
        (lambda: _returns(Status(0)), (True, "exit code 0")),
        (lambda: _returns(Status(3)), (False, "exit code 3")),
        (lambda: _returns(Status(signal=9)), (False, "signal SIGKILL")),
        (lambda: _returns(Status(-1)), (False, "no answer within 0.2 s")),
        (_hangs, (False, "no answer within 0.2 s")),
        (lambda: _raises(CommandFailed("cannot run 'x': not found")), (False, "cannot run 'x': not found")),
        (lambda: _raises(TimeoutError(110, "Connection timed out")), (False, "Connection timed out")),
        (lambda: _raises(OSError(12, "Cannot allocate memory")), (False, "Cannot allocate memory")),
        (lambda: _raises(RuntimeError("a mistake")), (False, "RuntimeError: a mistake")),
        (lambda: _raises(asyncio.CancelledError()), (False, "the check was cancelled")),
    ],
)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_whatever_a_command_does_is_the_checks_result(run: Any, result: tuple[bool, str], loop: str) -> None:
    async def body() -> None:
        seen: list[tuple[Command, float]] = []

        def called(command: Command, timeout: float) -> Any:
            seen.append((command, timeout))
            return run()

        command = Command(argv=("x",))
        found = Checking(called, exec=command, timeout=0.2)
        assert await found.first(2) == [result] * 2
        assert seen[0] == (command, 0.2)

    as_pid1(body, loop)


def test_a_stop_ends_the_command_and_says_nothing() -> None:
    async def body() -> None:
        ended_by: list[type[BaseException]] = []
        started = asyncio.Event()

        async def run(_command: Command, _timeout: float) -> Status:
            started.set()
            try:
                await asyncio.sleep(100)
            except BaseException as error:
                ended_by.append(type(error))
                raise
            return Status(0)

        found = Checking(run, exec=Command(argv=("x",)), timeout=50.0)
        await started.wait()
        await found.stop()
        found.checker.stop()
        assert ended_by == [asyncio.CancelledError]
        assert (found.results, found.unhealthy) == ([], [])

    as_pid1(body)


def test_callbacks_may_stop_it_and_may_fail() -> None:
    async def body() -> None:
        calls: list[str] = []

        def result(_ok: bool, _detail: str) -> None:
            calls.append("result")
            if len(calls) == 2:
                checker.stop()
            raise RuntimeError("a mistake")

        async def run(_command: Command, _timeout: float) -> Status:
            return Status(1)

        rules = Health(exec=Command(argv=("x",)), interval=0.05, failures=2)
        checker = HealthChecker(rules, run, result, lambda _: calls.append("unhealthy"))
        checker.start()
        await asyncio.sleep(0.5)
        assert calls == ["result", "result"]
        checker.start()  # and it begins anew
        await until(lambda: "unhealthy" in calls, "the action")
        checker.stop()

    as_pid1(body)


def test_a_checker_that_cannot_go_on_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        async def run(_command: Command, _timeout: float) -> Status:
            return Status(0)

        checker = HealthChecker(Health(exec=Command(argv=("x",)), interval="often"), run, print, print)  # type: ignore[arg-type]
        checker.start()
        await asyncio.sleep(0.05)

    as_pid1(body)
    assert "unexpected, there are no more health checks: TypeError" in capfd.readouterr().err


def test_a_second_start_takes_the_place_of_the_first() -> None:
    async def body() -> None:
        running = most = 0

        async def run(_command: Command, _timeout: float) -> Status:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(0.1)
            finally:
                running -= 1
            return Status(0)

        found = Checking(run, exec=Command(argv=("x",)))
        found.checker.start()
        await found.first(3)
        await asyncio.sleep(0.3)
        assert (most, running, len(found.results)) == (1, 0, 3)

    as_pid1(body)


def test_no_interval_is_too_short_for_pid_1() -> None:
    async def body() -> None:
        found = Checking(tcp=("127.0.0.1", PORT), interval=0.0, failures=1000)
        await asyncio.sleep(0.5)
        await found.stop()
        assert 2 <= len(found.results) <= 0.5 / LEAST_INTERVAL

    as_pid1(body)


def test_the_start_period_is_counted_from_the_start() -> None:
    async def body() -> None:
        found = Checking(tcp=("127.0.0.1", PORT), start_period=0.5, failures=1)
        await until(lambda: found.unhealthy, "the action")
        await found.stop()
        assert 0.5 <= found.times[-1] < 2
        assert len(found.results) > 3
        assert len(found.unhealthy) == 1

    as_pid1(body)
