"""Row 48: trees of cgroups that a guest makes in its own, deeper and wider than anybody who walks them would like."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lcinit.boot import cgroup_tree
from tests.hostile.attacker import python_configuration
from tests.hostile.attempt import start
from tests.lab.container import Container, kill_cgroup

# With id map the limits are the outer root's; without one the guest lifts them first, and the walk alone must do.
FOREST = """
import time
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
os.chdir("/sys/fs/cgroup")
for name in ("cgroup.max.depth", "cgroup.max.descendants"):
    def lift():
        with open(name, "w") as file:
            file.write("max")
    attempt(name, lift)
made = 0
try:
    for made in range(5000):
        os.mkdir(f"wide-{made} \\xff")
except OSError as error:
    say("wide", errno.errorcode[error.errno])
for each in range(100, made):
    os.rmdir(f"wide-{each} \\xff")
try:
    for made in range(1200):
        os.mkdir("deep" * 50)
        os.chdir("deep" * 50)
except OSError as error:
    say("deep", errno.errorcode[error.errno])
say("made", made)
while True:
    time.sleep(1)
"""


@contextmanager
def cleared(container: Container) -> Iterator[None]:
    """Where lcinit leaves a forest the lab cannot take it away, because it does so by path."""
    try:
        yield
    finally:
        kill_cgroup(container.cgroup)
        directory = os.open(container.cgroup, os.O_RDONLY)
        try:
            for _ in cgroup_tree.removal(directory):
                pass
        finally:
            os.close(directory)


def cgroups_below(container: Container) -> int:
    """What is left of the guest's; the names alone, because the way down may be too long for a path."""
    return sum(name.startswith("lcinit-") for _, names, _ in os.walk(container.cgroup) for name in names)


@pytest.mark.row(48)
@pytest.mark.parametrize("mapped", [True, False])
def test_a_forest_of_cgroups_keeps_nobody_from_removing_it(mapped: bool) -> None:
    config = python_configuration(FOREST, mapped=mapped, exec={"mode": "tolerant"})
    with start(config) as container, cleared(container):
        made = int(container.expect(r"^made: (\d+)", 60).group(1))
        text = container.console().decode()
        assert ("wide: EAGAIN" in text) is mapped, text
        assert ("deep: EAGAIN" in text) is mapped, text
        assert (made < 100) is mapped
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        assert container.wait(20).status == 5
        took = time.monotonic() - began
        text = container.console().decode()
        left = cgroups_below(container)
    assert "unexpected" not in text and "cgroups of the guest are left" not in text, text
    assert left == 0
    assert took < 5, took


@pytest.mark.row(48)
def test_a_guest_in_the_depth_is_waited_for_and_killed_all_the_same() -> None:
    deep = FOREST.replace(
        "while True:", 'os.write(os.open("cgroup.procs", os.O_WRONLY), b"0")\nsay("inside", "yes")\nwhile True:'
    )
    config = python_configuration(deep, mapped=False, exec={"mode": "tolerant"}, shutdown={"timeout": "30s"})
    config = config.replace("os._exit(5))", "None)")  # it hears and stays, so that its company is told of
    with start(config) as container, cleared(container):
        container.expect("^inside", 60)
        os.kill(container.pid1(), signal.SIGTERM)
        container.expect(r"waiting for the guest's command and at least|waiting for the guest's command, \d", 10)
        os.kill(container.pid1(), signal.SIGRTMIN + 14)
        container.wait(10)
        text = container.console().decode()
    assert "unexpected" not in text, text
