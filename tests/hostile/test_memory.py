"""Row 38: many small processes use up the memory; each of them is smaller than PID 1."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lcinit.boot import oom
from lcinit.boot.world import World
from lcinit.linux.capabilities import has_capability
from lcinit.supervisor.oom_score import SPARED
from tests.guests.test_nested import POWEROFF_DEATH
from tests.hostile.attacker import attack
from tests.hostile.attempt import BOTH_LOOPS, configuration, start
from tests.hostile.test_supervisor import limited, put
from tests.services.bare import Bare, sh

NESTED = {"mode": "tolerant"}
MANY = """
trap '' TERM
echo up
while [ ! -e /sys/fs/cgroup/go ]; do :; done
n=0
while [ $n -lt 4000 ]; do sleep 1000 & n=$((n + 1)); done
wait
"""


def killed(directory: str) -> int:
    with open(f"{directory}/memory.oom_control", encoding="utf-8") as file:
        return int(dict(line.split() for line in file)["oom_kill"])


def nobody_is_spared(loop: str) -> None:
    """Where PID 1 may not raise itself above others it says so, and runs as it was given."""
    with start(
        configuration("echo up; read never", exec=NESTED, log={"level": "debug"}), env={"LCINIT_EVENT_LOOP": loop}
    ) as container:
        container.expect("^up", 20)
        assert "not spared when memory runs out" in container.console().decode()
        scores = [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in ("self", container.pid1())]
        assert scores[0] == scores[1]


@pytest.mark.row(38)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_beside_services_pid_1_alone_is_spared(loop: str) -> None:
    given = int(Path("/proc/self/oom_score_adj").read_text())
    spared = min(given, SPARED) if has_capability("sys_resource") else given
    services = {"one": sh("exec sleep 1000"), "other": sh("exec sleep 1000", oom_score_adj=given + 50)}
    with Bare(services, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        pids = (1, *(guest.up(name)["pid"] for name in services))
        scores = [int(guest.run("cat", f"/proc/{pid}/oom_score_adj")) for pid in pids]
        assert scores == [spared, given, given + 50]


@pytest.mark.row(38)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_pid_1_outlives_many_small_processes_that_use_up_the_memory(loop: str) -> None:
    if not has_capability("sys_resource"):
        nobody_is_spared(loop)  # all that can be had here
        return
    with start(
        configuration(MANY, exec={**NESTED, "on_exit": "restart"}), env={"LCINIT_EVENT_LOOP": loop}
    ) as container:
        container.expect("^up", 20)
        time.sleep(0.5)
        pid = container.pid1()
        with limited(container, "memory") as directory:
            put(directory, "memory.limit_in_bytes", 64 << 20)
            cgroup = next(entry.path for entry in os.scandir(f"{container.cgroup}/payload") if entry.is_dir())
            os.mkdir(f"{cgroup}/go")
            deadline = time.monotonic() + 60
            while not killed(directory):
                assert time.monotonic() < deadline, "the memory was enough"
                time.sleep(0.05)
            time.sleep(1)
            assert container.running(), f"PID 1 was killed: {killed(directory)}"
            assert container.pid1() == pid
            os.kill(pid, signal.SIGRTMIN + 14)
            assert container.wait(20).status == POWEROFF_DEATH


@pytest.mark.row(38)
@pytest.mark.parametrize("mapped", [True, False])
def test_the_guest_is_not_spared_and_cannot_spare_itself_beyond_what_pid_1_was_given(mapped: bool) -> None:
    script = """
with open("/proc/self/oom_score_adj") as file:
    say("given", file.read().strip())
def spare():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-500")
attempt("spare", spare)
"""
    result = attack(script, mapped=mapped, keys={"exec": NESTED, "capabilities": {"drop": ["sys_resource"]}})
    with open("/proc/self/oom_score_adj", encoding="utf-8") as file:
        assert result.said("given") == [file.read().strip()], result
    assert result.said("spare") == ["EACCES"], result


@pytest.mark.parametrize(("given", "spared"), [("0", "-900"), ("1000", "-900"), ("-950", "-950")])
def test_what_pid_1_was_given_comes_back(
    given: str, spared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "oom_score_adj"
    file.write_text(f"{given}\n")
    monkeypatch.setattr(oom, "_FILE", str(file))
    world = World.__new__(World)
    world.oom_score_adj = None
    oom.spare(world)
    assert file.read_text().split()[0][: len(spared)] == spared
    oom.give_back(world)
    assert int(file.read_text().split()[0][: len(given)]) == int(given)
