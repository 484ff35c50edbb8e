"""How the container ends, and what signals, reboots and requests at any time make of it; under every manager."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS, SHIFT, configuration, outcome, start
from tests.lab import guests
from tests.lab.boot_root import boot_root
from tests.lab.managers import DRIVERS
from tests.services.bare import SHARED, Bare, sh
from tests.services.looking import running
from tests.services.rig import Guest, wait_until

STAY = "exec sleep 1000"
DEAF = sh("trap '' TERM; echo >&3; while :; do sleep 0.05; done", type="notify-fd", stop_timeout="1h")


class Own(Guest):
    """A container with a guest root of its own."""

    def __init__(self, services: dict[str, Any], *, guest: str | None = None, mapped: bool = True, **keys: Any) -> None:
        exec_keys = {**SHARED, **keys.pop("exec", {})}
        self.container = start(configuration(mapped=mapped, exec=exec_keys, services=services, **keys), guest=guest)
        self._pid1 = 0


def down(lines: list[str]) -> list[str]:
    """The services in the order in which they went down."""
    return [line.removeprefix("lcinit: ").removesuffix(" is down") for line in lines if line.endswith(" is down")]


@pytest.mark.parametrize("mapped", [True, False], ids=["id map", "no id map"])
@pytest.mark.parametrize(
    ("word", "status"), [("poweroff", 130), ("halt", 130), ("reboot", 129)], ids=["poweroff", "halt", "reboot"]
)
def test_the_kernel_is_told_how_it_ends(mapped: bool, word: str, status: int) -> None:
    """reboot(2) in a PID namespace ends its PID 1 by SIGINT or SIGHUP, with an id map by way of the reader."""
    with Own({"a": sh(STAY)}, mapped=mapped, exec={"on_reboot": "propagate"}) as guest:
        guest.up("a")
        assert guest.lcinit(word).returncode == 0
        result = outcome(guest.container)
    assert result.status == status, result
    assert down(result.lines) == ["a"], result


@pytest.mark.parametrize(
    ("number", "loop"),
    [
        (signal.SIGTERM, "asyncio"),
        (signal.SIGTERM, "uvloop"),
        (signal.SIGPWR, "asyncio"),
        (signal.SIGRTMIN + 3, "uvloop"),
        (signal.SIGRTMIN + 4, "asyncio"),
    ],
)
def test_managers_signals_stop_all_in_order(number: int, loop: str) -> None:
    services = {"a": sh(STAY), "b": sh(STAY, requires="a"), "c": sh(STAY, requires="b")}
    with Bare(services, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        guest.up("c")
        os.kill(guest.pid1, number)
        result = outcome(guest.container)
    assert down(result.lines) == ["c", "b", "a"], result


@pytest.mark.parametrize("number", [signal.SIGRTMIN + 13, signal.SIGRTMIN + 14, signal.SIGRTMIN + 15])
def test_signals_at_once_kill(number: int) -> None:
    with Bare({"deaf": DEAF}, exec={"on_reboot": "exit"}) as guest:
        guest.up("deaf")
        began = time.monotonic()
        os.kill(guest.pid1, number)
        outcome(guest.container)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGRTMIN + 14])
def test_a_stop_during_the_boot_is_obeyed(number: int) -> None:
    services = {"slow": sh("echo began >/dev/console; sleep 1000", type="notify-fd"), "next": sh(STAY, requires="slow")}
    with Bare(services) as guest:
        guest.awaited("slow", lambda state: state["sub"] == "start" and state["pid"], "starting")
        began = time.monotonic()
        os.kill(guest.pid1, number)
        result = outcome(guest.container)
        assert time.monotonic() - began < 2
    assert "next is up" not in str(result) and "unexpected" not in str(result), result


def test_a_stop_while_the_setup_runs_ends_it() -> None:
    setup = {"mode": "none", "before": [["sh", "-c", "echo setup; exec sleep 1000"]]}
    with Bare({"a": sh(STAY)}, setup=setup) as guest:
        guest.container.expect("^setup")
        began = time.monotonic()
        os.kill(guest.pid1, signal.SIGTERM)
        result = outcome(guest.container)
        assert time.monotonic() - began < 2
    assert result.status == 143 and "runlevel" not in str(result), result


def again(guest: Bare, name: str, pid: int) -> int:
    """Wait until a service runs as another process than `pid`: which one."""
    return int(guest.awaited(name, lambda s: s["sub"] == "running" and s["pid"] != pid, "up again")["pid"])


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_reboot_in_place_is_a_new_boot(loop: str) -> None:
    """In order down, in order up, counters anew, failures tried again, the runlevel the configuration's."""
    services = {
        "base": sh("echo >&3; exec sleep 1000", type="notify-fd"),
        "top": sh(STAY, requires="base"),
        "once": sh("echo . >>/tmp/once", type="oneshot"),
        "fails": sh("exit 3", restart_delay=0, start_limit_burst=2),
        "two": sh(STAY, runlevels=[2]),
    }
    with Bare(services, exec={"on_reboot": "restart"}, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        guest.up("top")
        guest.awaited("fails", lambda state: state["sub"] == "failed", "failed")
        guest.call("SetRunlevel", runlevel="2")
        guest.up("two")
        before = {name: guest.up(name)["pid"] for name in ("base", "top")}
        pid1 = guest.container.pid1()
        for number in (signal.SIGRTMIN + 5, signal.SIGRTMIN + 15):
            os.kill(guest.pid1, number)
            before = {name: again(guest, name, pid) for name, pid in before.items()}
        guest.awaited("fails", lambda state: state["sub"] == "failed", "failed again")
        guest.awaited("once", lambda state: state["sub"] == "exited", "done again")
        assert guest.read("/tmp/once").count(".") >= 3
        assert guest.service("two")["sub"] == "dead"
        assert guest.lcinit("runlevel").stdout == "N 3\n"
        assert guest.container.pid1() == pid1
        assert len(running(guest, "1000")) == 2
        guest.lcinit("poweroff")
        outcome(guest.container)


def test_an_essential_service_that_comes_again_ends_nothing_until_it_is_given_up() -> None:
    service = sh("exit 9", essential=True, restart_delay=0.1, start_limit_burst=3)
    with Bare({"main": service, "a": sh(STAY)}) as guest:
        result = outcome(guest.container)
    assert result.status == 9, result
    assert str(result).count("it is started again") == 3, result
    with Bare({"main": sh("exit 0", essential=True, requires="ghost")}) as guest:
        assert outcome(guest.container).status == 1


@pytest.mark.parametrize("manager", ["unshare", "nspawn", "lxc", "runc"])
def test_services_come_up_and_the_manager_stops_them_in_order(manager: str) -> None:
    services = {
        "base": sh("echo >&3; exec sleep 1000", type="notify-fd"),
        "top": sh(f"echo up >/dev/console; {STAY}", requires="base"),
        "fails": sh("exit 3", restart="no"),
    }
    config = json.dumps({"root": None, "setup": "none", "exec": SHARED, "services": services})
    container = DRIVERS[manager](console="pty")
    with container.start(boot_root(), config=config):
        container.expect(r"top is up", 20)
        container.expect(r"fails has failed: exit code 3")
        if manager in ("nspawn", "lxc"):
            container.poweroff()
        else:
            os.kill(container.pid1(), signal.SIGTERM)
        result = outcome(container, 20)
    assert down(result.lines) == ["top", "base"], result
    assert "unexpected" not in str(result), result


def test_a_guest_with_busybox_alone_has_services(tmp_path: Path) -> None:
    """Nothing of Python is in it; its own files and inline ones; logs, control from outside, all in its own ids."""
    root = guests.copy_of("busybox", str(tmp_path / "root"), SHIFT)
    assert not [name for _, _, names in os.walk(root) for name in names if re.match(r"python|.*\.pyc?$", name)]
    guests.place_file(
        root, "etc/lcinit/services/own.yml", 0o644, "command: [/bin/sh, -c, 'echo own; exec sleep 1000']\n"
    )
    guests.place_file(root, "etc/lcinit/services/off.yml", 0o644, "command: sleep 1000\n")
    guests.place_file(root, "etc/lcinit/enabled/own", 0o644, "")
    services = {
        "web": {"command": ["/bin/sh", "-c", "echo hello; exec sleep 1000"], "log": "file", "requires": "own"},
        "user": {"command": ["/bin/sleep", "1000"], "user": 12, "group": 13, "log": "none"},
        "sick": {"command": "/bin/false", "restart": "no", "log": "none"},
    }
    with Own(services, guest=root) as guest:
        web, user = guest.up("web"), guest.up("user")
        guest.awaited("sick", lambda state: state["sub"] == "failed", "failed")
        assert (guest.service("sick")["status"], guest.service("off")["sub"]) == (1, "dead")
        assert guest.process(web["pid"], "PPid") == "1"
        assert guest.process(user["pid"], "Uid").split() == ["12"] * 4
        assert guest.process(user["pid"], "Gid").split() == ["13"] * 4
        assert guest.process(1, "Uid").split() == ["0"] * 4
        log = guest.path("/var/log/lcinit/web/current")  # what services say first is written a moment later
        wait_until(lambda: os.path.exists(log) and "hello" in guest.read("/var/log/lcinit/web/current"), "hello", guest)
        assert os.stat(log).st_uid == SHIFT
        assert guest.lcinit("restart", "own").returncode == 0
        assert guest.up("web")["pid"] != web["pid"]
        assert "own" in guest.lcinit("status").stdout
        guest.initctl("0")
        result = outcome(guest.container)
    assert {"web", "own", "user"} <= set(down(result.lines)), result
    assert "unexpected" not in str(result), result


@pytest.mark.parametrize("limits", [{}, {"cgroup": {"pids_max": 50}}], ids=["plain", "limited"])
def test_no_cgroup_of_a_service_is_left_behind_whoever_had_to_be_killed(limits: dict[str, object]) -> None:
    deaf = "trap '' TERM; sleep 1000 & sleep 1001 & echo >&3; while :; do sleep 0.1; done"
    nested = "mkdir -p /sys/fs/cgroup/$1/a/b; "
    place = "$(sed -n s/^0:://p /proc/self/cgroup)"
    services = {
        f"s{n}": sh(f"set -- {place}; {nested}{deaf}", type="notify-fd", stop_timeout="100ms", **limits)
        for n in range(20)
    }
    with Bare(services) as guest:
        for name in services:
            guest.up(name)
        top = guest.container.cgroup
        before = [path for path, _, _ in os.walk(top) if ".service" in path]
        assert len(before) == 3 * len(services), before
        guest.asked("Restart", "s1")  # whose first one was killed
        guest.lcinit("poweroff")
        outcome(guest.container, 15)
        assert [path for path, _, _ in os.walk(top) if ".service" in path] == []


@pytest.mark.parametrize("limits", [{}, {"cgroup": {"pids_max": 50}}], ids=["plain", "limited"])
def test_stop_post_runs_also_where_all_else_had_to_be_killed(limits: dict[str, object]) -> None:
    deaf = "trap '' TERM; sleep 1000 & echo >&3; while :; do sleep 0.05; done"
    post = [["sh", "-c", "cat /proc/self/cgroup; echo $LCINIT_SERVICE $SERVICE_RESULT >>/tmp/posts"]]
    services = {f"s{n}": sh(deaf, type="notify-fd", stop_timeout="1s", stop_post=post, **limits) for n in range(10)}
    with Bare(services) as guest:
        for name in services:
            guest.up(name)
        guest.call("Stop", names=list(services))
        assert sorted(guest.read("/tmp/posts").splitlines()) == [f"{name} timeout" for name in services]
        guest.call("Start", names=list(services))
        guest.call("Kill", name="s0", signal="SIGKILL", whom="all")
        guest.awaited("s0", lambda state: state["restarts"] == 1 and state["sub"] == "running", "up again")
        assert "s0 signal" in guest.read("/tmp/posts").splitlines()
        guest.call("Restart", names=list(services))
        assert all(state["sub"] == "running" for state in guest.services().values()), guest.console()
        top = guest.container.cgroup
        guest.lcinit("poweroff")
        outcome(guest.container, 15)
        assert [path for path, _, _ in os.walk(top) if ".service" in path] == []
