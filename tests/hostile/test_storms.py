"""Rows 49 and 50: a guest that does a small thing again and again, so that PID 1 has no time for anything else."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from tests.guests.test_nested import POWEROFF_DEATH
from tests.hostile.attacker import PRELUDE, python_configuration
from tests.hostile.attempt import own_guest, start
from tests.lab.container import Container

NESTED = {"mode": "tolerant"}
TICK = os.sysconf("SC_CLK_TCK")

# 169 is reboot(2), 0x1234567 RESTART
REBOOTS = """
say("boot", "again")
syscall(169, 0xfee1dead, 0x28121969, 0x1234567, 0)
"""


def processor_time(container: Container) -> float:
    """Seconds that PID 1 has had by now."""
    with open(f"/proc/{container.pid1()}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def boots(container: Container) -> int:
    """How often its guest has begun."""
    return len(re.findall(rb"^boot: again", container.console(), re.MULTILINE))


def boots_within(seconds: float, container: Container) -> int:
    """How often it begins from now on."""
    before = boots(container)
    time.sleep(seconds)
    return boots(container) - before


@pytest.mark.row(49)
def test_a_guest_that_reboots_without_end_is_started_less_often() -> None:
    config = python_configuration(REBOOTS, exec={**NESTED, "on_reboot": "restart"})
    with start(config) as container:
        deadline = time.monotonic() + 60
        while boots(container) < 128 or boots_within(3, container) > 4:
            assert time.monotonic() < deadline, boots(container)
        spent = processor_time(container)
        assert boots_within(6, container) <= 8
        assert processor_time(container) - spent < 1
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)  # and a request does not wait for the next start
        assert container.wait(5).status == POWEROFF_DEATH
        assert time.monotonic() - began < 1.5


NOTIFIES = """
import array, socket
for _ in range(3):
    if os.fork() == 0:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.connect("/run/host/notify")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))]
        while True:
            try:
                ours.sendmsg([b"READY=1\\nX=" + b"x" * 4000], rights)
            except OSError:
                pass
say("up", "yes")
def ready(*_):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(b"READY=1", "/run/host/notify")
signal.signal(signal.SIGUSR1, ready)
signal.signal(signal.SIGRTMIN + 4, lambda *_: os._exit(5))
while True:
    signal.pause()
"""


@pytest.mark.row(50)
def test_a_flood_of_notifications_costs_little_and_hides_nothing(tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    with open(f"{guest}/attack.py", "w", encoding="utf-8") as file:
        file.write(PRELUDE + NOTIFIES)
    with open(f"{guest}/systemd", "w", encoding="utf-8") as file:
        file.write("#!/usr/bin/python3 /attack.py\n")
        os.fchmod(file.fileno(), 0o755)
    config = python_configuration("", exec={**NESTED, "command": ["/systemd"]})
    with start(config, guest=guest) as container:
        container.expect("^up", 20)
        time.sleep(2)
        pid = container.pid1()
        spent, open_files = processor_time(container), len(os.listdir(f"/proc/{pid}/fd"))
        time.sleep(4)
        assert processor_time(container) - spent < 0.6
        assert len(os.listdir(f"/proc/{pid}/fd")) <= open_files
        assert "the guest is ready" not in container.console().decode()  # whoever else says so
        os.kill(container.guest_pid1(), signal.SIGUSR1)
        container.expect("the guest is ready", 10)
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        container.wait(10)
        assert time.monotonic() - began < 5
