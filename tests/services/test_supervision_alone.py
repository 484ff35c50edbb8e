"""Services where there are no cgroups, or whose processes do not wish to be found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS, outcome, start
from tests.services.bare import SHARED, Bare, sh
from tests.services.looking import none_left, running
from tests.services.rig import wait_until
from tests.services.test_supervision_notify import WRITE, forks, says


class Alone(Bare):
    """A container without cgroups: lcinit may not mount their hierarchy, as in most application containers. `keys` are
    further ones of the configuration.
    """

    def __init__(self, services: dict[str, Any], *, env: dict[str, str] | None = None, **keys: Any) -> None:
        config = {"root": None, "setup": "none", "exec": SHARED, "services": services, **keys}
        words = ("--bounding-set=-sys_admin", "/sbin/init")
        self.container = start(json.dumps(config), env=env, init="/usr/bin/setpriv", args=words)
        self._pid1 = 0


# a child, one in a process group of its own, an orphan of the session, and what a session of its own has under it
TREE = """
trap '' TERM
sleep 12345 &
set -m; sleep 12345 & set +m
(sleep 12345 &)
(sh -c 'trap "" TERM HUP; sleep 12345 & sleep 12345; :') &
touch /tmp/up
"""
MAIN = "{tree}\ntrap 'exit 0' TERM; echo >&3; exec 3>&-\nwhile :; do sleep 0.02; done"
SIX = 6


def tree_is_up(guest: Bare) -> None:
    wait_until(lambda: len(running(guest, "12345")) >= SIX, "a tree of processes", guest)


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("where", [Bare, Alone], ids=["cgroups", "no cgroups"])
def test_all_of_a_tree_ends_with_its_service(where: type[Bare], loop: str) -> None:
    services = {"a": sh(MAIN.format(tree=TREE), type="notify-fd"), "other": sh("sleep 54321 & wait")}
    with where(services, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        tree_is_up(guest)
        state = guest.up("a")
        assert (state["cgroup"] is None) == (where is Alone), state
        guest.asked("Stop", "a")
        none_left(guest, "12345")
        guest.asked("Start", "a")
        tree_is_up(guest)
        guest.call("Kill", name="a", signal="SIGKILL")  # and if it ends by itself
        guest.awaited("a", lambda state: state["restarts"] == 1 and state["sub"] == "running", "again")
        guest.asked("Stop", "a")
        none_left(guest, "12345")
        assert running(guest, "54321")  # nobody else's
        guest.lcinit("poweroff")
        outcome(guest.container, 10)


def test_a_signal_for_all_reaches_all_without_cgroups() -> None:
    child = "trap 'echo child >>/tmp/said' USR1; touch /tmp/child; while :; do sleep 0.02; done"
    waits = "until [ -e /tmp/child ]; do sleep 0.01; done; echo >&3; exec 3>&-; while :; do sleep 0.02; done"
    script = f"touch /tmp/said; ({child}) & trap 'echo main >>/tmp/said' USR1; {waits}"
    with Alone({"a": sh(script, type="notify-fd")}) as guest:
        guest.up("a")
        assert guest.call("Kill", name="a", signal="SIGUSR1", whom="all")["signalled"] >= 2
        wait_until(lambda: sorted(guest.read("/tmp/said").split()) == ["child", "main"], "both told", guest)


def test_limits_that_cannot_be_had_are_said_once_and_keep_nothing_from_running() -> None:
    service = sh("exit 1", cgroup={"memory_max": "64M", "pids_max": 10}, restart_delay=0, start_limit_burst=4)
    with Alone({"a": service}) as guest:
        guest.awaited("a", lambda state: state["restarts"] == 4, "started again")
        text = guest.console()
    for key in ("memory_max", "pids_max"):
        assert text.count(f"a runs without cgroup.{key}: it has no cgroup of its own here") == 1, text


def test_a_notification_and_a_forking_daemon_are_known_without_cgroups() -> None:
    services = {
        "daemon": forks("daemon", write=f"{WRITE}\nos.fork()", kill_mode="control-group"),
        "told": says("say('READY=1', 'STATUS=here'); stay()"),
        "child": says("if os.fork() == 0:\n    say('READY=1')\nstay()", notify_access="all"),
    }
    with Alone(services) as guest:
        for name in services:
            guest.up(name)
        assert guest.service("told")["status_text"] == "here"
        assert int(guest.read("/run/daemon.pid")) == guest.service("daemon")["pid"]
        assert guest.call("Kill", name="daemon", signal="SIGCONT", whom="all")["signalled"] == 2
        guest.asked("Stop", *services)
        none_left(guest, "NOTIFY_SOCKET")


def test_a_pid_file_without_cgroups_names_no_older_process_and_no_other_services() -> None:
    services = {
        "old": sh("echo $$ >/run/old.pid; exec sleep 1000", runlevels="S"),
        "other": forks("liar", write="os.system('cat /run/old.pid >/run/liar.pid')", start_timeout=1),
    }
    with Alone(services) as guest:
        state = guest.awaited("other", lambda state: state["sub"] == "failed", "failed")
        assert state["result"] == "timeout", state  # it might have named another one yet
        assert guest.service("old")["sub"] == "running"
