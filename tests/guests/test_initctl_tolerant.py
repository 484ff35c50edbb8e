"""initctl beside a nested guest: a real lcinit as PID 1, asked in its boot root by its own telinit and by frames."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from lcinit.control.initctl import INIT_CMD_POWERFAIL, INIT_CMD_SETENV, Request, runlevel_request
from tests.guests.test_handoff import MAPPED, POWEROFF_DEATH, REBOOT_DEATH, shifted_layer
from tests.lab.container import Container, descendants, namespace_pids
from tests.lab.probe import await_probe
from tests.namespace.initctl_server import wait_until

TOLERANT = MAPPED + "exec: {mode: tolerant, on_reboot: propagate}\ninitctl: auto\n"
UP = "echo up\n"
FIFO = "/run/initctl"


@pytest.fixture
def start(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> Callable[[str], Container]:
    def starter(name: str) -> Container:
        layer = shifted_layer(f"{tmp_path}/layer", name, UP, mapped=True, after=None)
        running = container("unshare").start(
            boot_root, guest_root=guest_root(name), config=TOLERANT, binds=[(layer, "/mnt/layer")]
        )
        await_probe(running, 30)
        assert wait_until(lambda: os.path.lexists(outer(running)))
        return running

    return starter


def outer(running: Container, path: str = FIFO) -> str:
    return f"/proc/{running.pid1()}/root{path}"


def write(running: Container, data: bytes) -> None:
    fd = os.open(outer(running), os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def text(running: Container) -> str:
    return running.console().decode(errors="replace")


@pytest.mark.parametrize(
    ("name", "arguments", "word", "status"),
    [
        ("systemd252", ["0"], "poweroff", POWEROFF_DEATH),
        ("systemd252", ["-e", "INIT_HALT=HALT", "0"], "halt", POWEROFF_DEATH),
        ("systemd252", ["6"], "reboot", REBOOT_DEATH),
        ("sysvinit", ["0"], "poweroff", POWEROFF_DEATH),
        ("busybox", ["6"], "reboot", REBOOT_DEATH),
    ],
)
def test_telinit_in_the_boot_root_ends_guest_and_container(
    name: str, arguments: list[str], word: str, status: int, start: Callable[[str], Container]
) -> None:
    running = start(name)
    asked = running.run("/usr/lib/lcinit/bin/lcinit", "telinit", *arguments)
    assert asked.returncode == 0, asked.stderr
    assert running.wait(60).status == status
    assert f"{word} was asked for by initctl" in text(running)


def test_a_failing_power_supply_is_a_poweroff(start: Callable[[str], Container]) -> None:
    running = start("busybox")
    write(running, Request(cmd=INIT_CMD_POWERFAIL).pack())
    assert running.wait(60).status == POWEROFF_DEATH
    assert "the power is failing" in text(running)


def test_runlevel_u_exchanges_lcinit_and_the_fifo_goes_on(start: Callable[[str], Container]) -> None:
    running = start("busybox")
    guest = running.guest_pid1()
    write(running, runlevel_request("u").pack())
    assert wait_until(lambda: "becoming the lcinit that is installed now" in text(running), 20)
    assert wait_until(lambda: running.run("/sbin/init", "3").returncode == 0, 20)
    assert wait_until(lambda: "runlevel 3 was asked for and ignored" in text(running))
    assert running.guest_pid1() == guest
    assert running.run("/sbin/init", "0").returncode == 0
    assert running.wait(60).status == POWEROFF_DEATH


@pytest.mark.row(28)
def test_pid_1_hears_of_a_replaced_fifo_and_makes_it_again(start: Callable[[str], Container]) -> None:
    running = start("busybox")
    os.unlink(outer(running))
    assert wait_until(lambda: os.path.lexists(outer(running)))
    running.run("ln", "-sf", "/etc/passwd", "/dev/initctl")
    assert wait_until(lambda: os.readlink(outer(running, "/dev/initctl")) == FIFO)
    assert running.run("/sbin/init", "0").returncode == 0
    assert running.wait(60).status == POWEROFF_DEATH


def test_no_variable_of_a_request_is_in_any_process(start: Callable[[str], Container]) -> None:
    running = start("sysvinit")
    write(running, Request(cmd=INIT_CMD_SETENV, data=b"LD_PRELOAD=/evil.so\0INIT_VERSION=evil\0").pack())
    write(running, runlevel_request("3").pack())  # answered after that
    assert wait_until(lambda: "runlevel 3 was asked for and ignored" in text(running))
    assert running.process is not None
    inside = [pid for pid in descendants(running.process.pid) if len(namespace_pids(pid)) > 2]
    assert len(inside) >= 2
    for pid in inside:
        with open(f"/proc/{pid}/environ", "rb") as file:
            assert b"evil" not in file.read()


@pytest.mark.row(27)
def test_a_flood_from_several_writers_neither_stops_nor_floods_pid_1(start: Callable[[str], Container]) -> None:
    running = start("busybox")
    frames = runlevel_request("3").pack() + b"x" * 100 + runlevel_request("2").pack()[:383]

    def flood() -> None:
        fd = os.open(outer(running), os.O_WRONLY)
        try:
            for _ in range(2500):
                os.write(fd, frames)
        finally:
            os.close(fd)

    writers = [threading.Thread(target=flood) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert not writer.is_alive()
    time.sleep(0.5)
    before = wake_ups(running.pid1())
    time.sleep(2)
    assert wake_ups(running.pid1()) == before
    assert text(running).count("was asked for and ignored") < 20
    write(running, runlevel_request("0").pack())
    assert running.wait(60).status == POWEROFF_DEATH


def wake_ups(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
