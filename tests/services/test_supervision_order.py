"""The way up and the way down of services together: side by side, dependencies that fail, one deadline for all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lcinit.errors import LcinitError
from tests.hostile.attempt import outcome
from tests.services.bare import Bare, sh

STAY = "exec sleep 1000"
DEAF = "trap '' TERM; echo >&3; while :; do sleep 0.05; done"


def ready(seconds: float, **keys: Any) -> dict[str, Any]:
    """A service that takes so long until it is ready."""
    return sh(f"sleep {seconds}; echo >&3; exec 3>&-; {STAY}", type="notify-fd", **keys)


def facts(guest: Bare, kind: str, service: str) -> list[dict[str, Any]]:
    """The events of a kind that a service had."""
    with guest.client() as client:
        events = client.call("Events")["events"]
    return [each for each in events if each["kind"] == kind and each["facts"].get("service") == service]


def test_those_that_do_not_need_one_another_come_up_side_by_side() -> None:
    """Two chains of three, half a second each: 1.5 s, and not three."""
    chains = {f"{chain}{n}": (chain, n) for chain in "ab" for n in range(3)}
    services = {
        name: ready(0.5, **({"requires": f"{chain}{n - 1}"} if n else {})) for name, (chain, n) in chains.items()
    }
    with Bare(services, serves=True) as guest:
        guest.up("a2")
        guest.up("b2")
        events = guest.events()
        began = [facts(guest, "service-starting", name)[0]["time"] for name in ("a0", "b0")]
        assert abs(began[0] - began[1]) < 0.3
        last = max(facts(guest, "service-started", name)[0]["time"] for name in ("a2", "b2"))
        assert last - min(began) < 2.5
    for chain in "ab":
        for n in range(2):
            up = events.index(("service-started", f"{chain}{n}"))
            assert up < events.index(("service-starting", f"{chain}{n + 1}")), events


def test_who_requires_what_fails_to_start_never_starts_and_others_do_not_care() -> None:
    services = {
        "bad": sh("sleep 0.2; exit 4", type="oneshot", restart="no"),
        "needs": sh(STAY, requires="bad"),
        "needs-that": sh(STAY, requires="needs"),
        "wants": sh(STAY, wants="bad"),
        "after": sh(STAY, start_after="bad"),
    }
    with Bare(services) as guest:
        guest.up("wants")
        guest.up("after")
        found = guest.services()
        for name, missing in (("needs", "bad"), ("needs-that", "needs")):
            assert found[name]["sub"] == "failed" and found[name]["result"] == "dependency", found[name]
            assert found[name]["reason"] == f"it requires {missing}, which has failed"
            assert found[name]["status"] is None and not facts(guest, "service-starting", name)
        assert (found["bad"]["result"], found["bad"]["status"]) == ("exit-code", 4)


def test_a_requirement_that_is_lost_later_takes_its_dependents_down_in_order() -> None:
    services = {
        "base": sh(STAY, restart="no"),
        "middle": sh(STAY, requires="base"),
        "top": sh(STAY, requires="middle"),
        "beside": sh(STAY, wants="base"),
    }
    with Bare(services) as guest:
        pid = {name: guest.up(name)["pid"] for name in services}
        assert guest.call("Kill", name="base", signal="SIGKILL")["signalled"] == 1
        for name in ("top", "middle"):
            state = guest.awaited(name, lambda state: state["sub"] in ("failed", "dead"), "down")
            assert state["result"] == "dependency" and "base, which has failed" in state["reason"], state
        events = guest.events()
        assert events.index(("service-failed", "top")) < events.index(("service-failed", "middle"))
        assert guest.service("beside")["pid"] == pid["beside"]
        assert guest.service("base")["signal"] == "SIGKILL"


def test_a_requirement_that_comes_again_by_itself_takes_nobody_down() -> None:
    with Bare({"base": sh(STAY, restart="always"), "top": sh(STAY, requires="base")}) as guest:
        before = {name: guest.up(name)["pid"] for name in ("base", "top")}
        guest.call("Kill", name="base", signal="SIGKILL")
        guest.awaited("base", lambda s: s["sub"] == "running" and s["pid"] != before["base"], "up again")
        assert guest.service("top")["pid"] == before["top"]


def test_one_deadline_bounds_them_all_and_what_is_waited_for_is_said() -> None:
    services = {
        "deaf": sh(DEAF, type="notify-fd", stop_timeout="1h"),
        "deaf-too": sh(DEAF, type="notify-fd", stop_timeout="1h", start_after="deaf"),
        "good": sh(STAY),
    }
    with Bare(services, shutdown={"timeout": "6s"}) as guest:
        guest.up("deaf-too")
        began = time.monotonic()
        assert guest.lcinit("poweroff").returncode == 0
        result = outcome(guest.container, 15)
        took = time.monotonic() - began
    assert 5.5 < took < 8.5, (took, str(result))  # both together, not one after the other
    said = [line.removeprefix("lcinit: ") for line in result.lines]
    assert any(line.startswith("waiting for deaf, deaf-too; 1 s left") for line in said), result
    assert "warning: killing what has not stopped within 6 s: deaf, deaf-too" in said, result
    assert "good is down" in said, result


def test_one_at_once_kills_and_a_second_word_counts() -> None:
    services = {"deaf": sh(DEAF, type="notify-fd", stop_timeout="1h")}
    with Bare(services, exec={"on_reboot": "exit"}) as guest:
        guest.up("deaf")
        guest.lcinit("poweroff")
        time.sleep(0.3)
        assert guest.container.running()
        began = time.monotonic()
        guest.lcinit("reboot", "--now")
        result = outcome(guest.container, 5)
        assert time.monotonic() - began < 3
    assert any("poweroff, asked for by" in line for line in result.lines), result


def test_a_start_while_it_stops_brings_it_up_again() -> None:
    slow = "trap 'sleep 0.4; exit 0' TERM; echo >&3; while :; do sleep 0.02; done"
    with Bare({"a": sh(slow, type="notify-fd")}) as guest:
        first = guest.up("a")["pid"]
        with guest.client() as client:
            client.call("io.lcinit.Services.Stop", names=["a"], wait=False)
            assert guest.service("a")["sub"] == "stop-sigterm"
            assert client.call("io.lcinit.Services.Start", names=["a"])["done"][0]["ok"]
        again = guest.service("a")
        assert again["sub"] == "running" and again["pid"] not in (None, first), again


def test_one_that_is_stopped_while_it_comes_up_or_waits_does_not_come() -> None:
    services = {"slow": ready(1000), "waits": sh(STAY, start_after="slow"), "again": sh("exit 1", restart_delay=50)}
    with Bare(services) as guest:
        guest.awaited("slow", lambda state: state["sub"] == "start" and state["pid"], "starting")
        guest.awaited("again", lambda state: state["sub"] == "auto-restart", "waiting for its restart")
        waiting = guest.service("waits")
        assert (waiting["sub"], waiting["waits_for"], waiting["reason"]) == ("waiting", ["slow"], "waits for slow")
        for name in ("waits", "slow", "again"):
            began = time.monotonic()
            assert guest.call("Stop", names=[name])["done"][0]["name"] == name
            assert time.monotonic() - began < 2
        found = guest.services()
        assert {found[name]["state"] for name in services} <= {"inactive", "failed"}
        time.sleep(0.3)
        assert {name: state["pid"] for name, state in guest.services().items()} == dict.fromkeys(services)


def test_a_oneshot_counts_as_up_or_is_done() -> None:
    services = {
        "stays": sh("exit 0", type="oneshot"),
        "goes": sh("exit 0", type="oneshot", remain_after_exit=False),
        "user": sh(STAY, requires=["stays", "goes"]),
    }
    with Bare(services) as guest:
        guest.up("user")
        found = guest.services()
        assert (found["stays"]["state"], found["stays"]["sub"]) == ("active", "exited")
        assert (found["goes"]["state"], found["goes"]["sub"], found["goes"]["result"]) == (
            "inactive",
            "dead",
            "success",
        )
        assert guest.asked("Start", "goes")[0]["ok"]  # again, to its end
        assert len(facts(guest, "service-starting", "goes")) == 2
        guest.asked("Start", "stays")  # it is up
        assert len(facts(guest, "service-starting", "stays")) == 1


def test_the_command_is_essential_and_comes_again_where_it_is_to() -> None:
    script = "echo began; sleep 0.1; exit 3"
    with Bare({"a": sh(STAY)}, exec={"command": ["/bin/sh", "-c", script], "on_exit": "restart"}) as guest:
        place = 0
        for _ in range(3):
            place = guest.container.expect("^began", start=place).end()
        assert guest.service("a")["sub"] == "running"
        guest.lcinit("poweroff")
        outcome(guest.container)


def test_nothing_is_started_while_lcinit_ends() -> None:
    with Bare({"deaf": sh(DEAF, type="notify-fd", stop_timeout="1h"), "a": sh(STAY)}) as guest:
        guest.up("deaf")
        guest.lcinit("poweroff")
        guest.awaited("a", lambda state: state["sub"] == "dead", "down")
        for method in ("Start", "Restart"):
            with pytest.raises(LcinitError, match="lcinit stops"):
                guest.call(method, names=["a"])
        refused = guest.lcinit("start", "a")
        assert refused.returncode == 69 and "lcinit stops" in refused.stderr, refused
        with pytest.raises(LcinitError, match="lcinit stops"):
            guest.call("SetRunlevel", runlevel="2")
        assert guest.service("a")["pid"] is None


@pytest.mark.parametrize("how", ["stop", "poweroff"])
@pytest.mark.parametrize("delay", [0, 0.2])
def test_one_that_ends_before_its_turn_to_stop_does_not_come_again(how: str, delay: float) -> None:
    """It has to wait for those that start after it, and would be restarted if nobody had asked."""
    slow = "trap 'sleep 0.6; exit 0' TERM; echo >&3; exec 3>&-; while :; do sleep 0.02; done"
    services = {
        "base": sh(STAY, restart="always", restart_delay=delay),
        "top": sh(slow, type="notify-fd", start_after="base"),
    }
    with Bare(services, shutdown={"timeout": "20s"}) as guest:
        guest.up("top")
        for _ in range(2 if delay else 0):  # the first restart is immediate
            pid = guest.up("base")["pid"]
            guest.call("Kill", name="base", signal="SIGKILL")
            guest.awaited("base", lambda state, pid=pid: state["pid"] not in (None, pid), "again")
        count = len(facts(guest, "service-starting", "base"))
        began = time.monotonic()
        if how == "stop":
            with guest.client() as client:
                client.call("io.lcinit.Services.Stop", names=["base", "top"], wait=False)
        else:
            guest.lcinit("poweroff")
        guest.call("Kill", name="base", signal="SIGKILL")
        if how == "stop":
            guest.awaited("top", lambda state: state["sub"] == "dead", "down")
            time.sleep(2 * delay)
            assert guest.service("base")["pid"] is None, guest.service("base")
            assert len(facts(guest, "service-starting", "base")) == count
            guest.asked("Start", "base")
        else:
            result = outcome(guest.container)
            assert time.monotonic() - began < 3, result
            assert str(result).count("base is up") == count, result
