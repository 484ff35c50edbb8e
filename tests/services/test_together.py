"""Services together: order, what is lost with what, runlevels, files that change."""

from __future__ import annotations

import os
import time

import pytest

from tests.hostile.attempt import outcome
from tests.services.bare import Bare, sh

STAY = "exec sleep 1000"
SLOW = "sleep 0.2; echo >&3; exec sleep 1000"


def order_of(events: list[tuple[str, object]], kind: str) -> list[object]:
    return [service for each, service in events if each == kind]


def test_they_start_in_order_and_stop_in_reverse() -> None:
    services = {
        "app": sh(STAY, requires="db", wants="cache"),
        "db": sh(SLOW, type="notify-fd"),
        "cache": sh(SLOW, type="notify-fd", start_after="db"),
        "free": sh(STAY),
    }
    with Bare(services) as guest:
        guest.up("app")
        events = guest.events()
        started = order_of(events, "service-started")
        assert started.index("db") < started.index("cache") < started.index("app")
        assert started.index("free") < started.index("db")  # nobody had to wait who need not
        assert guest.lcinit("poweroff").returncode == 0
        result = outcome(guest.container)
    down = [
        line.removeprefix("lcinit: ").removesuffix(" is down") for line in result.lines if line.endswith(" is down")
    ]
    assert down.index("app") < down.index("cache") < down.index("db"), result


@pytest.mark.row(54)
def test_a_cycle_is_told_by_its_names_and_others_start() -> None:
    services = {"a": sh(STAY, requires="b"), "b": sh(STAY, start_after="c"), "c": sh(STAY, wants="a"), "d": sh(STAY)}
    with Bare(services) as guest:
        guest.up("d")
        state = guest.awaited("a", lambda state: state["sub"] == "failed", "failed")
        assert state["reason"] == "it starts after itself: a -> b -> c -> a"
        assert "these services start after one another in a circle: a -> b -> c -> a" in guest.console()


def test_what_is_required_takes_those_with_it_that_require_it_and_wants_does_not() -> None:
    services = {
        "base": sh("sleep 0.3; exit 3", restart="no"),
        "needs": sh(STAY, requires="base"),
        "likes": sh(STAY, wants="base"),
    }
    with Bare(services) as guest:
        state = guest.awaited("needs", lambda state: state["sub"] == "failed", "failed")
        assert state["result"] == "dependency" and "it requires base" in state["reason"], state
        assert guest.service("likes")["sub"] == "running"


def test_a_restart_takes_those_along_that_require_it() -> None:
    with Bare({"db": sh(STAY), "app": sh(STAY, requires="db"), "other": sh(STAY)}) as guest:
        before = {name: guest.up(name)["pid"] for name in ("app", "db", "other")}
        guest.asked("Restart", "db")
        after = {name: guest.up(name)["pid"] for name in ("app", "db", "other")}
    assert [name for name in before if before[name] == after[name]] == ["other"]


@pytest.mark.parametrize("how", ["initctl", "telinit"])
def test_runlevels_are_moved_between(how: str) -> None:
    services = {
        "boot": sh(STAY, runlevels="S"),
        "two": sh(STAY, runlevels=[2]),
        "three": sh(STAY, runlevels=[3]),
        "both": sh(STAY),
    }
    with Bare(services) as guest:
        pids = {name: guest.up(name)["pid"] for name in ("boot", "three", "both")}
        assert guest.service("two")["sub"] == "dead"
        assert guest.lcinit("runlevel").stdout == "N 3\n"
        guest.initctl("2") if how == "initctl" else guest.call("SetRunlevel", runlevel="2")
        guest.up("two")
        guest.awaited("three", lambda state: state["sub"] == "dead", "down")
        assert guest.lcinit("runlevel").stdout == "3 2\n"
        assert guest.service("both")["pid"] == pids["both"] and guest.service("boot")["pid"] == pids["boot"]
        guest.initctl("1")
        guest.awaited("both", lambda state: state["sub"] == "dead", "down")
        assert guest.service("boot")["pid"] == pids["boot"]


def test_only_what_must_be_is_restarted_when_files_change() -> None:
    with Bare({}, serves=True) as guest:
        for name, more in (("a", ""), ("b", ""), ("gone", "")):
            guest.write(f"/etc/lcinit/services/{name}.yml", f"command: sleep 1000\nlog: none\n{more}")
            guest.write(f"/etc/lcinit/enabled/{name}", "")
        assert guest.lcinit("daemon-reload").returncode == 0
        pids = {name: guest.up(name)["pid"] for name in ("a", "b", "gone")}
        guest.write("/etc/lcinit/services/a.yml", "command: sleep 2000\nlog: none\n")
        guest.write("/etc/lcinit/services/b.yml", "command: sleep 1000\nlog: none\nrestart: always\n")
        guest.write("/etc/lcinit/services/broken.yml", "command: [\n")
        refused = guest.lcinit("daemon-reload")
        assert refused.returncode == 78 and "broken.yml:" in refused.stderr, refused
        assert guest.service("a")["pid"] == pids["a"]
        os.unlink(guest.path("/etc/lcinit/services/broken.yml"))
        os.unlink(guest.path("/etc/lcinit/services/gone.yml"))
        os.unlink(guest.path("/etc/lcinit/enabled/gone"))
        dry = guest.call("DaemonReload", dry_run=True)["changes"]
        assert {each["name"]: each["effect"] for each in dry} == {"a": "restart", "b": "none", "gone": "stop"}
        assert guest.service("a")["pid"] == pids["a"]
        assert guest.call("DaemonReload")["changes"] == dry
        deadline = time.monotonic() + 10
        while (found := guest.services()).keys() != {"a", "b"} or found["a"]["pid"] in (None, pids["a"]):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        assert found["b"]["pid"] == pids["b"]


def test_enabling_is_a_link() -> None:
    with Bare({}, serves=True) as guest:
        guest.write("/etc/lcinit/services/a.yml", "command: sleep 1000\nlog: none\n")
        guest.lcinit("daemon-reload")
        assert guest.lcinit("enable", "a").returncode == 0
        assert os.readlink(guest.path("/etc/lcinit/enabled/a")) == "../services/a.yml"
        assert guest.service("a")["enabled"]
        assert guest.lcinit("disable", "a").returncode == 0
        assert not os.path.lexists(guest.path("/etc/lcinit/enabled/a"))
        unknown = guest.lcinit("enable", "nobody")
        assert unknown.returncode == 69 and "there is no service nobody" in unknown.stderr


def test_a_reboot_in_place_starts_all_again() -> None:
    with Bare({"a": sh(STAY)}, exec={"on_reboot": "restart"}) as guest:
        first = guest.up("a")["pid"]
        assert guest.lcinit("reboot").returncode == 0
        again = guest.awaited("a", lambda state: state["sub"] == "running" and state["pid"] != first, "up again")
        assert again["restarts"] == 0
        assert guest.lcinit("poweroff").returncode == 0
        outcome(guest.container)


def test_those_of_the_boot_and_the_command_have_their_place_on_the_way_down_too() -> None:
    command = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
    services = {"boot": sh(STAY, runlevels="S"), "web": sh(STAY)}
    with Bare(services, exec={"command": ["/bin/sh", "-c", command]}) as guest:
        guest.up("exec.command")
        assert order_of(guest.events(), "service-started") == ["boot", "web", "exec.command"]
        assert guest.lcinit("poweroff").returncode == 0
        result = outcome(guest.container)
    said = [line.removeprefix("lcinit: ").removeprefix("error: ") for line in result.lines]
    ended = [line.split()[0] for line in said if line.endswith(" is down") or " has failed" in line]
    assert ended == ["exec.command", "web", "boot"], result
    assert result.status == 7, result
