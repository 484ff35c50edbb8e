"""Rows 49 and 50: a guest that does a small thing again and again, so that PID 1 has no time for anything else."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from tests.guests.test_nested import POWEROFF_DEATH
from tests.hostile.attacker import python_configuration
from tests.hostile.attempt import start
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
    with open(f"/proc/{container.pid1()}/stat", encoding="ascii") as file:
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
