"""The initctl FIFO on the event loop, in a process that does with signals what PID 1 does, under both loops."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcinit.control.initctl import INIT_CMD_SETENV, Request, runlevel_request
from tests.namespace.initctl_server import LOOPS, POWEROFF, REBOOT, Server, pending, wait_until, written_kib


@pytest.fixture(params=LOOPS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []
    for name in ("run", "dev"):
        (tmp_path / name).mkdir()

    def starter() -> Server:
        servers.append(Server(request.param, tmp_path / "log", tmp_path / "run/initctl", tmp_path / "dev/initctl"))
        return servers[-1]

    yield starter
    for server in servers:
        server.stop()


def test_the_fifo_is_roots_alone_and_the_other_place_a_link_to_it(start: Callable[[], Server], tmp_path: Path) -> None:
    server = start()
    status = os.lstat(tmp_path / "run/initctl")
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert os.readlink(tmp_path / "dev/initctl") == str(tmp_path / "run/initctl")
    server.write(POWEROFF, tmp_path / "dev/initctl")
    assert wait_until(lambda: server.words() == ["poweroff"])


def test_it_takes_away_what_it_made_after_it_acted_on_what_was_written(
    start: Callable[[], Server], tmp_path: Path
) -> None:
    server = start()
    before = server.write_in_its_pause(REBOOT * 20)
    assert f"ended after {before + 20}" in server.end()
    assert os.listdir(tmp_path / "run") == os.listdir(tmp_path / "dev") == []


def test_one_that_follows_over_an_exec_reads_the_same_fifo_and_knows_the_variables(
    start: Callable[[], Server], tmp_path: Path
) -> None:
    server = start()
    server.write(Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=HALT").pack() + REBOOT)
    assert wait_until(lambda: server.words() == ["reboot"])
    before, descriptors = os.lstat(server.fifo), server.descriptors()
    server.process.send_signal(signal.SIGHUP)
    server.write(POWEROFF)  # before, while or after the program is exchanged
    assert wait_until(lambda: server.heard().count("at /") == 2)
    assert wait_until(lambda: server.words() == ["reboot", "halt"])
    assert os.path.samestat(os.lstat(server.fifo), before)
    assert os.readlink(tmp_path / "dev/initctl") == str(server.fifo)
    assert server.descriptors() == descriptors
    server.end()
    assert os.listdir(tmp_path / "run") == os.listdir(tmp_path / "dev") == []


def test_one_that_follows_takes_what_was_written_to_a_fifo_that_is_not_there_any_more(
    start: Callable[[], Server], tmp_path: Path
) -> None:
    server = start()
    os.kill(server.process.pid, signal.SIGSTOP)
    server.process.send_signal(signal.SIGHUP)
    server.write(REBOOT)
    server.fifo.unlink()
    os.kill(server.process.pid, signal.SIGCONT)
    assert wait_until(lambda: server.words() == ["reboot"])
    assert wait_until(server.fifo.is_fifo)
    server.write(POWEROFF)
    assert wait_until(lambda: server.words() == ["reboot", "poweroff"])


@pytest.mark.row(27)
def test_broken_frames_hide_no_request_and_cost_nothing(start: Callable[[], Server]) -> None:
    server = start()
    for broken in (b"x", REBOOT[:383], POWEROFF + b"y", REBOOT + REBOOT, b"\1" + REBOOT[1:], b"\0" * 768):
        server.write(broken)
        time.sleep(0.05)
    server.write(POWEROFF)
    expected = ["poweroff", "reboot", "reboot", "poweroff"]
    assert wait_until(lambda: server.words() == expected)
    time.sleep(0.2)
    assert server.sleeps(3)


@pytest.mark.row(27)
def test_writers_that_come_and_go_leave_it_asleep_for_ten_seconds(start: Callable[[], Server]) -> None:
    server = start()
    for _ in range(200):
        os.close(os.open(server.fifo, os.O_WRONLY | os.O_NONBLOCK))
        os.close(os.open(server.fifo, os.O_RDWR | os.O_NONBLOCK))
    time.sleep(0.3)
    assert server.sleeps(10)


@pytest.mark.row(27)
def test_a_flood_costs_little_and_is_not_kept(start: Callable[[], Server]) -> None:
    server = start()
    memory = written_kib(server.process.pid)
    before = server.ticks(), server.wake_ups()
    end = time.monotonic() + 2
    fd = os.open(server.fifo, os.O_WRONLY | os.O_NONBLOCK)
    noise = os.urandom(4096)
    while time.monotonic() < end:
        try:
            os.write(fd, noise)
        except BlockingIOError:
            time.sleep(0.0005)
    os.close(fd)
    assert server.ticks() - before[0] < 40, "more than a fifth of a processor"
    assert server.wake_ups() - before[1] < 500
    assert wait_until(lambda: pending(server.fifo) == 0)
    server.write(POWEROFF)
    assert wait_until(lambda: server.words() == ["poweroff"])
    assert written_kib(server.process.pid) - memory < 1024


def test_ten_thousand_requests_of_eight_writers_are_all_acted_on(start: Callable[[], Server]) -> None:
    server = start()
    writers = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            fd = os.open(server.fifo, os.O_WRONLY)
            for _ in range(1250):
                os.write(fd, (POWEROFF, REBOOT)[number % 2])
            os._exit(0)
        writers.append(pid)
    assert wait_until(lambda: len(server.words()) == 10_000, 30), len(server.words())
    assert [os.waitpid(pid, 0)[1] for pid in writers] == [0] * 8
    assert Counter(server.words()) == {"poweroff": 5000, "reboot": 5000}
    assert "ended after 10000" in server.end()


def test_what_the_supervisor_refuses_is_said_seldom_and_hides_nothing(start: Callable[[], Server]) -> None:
    server = start()
    halt = Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=HALT").pack() + POWEROFF
    server.write(halt + runlevel_request("u").pack() * 100 + runlevel_request("3").pack() * 50 + REBOOT)
    assert wait_until(lambda: Counter(server.words()) == {"halt": 1, "reexec": 100, "reboot": 1})
    lines = server.log.read_text().splitlines()
    assert lines[0] == "lcinit: warning: initctl: there is no guest; start one"
    assert lines[1] == "lcinit: error: initctl: unexpected ValueError: a bug"
    assert len(lines) <= 5


@pytest.mark.row(29)
def test_no_variable_becomes_part_of_an_environment(start: Callable[[], Server]) -> None:
    server = start()
    server.write(Request(cmd=INIT_CMD_SETENV, data=b"LD_PRELOAD=/evil.so\0INIT_HALT=HALT\0").pack() + POWEROFF)
    assert wait_until(lambda: server.words() == ["halt"])
    environment = next(line for line in server.end().splitlines() if line.startswith("environment "))
    assert "PATH" in environment
    assert "LD_PRELOAD" not in environment
    assert "INIT_HALT" not in environment
