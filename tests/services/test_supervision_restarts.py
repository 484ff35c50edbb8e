"""Whether a service that has ended comes again, when, and what its end is called."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from tests.hostile.attempt import outcome
from tests.services.bare import Bare, sh
from tests.services.looking import none_left, running
from tests.services.rig import wait_until

STAY = "exec sleep 1000"
NO_DELAY = {"restart_delay": 0, "start_limit_burst": 3}


def starts(guest: Bare, name: str) -> list[float]:
    """When its main program was started."""
    with guest.client() as client:
        events = client.call("Events")["events"]
    return [e["time"] for e in events if e["kind"] == "service-starting" and e["facts"]["service"] == name]


def test_each_policy_restarts_what_it_says_and_nothing_else() -> None:
    """Whatever comes again does so until its limit of starts is reached, the others have one start alone."""
    again = {
        "failure-code": sh("exit 3", **NO_DELAY),
        "failure-signal": sh("kill -SEGV $$", **NO_DELAY),
        "always": sh("exit 0", restart="always", **NO_DELAY),
        "always-term": sh("kill -TERM $$", restart="always", **NO_DELAY),
        "oneshot-term": sh("kill -TERM $$", type="oneshot", **NO_DELAY),
    }
    once = {
        "success": (sh("exit 0"), "success"),
        "clean-signal": (sh("kill -HUP $$"), "success"),
        "no": (sh("exit 3", restart="no"), "exit-code"),
        "own-success": (sh("exit 42", success_exit_status=[42, "SIGUSR1"]), "success"),
        "own-signal": (sh("kill -USR1 $$", success_exit_status=[42, "SIGUSR1"]), "success"),
        "prevented": (sh("exit 43", restart="always", restart_prevent_exit_status=[43]), "exit-code"),
        "prevented-signal": (sh("kill -ABRT $$", restart_prevent_exit_status="SIGABRT"), None),
        "watchdog-alone": (
            sh("exit 3", type="notify", watchdog=5, restart="on-watchdog"),
            "exit-code",
        ),
    }
    with Bare({**again, **{name: service for name, (service, _) in once.items()}}) as guest:
        for name in again:
            state = guest.awaited(name, lambda state: state["sub"] == "failed", "failed")
            assert state["result"] == "start-limit-hit" and state["restarts"] == 3, state
            assert "started 3 times within 60 s (start_limit_burst), and ended last: " in state["reason"], state
            assert len(starts(guest, name)) == 3
        for name, (_, result) in once.items():
            state = guest.awaited(name, lambda state: state["sub"] in ("dead", "failed"), "down")
            assert state["restarts"] == 0 and len(starts(guest, name)) == 1, state
            assert result is None or state["result"] == result, state
            assert state["sub"] == ("dead" if state["result"] == "success" else "failed"), state


def test_delays_double_up_to_their_maximum_and_begin_anew_when_somebody_looks() -> None:
    service = sh("exit 3", restart_delay=0.2, restart_max_delay=0.6, restart_jitter=0, start_limit_burst=6)
    with Bare({"a": service}) as guest:
        state = guest.awaited("a", lambda state: state["sub"] == "failed", "failed")
        times = starts(guest, "a")
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        wanted = [0, 0.2, 0.4, 0.6, 0.6]
        assert len(gaps) == len(wanted)
        assert all(gap >= least for gap, least in zip(gaps, wanted, strict=True)), gaps  # a busy machine adds to them
        assert guest.lcinit("reset-failed", "a").returncode == 0
        assert guest.service("a")["sub"] == "dead"
        assert guest.lcinit("start", "a").returncode == 0  # a simple one is up once it runs
        guest.awaited("a", lambda again: again["restarts"] > state["restarts"], "started again")
        assert starts(guest, "a")[7] - starts(guest, "a")[6] < 0.6  # not the delay that it had come to


def test_a_core_dump_and_a_kill_are_told_apart_from_signals() -> None:
    services = {
        "core": sh("ulimit -c unlimited; cd /tmp; kill -SEGV $$", restart="no"),
        "no-core": sh("kill -SEGV $$", restart="no", limits={"core": 0}),
        "killed": sh("kill -KILL $$", restart="no"),
        "real-time": sh("kill -64 $$", restart="no"),
    }
    with Bare(services) as guest:
        found = {n: guest.awaited(n, lambda state: state["sub"] == "failed", "failed") for n in services}
    assert found["core"]["result"] in ("core-dump", "signal") and found["core"]["signal"] == "SIGSEGV"
    assert (found["core"]["result"] == "core-dump") == ("core dumped" in found["core"]["reason"]), found["core"]
    assert (found["no-core"]["signal"], found["no-core"]["status"]) == ("SIGSEGV", 139)
    assert (found["killed"]["result"], found["killed"]["signal"], found["killed"]["status"]) == (
        "signal",
        "SIGKILL",
        137,
    )
    assert (found["real-time"]["signal"], found["real-time"]["status"]) == ("SIGRTMIN+30", 192)


def test_the_last_commands_are_told_its_result_and_its_end_where_it_had_one() -> None:
    """systemd.exec(5): $SERVICE_RESULT always, $EXIT_CODE and $EXIT_STATUS of the main process, and not of an earlier
    one's.
    """
    post = 'echo "$LCINIT_SERVICE $SERVICE_RESULT ${EXIT_CODE-unset} ${EXIT_STATUS-unset}" >>/tmp/post'
    last = {"restart": "no", "stop_post": [["/bin/sh", "-c", post]]}
    once = ["/bin/sh", "-c", "test ! -e /tmp/once && touch /tmp/once"]
    services: dict[str, Any] = {
        "code": sh("exit 7", **last),
        "signal": sh("kill -KILL $$", **last),
        "first": sh(STAY, **last, start_pre="false"),
        "slow": sh(STAY, **last, start_pre="sleep 100", start_timeout=0.3),
        "never": {"command": "/no/such", "log": "none", **last, "start_pre": "/no/such/either"},
        "again": sh("exit 7", **last | {"restart": "on-failure"}, start_pre=[once], start_limit_burst=2),
        "stopped": sh(STAY, **last),
    }
    with Bare(services) as guest:
        guest.up("stopped")
        guest.asked("Stop", "stopped")
        for name in services.keys() - {"stopped"}:
            guest.awaited(name, lambda state: state["sub"] == "failed", "failed")
        assert sorted(guest.read("/tmp/post").splitlines()) == [
            "again exit-code exited 7",
            "again exit-code unset unset",
            "code exit-code exited 7",
            "first exit-code unset unset",
            "never start-failure unset unset",
            "signal signal killed KILL",
            "slow timeout unset unset",
            "stopped success killed TERM",
        ]


def test_commands_around_it_know_its_end_and_bound_its_start() -> None:
    services: dict[str, Any] = {
        "late": sh(
            STAY, restart="no", start_post=[["sleep", "100"]], start_timeout=0.5, stop_post=[["touch", "/tmp/late"]]
        ),
        "wrong": sh(STAY, restart="no", start_post="false"),
        "ignored": sh(STAY, start_pre={"command": "false", "ignore_errors": True}),
        "told": sh(
            "echo $$ >/tmp/own; exec sleep 1000",
            start_post=[["/bin/sh", "-c", 'sleep 0.2; [ "$MAINPID" = "$(cat /tmp/own)" ]']],
            stop=[["/bin/sh", "-c", 'echo "$MAINPID" >/tmp/stopped']],
        ),
    }
    with Bare(services) as guest:
        pid = guest.up("told")["pid"]
        guest.up("ignored")
        late = guest.awaited("late", lambda state: state["sub"] == "failed", "failed")
        assert (late["result"], late["reason"]) == ("timeout", "its start took longer than start_timeout (0.5 s)")
        wrong = guest.awaited("wrong", lambda state: state["sub"] == "failed", "failed")
        assert (wrong["result"], wrong["pid"]) == ("exit-code", None), wrong
        assert wrong["reason"] == "start_post[0]: false ended with exit code 1"
        assert guest.run("ls", "/tmp/late") == "/tmp/late"
        guest.asked("Stop", "told")
        assert guest.read("/tmp/stopped") == f"{pid}\n"


def test_a_stop_that_takes_too_long_ends_in_sigkill_and_its_commands_too() -> None:
    deaf = "trap '' TERM; echo >&3; while :; do sleep 0.05; done"
    services = {
        "deaf": sh(deaf, type="notify-fd", stop_timeout=0.4, restart="no"),
        "command": sh(STAY, stop=[["sleep", "100"]], stop_timeout=0.4),
        "after": sh(STAY, stop_post=[["sleep", "100"]], stop_timeout=0.4),
        "signal": sh("trap 'exit 9' USR1; trap '' TERM; echo >&3; while :; do sleep 0.02; done", type="notify-fd")
        | {"stop_signal": "SIGUSR1", "success_exit_status": [9]},
    }
    with Bare(services) as guest:
        for name in services:
            guest.up(name)
        began = time.monotonic()
        done = {each["name"]: each for each in guest.call("Stop", names=list(services))["done"]}
        assert 0.35 < time.monotonic() - began < 3
        found = guest.services()
        assert (found["deaf"]["result"], found["deaf"]["signal"]) == ("timeout", "SIGKILL"), found["deaf"]
        assert (found["signal"]["result"], found["signal"]["status"]) == ("success", 9), found["signal"]
        assert done["signal"]["ok"]
        assert all(state["pid"] is None for state in found.values())


@pytest.mark.parametrize(
    ("mode", "stopped", "left"),
    [("mixed", ["main"], 0), ("control-group", ["child", "main"], 0), ("process", ["main"], 1)],
)
def test_the_kill_mode_says_who_is_asked_and_who_stays(mode: str, stopped: list[str], left: int) -> None:
    child = "trap 'echo child >>/tmp/said; exit' TERM; touch /tmp/child; while :; do sleep 0.02; done"
    script = f"""
        ({child}) &
        trap 'echo main >>/tmp/said; sleep 0.3; exit 0' TERM
        until [ -e /tmp/child ]; do sleep 0.01; done; echo >&3; exec 3>&-
        while :; do sleep 0.02; done
    """
    with Bare({"a": sh(script, type="notify-fd", kill_mode=mode)}) as guest:
        guest.up("a")
        guest.asked("Stop", "a")
        assert sorted(guest.read("/tmp/said").split()) == stopped
        if left:
            time.sleep(0.3)
            assert len(running(guest, "tmp/child")) >= left  # its own child is another for a moment
        else:
            none_left(guest, "tmp/child")
        guest.lcinit("poweroff")
        assert outcome(guest.container).status is not None  # and nothing of it holds up the end


def test_a_oneshot_that_takes_too_long_is_ended() -> None:
    with Bare({"a": sh("sleep 1000", type="oneshot", start_timeout=0.3, restart="no")}) as guest:
        state = guest.awaited("a", lambda state: state["sub"] == "failed", "failed")
    assert state["result"] == "timeout" and "start_timeout (0.3 s)" in state["reason"], state


def test_one_that_is_stopped_while_it_waits_to_come_again_is_down_and_has_not_failed() -> None:
    services = {name: sh("exit 3", restart="always", restart_delay=60) for name in ("asked", "at-the-end")}
    with Bare(services) as guest:
        wait_until(lambda: guest.console().count("it is started again in") == 2, "both waiting", guest)
        guest.asked("Stop", "asked")
        state = guest.service("asked")
        assert (state["sub"], state["result"], state["status"]) == ("dead", "success", 3), state
        guest.lcinit("poweroff")
        outcome(guest.container)
        assert "has failed" not in guest.console()
