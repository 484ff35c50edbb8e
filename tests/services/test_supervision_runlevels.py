"""Runlevels, and what an administrator asks for: by FIFO, command and call; files that changed while services run."""

from __future__ import annotations

import os
import signal

import pytest

from lcinit.errors import LcinitError
from tests.hostile.attempt import outcome
from tests.services.bare import Bare, sh
from tests.services.rig import wait_until
from tests.services.test_supervision_order import facts, ready

STAY = "exec sleep 1000"
OF_LEVEL = {name: sh(STAY, runlevels=[level]) for level, name in enumerate(("one", "two", "three", "four", "five"), 1)}


def up(guest: Bare) -> set[str]:
    """The services that run."""
    return {name for name, state in guest.services().items() if state["sub"] == "running"}


def until_up(guest: Bare, wanted: set[str]) -> None:
    """Wait until these and no others run."""
    wait_until(lambda: up(guest) == wanted, f"{wanted} up and no others", guest)


def test_services_of_the_boot_come_first_and_stay_in_every_runlevel() -> None:
    services = {
        "early": ready(0.4, runlevels="S"),
        "before": sh("exit 0", type="oneshot", runlevels="S", start_before="early"),
        "helper": sh(STAY, runlevels=[1]),  # of another runlevel, but required in this one
        "late": sh(STAY, runlevels=[4], requires="helper"),
        **OF_LEVEL,
    }
    with Bare(services, runlevel=4) as guest:
        pid = guest.up("early")["pid"]
        guest.up("late")
        started = [name for kind, name in guest.events() if kind == "service-started"]
        assert started[:2] == ["before", "early"], started
        assert set(started[2:]) == {"helper", "late", "four"}
        for level, name in ((5, "five"), (2, "two"), (1, "one")):
            guest.call("SetRunlevel", runlevel=str(level))
            wanted = {"early", name} | ({"helper"} if level == 1 else set())
            until_up(guest, wanted)
        assert guest.service("early")["pid"] == pid
        assert guest.lcinit("runlevel").stdout == "2 1\n"


@pytest.mark.parametrize("place", ["/run/initctl", "/dev/initctl"])
def test_the_fifo_is_obeyed_at_both_places_in_every_word(place: str) -> None:
    with Bare({**OF_LEVEL, "always": sh(STAY, runlevels="S")}) as guest:
        guest.up("three")
        previous = "3"
        for word, name in (("2", "two"), ("4", "four"), ("5", "five"), ("s", "one"), ("3", "three")):
            done = guest.run("lcinit", "telinit", "--fifo", place, word, check=False)
            assert done == "0", done
            until_up(guest, {name, "always"})
            level = "1" if word == "s" else word
            assert guest.run("lcinit", "runlevel") == f"{previous} {level}"
            previous = level
        guest.run("lcinit", "telinit", "--fifo", place, "0", check=False)  # which may end before it has
        result = outcome(guest.container)
    assert "lcinit: always is down" in result.lines, result


def test_a_runlevel_that_there_is_not_is_refused() -> None:
    with Bare(OF_LEVEL) as guest:
        guest.up("three")
        for wrong in ("7", "N", "x"):
            with pytest.raises(LcinitError):
                guest.call("SetRunlevel", runlevel=wrong)
        assert guest.lcinit("runlevel").stdout == "N 3\n"
        assert up(guest) == {"three"}


def test_a_runlevel_that_changes_while_services_come_and_go_ends_where_it_was_last_sent() -> None:
    slow = "trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.02; done"
    services = {"two": ready(0.3, runlevels=[2]), "three": sh(slow, runlevels=[3]), "both": sh(STAY)}
    with Bare(services) as guest:
        pid = guest.up("both")["pid"]
        for _ in range(6):
            guest.call("SetRunlevel", runlevel="2")
            guest.call("SetRunlevel", runlevel="3")
        guest.call("SetRunlevel", runlevel="2")
        until_up(guest, {"two", "both"})
        assert guest.service("both")["pid"] == pid


def test_enabling_is_refused_on_a_read_only_root_with_the_reason() -> None:
    with Bare({"a": sh(STAY)}, serves=True) as guest:
        guest.write("/etc/lcinit/services/b.yml", "command: sleep 1000\nlog: none\n")
        guest.lcinit("daemon-reload")
        guest.run("mount", "-o", "remount,ro", "/")
        for word in ("enable", "disable"):
            refused = guest.lcinit(word, "b")
            if word == "enable":
                assert refused.returncode == 77, refused
                assert "/etc/lcinit/enabled" in refused.stderr and "read-only" in refused.stderr.lower(), refused
        assert not guest.service("b")["enabled"]
        guest.run("mount", "-o", "remount,rw", "/")
        assert guest.lcinit("enable", "--now", "b").returncode == 0
        guest.up("b")
        assert guest.lcinit("disable", "--now", "b").returncode == 0
        assert guest.service("b")["sub"] == "dead" and not guest.service("b")["enabled"]


def test_a_link_enables_at_the_next_reload_and_its_loss_disables() -> None:
    with Bare({}, serves=True) as guest:
        guest.write("/etc/lcinit/services/a.yml", "command: sleep 1000\nlog: none\n")
        os.makedirs(guest.path("/etc/lcinit/enabled"))
        os.symlink("/nowhere/at/all", guest.path("/etc/lcinit/enabled/a"))
        changes = guest.call("DaemonReload")["changes"]
        assert [(each["name"], each["kind"], each["effect"]) for each in changes] == [("a", "added", "start")]
        guest.up("a")
        os.unlink(guest.path("/etc/lcinit/enabled/a"))
        changes = guest.call("DaemonReload")["changes"]
        assert [(each["name"], each["kind"], each["effect"]) for each in changes] == [("a", "disabled", "stop")]
        guest.awaited("a", lambda state: state["sub"] == "dead", "down")


@pytest.mark.parametrize("how", ["daemon-reload", "SIGHUP", "initctl q"])
def test_files_are_read_again_however_it_is_asked_for(how: str) -> None:
    def reload() -> None:
        if how == "daemon-reload":
            guest.lcinit(how)
        elif how == "SIGHUP":
            os.kill(guest.pid1, signal.SIGHUP)
        else:
            guest.initctl("q")

    def policy(**keys: str) -> str:
        return "command: sleep 1000\nlog: none\n" + "".join(f"{key}: {value}\n" for key, value in keys.items())

    with Bare({"own": sh(STAY)}, serves=True) as guest:
        for name in ("command", "policy", "gone"):
            guest.write(f"/etc/lcinit/services/{name}.yml", policy())
            guest.write(f"/etc/lcinit/enabled/{name}", "")
        guest.lcinit("daemon-reload")
        before = {name: guest.up(name)["pid"] for name in ("own", "command", "policy", "gone")}
        # one file that is wrong: nothing of all that is done
        guest.write("/etc/lcinit/services/command.yml", "command: sleep 2000\nlog: none\n")
        guest.write("/etc/lcinit/services/wrong.yml", "command: sleep 1000\nrestart: perhaps\n")
        reload()
        guest.container.expect("wrong.yml:2:10: restart:") if how != "daemon-reload" else None
        assert {name: guest.service(name)["pid"] for name in before} == before
        assert "wrong" not in guest.services()
        os.unlink(guest.path("/etc/lcinit/services/wrong.yml"))
        # and without it
        guest.write("/etc/lcinit/services/policy.yml", policy(description="changed", stop_timeout="3s"))
        guest.write("/etc/lcinit/services/new.yml", policy())
        guest.write("/etc/lcinit/enabled/new", "")
        for path in ("services/gone.yml", "enabled/gone"):
            os.unlink(guest.path(f"/etc/lcinit/{path}"))
        reload()
        guest.awaited("own", lambda _: "gone" not in guest.services(), "without the one that is gone")
        guest.up("new")
        changed = guest.awaited("command", lambda state: state["pid"] not in (None, before["command"]), "restarted")
        assert changed["command"] == ["sleep", "2000"]
        found = guest.services()
        assert {name: found[name]["pid"] for name in ("own", "policy")} == {n: before[n] for n in ("own", "policy")}
        assert found["policy"]["description"] == "changed"
        assert len(facts(guest, "service-starting", "command")) == 2


def test_a_reload_that_changes_what_waits_or_comes_up_is_taken() -> None:
    """Order, requirements and commands of services that are not up yet."""
    with Bare({"own": sh(STAY)}, serves=True) as guest:
        slow = "command: [sh, -c, 'sleep 1000']\ntype: notify-fd\nlog: none\n"
        guest.write("/etc/lcinit/services/slow.yml", slow)
        guest.write("/etc/lcinit/services/waits.yml", "command: sleep 1000\nlog: none\nstart_after: slow\n")
        for name in ("slow", "waits"):
            guest.write(f"/etc/lcinit/enabled/{name}", "")
        guest.lcinit("daemon-reload")
        guest.awaited("waits", lambda state: state["waits_for"] == ["slow"], "waiting")
        guest.write("/etc/lcinit/services/slow.yml", slow.replace("sleep 1000", "echo >&3; exec sleep 1000"))
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.up("slow")
        guest.up("waits")
        guest.write("/etc/lcinit/services/waits.yml", "command: sleep 1000\nlog: none\nrequires: ghost\n")
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.call("Restart", names=["waits"])
        state = guest.service("waits")
        assert (state["sub"], state["result"]) == ("failed", "dependency"), state


@pytest.mark.parametrize("gone", [False, True])
def test_one_that_waits_goes_on_when_a_reload_takes_away_what_it_waits_for(gone: bool) -> None:
    with Bare({"own": sh(STAY)}, serves=True) as guest:
        guest.write("/etc/lcinit/services/slow.yml", "command: sleep 1000\ntype: notify-fd\nlog: none\n")
        guest.write("/etc/lcinit/services/waits.yml", "command: sleep 1000\nlog: none\nstart_after: slow\n")
        for name in ("slow", "waits"):
            guest.write(f"/etc/lcinit/enabled/{name}", "")
        guest.lcinit("daemon-reload")
        guest.awaited("waits", lambda state: state["waits_for"] == ["slow"], "waiting")
        guest.write("/etc/lcinit/services/waits.yml", "command: sleep 1000\nlog: none\n")
        if gone:
            for path in ("services/slow.yml", "enabled/slow"):
                os.unlink(guest.path(f"/etc/lcinit/{path}"))
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.up("waits", 3)


def test_one_that_is_to_stop_after_another_does_so_when_a_reload_takes_that_order_away() -> None:
    deaf = "command: [sh, -c, \"trap '' TERM; echo >&3; while :; do sleep 0.1; done\"]\ntype: notify-fd\nlog: none\n"
    with Bare({"own": sh(STAY)}, serves=True) as guest:
        guest.write("/etc/lcinit/services/first.yml", f"{deaf}stop_timeout: 1h\nstart_after: second\n")
        guest.write("/etc/lcinit/services/second.yml", "command: sleep 1000\nlog: none\n")
        for name in ("first", "second"):
            guest.write(f"/etc/lcinit/enabled/{name}", "")
        guest.lcinit("daemon-reload")
        guest.up("first")
        with guest.client() as client:
            client.call("io.lcinit.Services.Stop", names=["first", "second"], wait=False)
        assert guest.service("second")["sub"] == "running"
        guest.write("/etc/lcinit/services/first.yml", f"{deaf}stop_timeout: 1h\n")
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.awaited("second", lambda state: state["sub"] == "dead", "down", 3)
        assert guest.service("first")["sub"] == "stop-sigterm"
