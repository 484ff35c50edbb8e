"""`lcinit reexec`: another lcinit, the same guest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.container import Container

CONFIG = """\
id_map: {users: 0 1000000 65536}
root: {path: /mnt/root, id_map: true}
initctl: true
exec:
  mode: tolerant
  command: [/bin/sh, -c, 'n=0; trap "exit 7" TERM; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done']
"""
SITE = "/usr/lib/lcinit/site/lcinit"


@pytest.fixture
def running(boot_root: str, guest_copy: Callable[..., str], container: Callable[..., Container]) -> Container:
    started = container("unshare").start(boot_root, guest_root=guest_copy("plain"), config=CONFIG)
    started.expect("tick 2", 20)
    _until(lambda: started.run("lcinit", "status").returncode == 0)
    return started


def _until(true: Callable[[], bool], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def status(container: Container) -> dict[str, Any]:
    answer = container.run("lcinit", "status", "--json")
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def reexecuted(container: Container) -> int:
    answer = container.run("lcinit", "events", "--json")
    return answer.stdout.count('"reexecuted"')


def reexec(container: Container) -> None:
    before = reexecuted(container)
    asked = container.run("lcinit", "reexec")
    assert asked.returncode == 0, asked.stderr
    _until(lambda: reexecuted(container) == before + 1)


def test_the_guest_goes_on_and_its_state_is_known(running: Container) -> None:
    before, pid1 = status(running), running.pid1()
    guest = running.guest_pid1()
    with open(f"/proc/{pid1}/stat", encoding="utf-8") as file:
        started = file.read().rsplit(") ", 1)[1].split()[19]
    reexec(running)
    after = status(running)
    assert running.pid1() == pid1
    assert running.guest_pid1() == guest
    with open(f"/proc/{pid1}/stat", encoding="utf-8") as file:
        assert file.read().rsplit(") ", 1)[1].split()[19] == started
    assert after["guest"]["pid"] == before["guest"]["pid"]
    assert after["guest"]["uptime"] > before["guest"]["uptime"]
    assert (after["starts"], after["state"], after["since"]) == (1, "running", before["since"])
    # its console is still relayed, and a stop still ends it with its own code
    running.expect(r"tick \d+", 5, start=len(running.console()))
    assert running.run("lcinit", "poweroff").returncode == 0
    assert running.wait(20).status == 7


def test_descriptors_and_processes_stay_as_many(running: Container) -> None:
    reexec(running)
    pid1 = running.pid1()
    before = len(os.listdir(f"/proc/{pid1}/fd"))
    for _ in range(5):
        reexec(running)
    assert len(os.listdir(f"/proc/{pid1}/fd")) == before
    with open(f"/proc/{pid1}/task/{pid1}/children", encoding="utf-8") as file:
        assert file.read().split() == [str(running.guest_pid1())]


def test_a_broken_configuration_is_refused_and_nothing_changes(running: Container) -> None:
    path = os.path.join(running.directory, "init.yml")
    with open(path, "a", encoding="utf-8") as file:
        file.write("no_such_key: 1\n")
    assert running.run("lcinit", "reexec").returncode == 0
    running.expect("cannot take over", 20)
    assert "no_such_key" in running.console().decode()
    assert status(running)["guest"]["pid"] > 0
    assert reexecuted(running) == 0


def test_a_broken_installation_is_refused_and_nothing_changes(running: Container) -> None:
    # the boot root's compiled files are not compared with their sources
    write = f"rm -r {SITE}/guest/__pycache__; echo 'raise RuntimeError(\"half installed\")' > {SITE}/guest/console.py"
    broken = running.run("sh", "-c", write)
    assert broken.returncode == 0, broken.stderr
    assert running.run("lcinit", "reexec").returncode == 0
    running.expect("cannot take over", 20)
    assert "half installed" in running.console().decode()
    assert status(running)["guest"]["pid"] > 0


def test_a_changed_configuration_is_taken_up(running: Container) -> None:
    path = os.path.join(running.directory, "init.yml")
    with open(path, "a", encoding="utf-8") as file:
        file.write("shutdown: {timeout: 3}\n")
    reexec(running)
    plan = json.loads(running.run("lcinit", "plan", "--json").stdout)
    assert plan["supervision"]["timeout"] == 3
    # and the next start of the guest is made from it
    assert running.run("lcinit", "restart").returncode == 0
    _until(lambda: status(running)["starts"] == 2)


def test_a_guest_that_ends_during_the_reexec_is_not_missed(running: Container) -> None:
    guest = running.guest_pid1()
    assert running.run("lcinit", "reexec").returncode == 0
    os.kill(guest, 9)
    assert running.wait(20).status == 137
