"""Requests, deaths, runlevels and reloads in any order, many at once: whatever comes, all settles, and it ends."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import pytest

from lcinit.errors import LcinitError
from tests.hostile.attempt import outcome
from tests.services.bare import Bare, sh
from tests.services.looking import running

SETTLED = {"running", "exited", "dead", "failed"}
STEPS = 150
COUNT = 16
KINDS: list[dict[str, Any]] = [
    sh("exec sleep 1000", restart="always"),
    sh("sleep 0.05; echo >&3; exec 3>&-; exec sleep 1000", type="notify-fd"),
    sh("trap 'sleep 0.05; exit 0' TERM; echo >&3; while :; do sleep 0.01; done", type="notify-fd"),
    sh("trap '' TERM; while :; do sleep 0.01; done", stop_timeout=0.1),
    sh("sleep 0.03", type="oneshot"),
    sh("sleep 0.03", type="oneshot", remain_after_exit=False),
    sh("exec sleep 1000", start_pre="sleep 0.02", start_post="sleep 0.02", stop="sleep 0.02", stop_post="sleep 0.02"),
    sh("sleep 0.1; exit 1", restart_delay=0.01, start_limit_burst=3),
]


def services_of(chance: random.Random) -> dict[str, dict[str, Any]]:
    """Each depends on some that come before it in the alphabet, so that there are no circles."""
    services = {}
    for n in range(COUNT):
        earlier = [f"s{m:02}" for m in range(n)]
        service = dict(chance.choice(KINDS))
        for key in ("requires", "wants", "start_after"):
            service[key] = chance.sample(earlier, min(len(earlier), chance.choice((0, 0, 1, 2))))
        service["runlevels"] = chance.choice((["S"], [2, 3], [3], [2], [2, 3, 4, 5]))
        services[f"s{n:02}"] = service
    return services


def step(guest: Bare, chance: random.Random) -> None:
    """Something that somebody asks for, without waiting for what comes of it."""
    names = [f"s{n:02}" for n in chance.sample(range(COUNT), chance.choice((1, 1, 2, 5)))]
    what = chance.choice(("Start", "Stop", "Restart", "Start", "Kill", "Kill", "SetRunlevel", "DaemonReload", "Reset"))
    with guest.client() as client:
        if what == "Kill":
            number = chance.choice(("SIGKILL", "SIGTERM", "SIGSEGV", "SIGSTOP", "SIGCONT"))
            client.call("io.lcinit.Services.Kill", name=names[0], signal=number, whom=chance.choice(("main", "all")))
        elif what == "SetRunlevel":
            client.call("io.lcinit.Services.SetRunlevel", runlevel=chance.choice("2345"))
        elif what == "DaemonReload":
            os.kill(guest.pid1, signal.SIGHUP)
        elif what == "Reset":
            client.call("io.lcinit.Services.ResetFailed")
        else:
            client.call(f"io.lcinit.Services.{what}", names=names, wait=False)
    if chance.random() < 0.3:
        time.sleep(chance.random() * 0.1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_is_asked_for_all_settles_and_ends(seed: int) -> None:
    chance = random.Random(seed)
    with Bare(services_of(chance), serves=True, shutdown={"timeout": "20s"}) as guest:
        for _ in range(STEPS):
            step(guest, chance)
        # whoever was stopped by SIGSTOP goes on
        for name in guest.services():
            guest.call("Kill", name=name, signal="SIGCONT", whom="all")
        deadline = time.monotonic() + 15
        while wrong := [s for s in guest.services().values() if s["sub"] not in SETTLED]:
            assert time.monotonic() < deadline, (wrong, guest.console())
            time.sleep(0.05)
        found = guest.services()
        for name, state in found.items():
            assert (state["pid"] is not None) == (state["sub"] == "running"), state
            if state["sub"] == "running":
                for other in state["requires"]:
                    oneshot = found[other]["type"] == "oneshot" and found[other]["result"] == "success"
                    assert found[other]["sub"] in ("running", "exited") or oneshot, (name, state, found[other])
        stopped = guest.call("Stop", names=list(found))["done"]
        up = [state for state in guest.services().values() if state["sub"] not in ("dead", "failed")]
        assert not up, (up, stopped, guest.console())
        left = running(guest, "sleep")
        assert left == [], left
        guest.call("ResetFailed")
        with pytest.raises(LcinitError):
            guest.call("Start", names=["nobody"])
        guest.call("SetRunlevel", runlevel="3")
        began = time.monotonic()
        guest.lcinit("poweroff")
        result = outcome(guest.container, 25)
        assert time.monotonic() - began < 8, result
    assert "unexpected" not in str(result) and "killing what" not in str(result), result
