"""Row 34 for services that have no cgroups of their own, and for one that has a limit of processes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS, outcome
from tests.hostile.test_supervisor import limited, put
from tests.services.bare import Bare, sh
from tests.services.looking import none_left, running
from tests.services.rig import wait_until
from tests.services.test_supervision_alone import Alone

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

STAY = "exec sleep 1000"
ROOM = 150  # processes of the bomb's user: the machine's protection, against which the bomb goes on
# Whoever is asked to end does not. With setpgid each process has a group of its own, with setsid a session: then no way
# leads to it from the service once its parent has ended.
BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            {leaves}
    except OSError:
        time.sleep(0.1)
"""


def answers(guest: Bare, within: float = 10.0) -> None:
    """PID 1 is not held up."""
    began = time.monotonic()
    guest.services()
    assert time.monotonic() - began < within, guest.console()


def bomb(*, leaves: str = "pass", **keys: Any) -> dict[str, Any]:
    """A service that is one, of a user who may have so many processes and no more."""
    words = ["/usr/bin/python3", "-ISc", BOMB.format(leaves=leaves)]
    own = {"user": "nobody", "limits": {"nproc": ROOM}, "runlevels": 5, "log": "none", "restart": "no"}
    return {"command": words, "stop_timeout": 0.5, **own, **keys}


def goes_off(guest: Bare, least: int = 50) -> None:
    guest.call("Start", names=["bomb"])
    wait_until(lambda: len(running(guest, "SIG_IGN")) > least, "a bomb", guest)
    time.sleep(0.5)


def killed_and_again(guest: Bare, name: str) -> None:
    """Somebody else's restart is none of the bomb's."""
    before = guest.service(name)
    guest.call("Kill", name=name, signal="SIGKILL")
    guest.awaited(
        name, lambda state: state["sub"] == "running" and state["pid"] not in (None, before["pid"]), "up again"
    )


@pytest.mark.row(34)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("how", ["Stop", "Kill"])
@pytest.mark.parametrize("leaves", ["pass", "os.setpgid(0, 0)"], ids=["one group", "many groups"])
def test_a_fork_bomb_without_cgroups_is_stopped_and_killed(leaves: str, how: str, loop: str) -> None:
    services = {"bomb": bomb(leaves=leaves), "other": sh(STAY, restart="always")}
    with Alone(services, env={"LCINIT_EVENT_LOOP": loop}, shutdown={"timeout": "2s"}) as guest:
        guest.up("other")
        goes_off(guest)
        assert guest.service("bomb")["cgroup"] is None
        answers(guest)
        killed_and_again(guest, "other")
        began = time.monotonic()
        if how == "Stop":
            guest.call("Stop", names=["bomb"])
        else:
            guest.call("Kill", name="bomb", signal="SIGKILL", whom="all")
        none_left(guest, "SIG_IGN", 10)
        assert time.monotonic() - began < 15
        answers(guest)
        assert guest.service("bomb")["sub"] == "failed"
        assert guest.service("other")["sub"] == "running"


@pytest.mark.row(34)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_fork_bomb_that_leaves_its_service_ends_with_the_container(loop: str) -> None:
    """Nothing tells whose it is where there are no cgroups; but others go on, and lcinit's own end is the bomb's."""
    services = {"bomb": bomb(leaves="os.setsid()"), "other": sh(STAY, restart="always")}
    with Alone(services, env={"LCINIT_EVENT_LOOP": loop}, shutdown={"timeout": "2s"}) as guest:
        guest.up("other")
        goes_off(guest)
        answers(guest)
        killed_and_again(guest, "other")
        guest.call("Stop", names=["bomb"])
        assert guest.service("bomb")["pid"] is None
        answers(guest)
        killed_and_again(guest, "other")
        began = time.monotonic()
        os.kill(guest.pid1, signal.SIGTERM)
        result = outcome(guest.container, 30)
        assert time.monotonic() - began < 20
    assert "unexpected" not in str(result), result


@pytest.mark.row(34)
def test_a_fork_bomb_without_cgroups_that_has_taken_every_process_is_stopped_and_others_come_again() -> None:
    services = {"bomb": bomb(), "other": sh(STAY, restart="always")}
    with Alone(services) as guest:
        first = guest.up("other")["pid"]
        goes_off(guest, 10)
        with limited(guest.container, "pids") as directory:
            put(directory, "pids.max", 20)  # fewer than there are
            answers(guest)
            guest.call("Kill", name="other", signal="SIGKILL")
            answers(guest)
            assert guest.service("other")["sub"] != "running"
            guest.call("Stop", names=["bomb"])
            none_left(guest, "SIG_IGN", 10)
            state = guest.awaited("other", lambda state: state["sub"] == "running", "up again", 20)
            assert state["pid"] != first and state["restarts"] >= 1
            answers(guest)
