"""`lcinit run` with whole guests: their own init as PID 1, as root and as an ordinary user."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.guests import run_rig
from tests.guests.run_rig import GUEST, MAPS, Launcher, processes_with
from tests.lab import guests
from tests.lab.container import cgroup2_mount, kill_cgroup, remove_cgroup
from tests.namespace.isolated import needs_root, run_isolated
from tests.namespace.ordinary import NAME, UID, needs_newuidmap, needs_system_python

pytestmark = [needs_root, needs_system_python, needs_newuidmap]

AS = pytest.mark.parametrize("user", [0, UID], ids=["root", "ordinary"])
SUBUID = f"{NAME}:200000:65536\n"


def isolated(guest: str, body: object) -> None:
    guests.guest(guest)  # built out here, where there is a network
    run_isolated(body, pid=True, timeout=90)  # type: ignore[arg-type]


def words(user: int, *rest: str, name: str = "run") -> list[str]:
    return [name, *(() if user else MAPS), *rest]


@AS
@pytest.mark.parametrize("name", ["run", "contain"])
def test_a_guest_runit_boots_as_in_the_article_and_is_stopped_by_a_signal(user: int, name: str) -> None:
    def body() -> None:
        run_rig.prepare("runit", owner=user, subuid=SUBUID)
        with Launcher(words(user, "-n", GUEST, "/sbin/init", name=name), user=user, terminal=True) as launcher:
            text = launcher.expect("runit is up", 30)
            assert "runit: enter stage: /etc/runit/2" in text
            launcher.process.send_signal(signal.SIGTERM)
            text = launcher.expect("enter stage: /etc/runit/3", 30)
            assert launcher.wait(30) == 0
        assert processes_with("runsv") == []

    isolated("runit", body)


@AS
def test_a_guest_runit_keeps_the_launchers_streams_with_c(user: int) -> None:
    def body() -> None:
        run_rig.prepare("runit", owner=user, subuid=SUBUID)
        with Launcher(words(user, "-c", GUEST, "/sbin/init"), user=user) as launcher:
            text = launcher.expect("enter stage: /etc/runit/2", 30)
            assert "\r" not in text, "a terminal would have written one"
            time.sleep(0.5)  # runit hears nothing before its second stage runs
            launcher.process.send_signal(signal.SIGTERM)
            assert launcher.wait(30) == 0

    isolated("runit", body)


@pytest.fixture
def delegated() -> Iterator[str]:
    """A cgroup that was delegated to the ordinary user, as a service manager does it."""
    directory = os.path.join(cgroup2_mount(), f"lcinit-run-{os.getpid()}")
    os.mkdir(directory)
    try:
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(os.path.join(directory, name), UID, UID)
        yield directory
    finally:
        kill_cgroup(directory)
        remove_cgroup(directory)


@AS
def test_a_guest_systemd_comes_up_and_is_powered_off(user: int, delegated: str) -> None:
    def body() -> None:
        with open(f"{delegated}/cgroup.procs", "w", encoding="utf-8") as file:
            file.write("0")
        run_rig.prepare("systemd252", owner=user, subuid=SUBUID)
        with Launcher(words(user, GUEST, "/sbin/init"), user=user, terminal=True) as launcher:
            launcher.expect("Multi-User System", 40)
            launcher.process.send_signal(signal.SIGTERM)
            assert launcher.wait(40) == 0
        assert [each.name for each in os.scandir(delegated) if each.is_dir()] == [], "its cgroup is gone"

    isolated("systemd252", body)


@AS
def test_a_reboot_from_inside_starts_the_guest_again(user: int) -> None:
    def body() -> None:
        run_rig.prepare("busybox", owner=user, subuid=SUBUID)
        script = "#!/bin/sh\necho boot >>/boots\necho boots $(wc -l </boots)\n[ $(wc -l </boots) -ge 2 ] || reboot\n"
        with open(f"{GUEST}/etc/rc", "w", encoding="utf-8") as file:
            file.write(script)
        with Launcher(words(user, GUEST, "/sbin/init"), user=user) as launcher:
            launcher.expect("boots 2", 30)
            launcher.process.send_signal(signal.SIGTERM)
            assert launcher.wait(30) == 0
        assert not os.path.exists("/run/lcinit/control"), "the machine's /run is not lcinit run's"

    isolated("busybox", body)
