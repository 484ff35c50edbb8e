"""How services end is reported truthfully, whatever else ends beside them; and what comes of it."""

from __future__ import annotations

import os
import time

import pytest

from lcinit.linux.signals import signal_name
from tests.hostile.attempt import BOTH_LOOPS, outcome
from tests.services.bare import Bare, sh

ENDING = [n for n in range(1, 65) if n not in (17, 18, 19, 20, 21, 22, 23, 28, 32, 33)]
CLEAN = {"SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"}
SERVICES = 1000
ORPHANS = 10_000
_ORPHANS = f"i=0; while [ $i -lt {ORPHANS // 100} ]; do ({': & ' * 100}); i=$((i + 1)); done; exec sleep 1000"


def zombies(guest: Bare) -> int:
    """How many processes of the container have ended and were not reaped."""
    count = 0
    for pid in os.listdir(guest.path("/proc")):
        if pid.isdigit():
            try:
                with open(guest.path(f"/proc/{pid}/stat")) as file:
                    count += file.read().rpartition(")")[2].split()[0] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                continue
    return count


@pytest.mark.row(33)
def test_a_thousand_ends_are_told_as_they_were_beside_ten_thousand_orphans() -> None:
    ends = [("exit", code) for code in range(256)] + [("kill", number) for number in ENDING]
    wanted = {f"s{n}": ends[n % len(ends)] for n in range(SERVICES)}
    scripts = {
        name: f"exit {number}" if how == "exit" else f"kill -{number} $$; sleep 1000"
        for name, (how, number) in wanted.items()
    }
    services = {name: sh(script, restart="no") for name, script in scripts.items()}
    with Bare({**services, "forker": sh(_ORPHANS)}) as guest:
        deadline = time.monotonic() + 60
        while True:
            found = guest.services()
            if all(found[name]["sub"] in ("dead", "failed") for name in wanted):
                break
            assert time.monotonic() < deadline, guest.console()
            time.sleep(0.2)
        for name, (how, number) in wanted.items():
            state = found[name]
            signal = signal_name(number) if how == "kill" else None
            assert state["signal"] == signal, state
            assert state["status"] == (128 + number if signal else number), state
            clean = signal in CLEAN if signal else number == 0
            dumps = signal in (
                "SIGQUIT",
                "SIGILL",
                "SIGTRAP",
                "SIGABRT",
                "SIGBUS",
                "SIGFPE",
                "SIGSEGV",
                "SIGXCPU",
                "SIGXFSZ",
                "SIGSYS",
            )
            results = {"success"} if clean else {"exit-code"} if signal is None else {"signal"}
            assert state["result"] in results | ({"core-dump"} if dumps else set()), state
            assert state["sub"] == ("dead" if clean else "failed"), state
        assert found["forker"]["sub"] == "running"
        end = time.monotonic() + 2
        while left := zombies(guest):
            assert time.monotonic() < end, f"{left} are left"
            time.sleep(0.05)


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("exit 0", 0), ("kill -KILL $$", 137)])
def test_the_end_of_an_essential_service_ends_the_container_with_its_code(loop: str, script: str, code: int) -> None:
    services = {
        "other": sh("trap 'echo other stops >/dev/console; exit' TERM; while :; do sleep 0.1; done"),
        "main": sh(f"sleep 0.2; {script}", restart="no", essential=True, start_after="other"),
    }
    with Bare(services, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        result = outcome(guest.container)
    assert result.status == code, result
    assert any("main is essential and has ended" in line for line in result.lines), result
    assert "lcinit: other is down" in result.lines, result


def test_the_command_comes_after_the_services_and_ends_the_container() -> None:
    services = {"slow": sh("sleep 0.3; echo >&3; exec sleep 1000", type="notify-fd")}
    with Bare(services, exec={"command": ["/bin/sh", "-c", "echo the command; exit 5"]}) as guest:
        result = outcome(guest.container)
    lines = result.lines
    assert result.status == 5, result
    up = next(at for at, line in enumerate(lines) if line.startswith("lcinit: slow is up"))
    assert up < lines.index("the command"), result


def test_one_that_does_not_stop_in_time_is_killed_and_says_so() -> None:
    services = {"deaf": sh("trap '' TERM; while :; do sleep 0.1; done", stop_timeout="300ms")}
    with Bare(services) as guest:
        guest.up("deaf")
        stopped = guest.call("Stop", names=["deaf"])["done"][0]
        assert stopped["sub"] == "failed", stopped
        assert "its stop took longer than stop_timeout (0.3 s)" in stopped["reason"]
        assert guest.service("deaf")["result"] == "timeout"


def test_all_of_a_service_goes_with_it() -> None:
    script = "sleep 12345 & setsid sleep 12345 & exec sleep 12345"
    with Bare({"tree": sh(script)}) as guest:
        guest.up("tree")
        time.sleep(0.2)
        guest.asked("Stop", "tree")
        deadline = time.monotonic() + 3
        while found := [p for p in os.listdir(guest.path("/proc")) if p.isdigit() and _runs(guest, p, "12345")]:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)


def _runs(guest: Bare, pid: str, word: str) -> bool:
    try:
        with open(guest.path(f"/proc/{pid}/cmdline"), "rb") as file:
            return word.encode() in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_too_many_starts_are_a_failure_that_says_why() -> None:
    services = {"loop": sh("exit 3", restart_delay="10ms", start_limit_burst=3)}
    with Bare(services) as guest:
        state = guest.awaited("loop", lambda state: state["sub"] == "failed", "failed")
        assert state["result"] == "start-limit-hit"
        assert "started 3 times within 60 s" in state["reason"] and "exit code 3" in state["reason"]
        assert state["restarts"] == 3


@pytest.mark.parametrize(
    ("keys", "result", "reason"),
    [
        ({"command": "/no/such"}, "start-failure", "not found"),
        ({"user": "nobody-here"}, "start-failure", "no user 'nobody-here' in /etc/passwd"),
        ({"cwd": "/no/such"}, "start-failure", "/no/such"),
        ({"environment_file": "/no/such"}, "start-failure", "/no/such"),
        ({"start_pre": "false"}, "exit-code", "start_pre[0]: false ended with exit code 1"),
        (
            {"type": "notify-fd", "start_timeout": "300ms"},
            "timeout",
            "its start took longer than start_timeout (0.3 s)",
        ),
        ({"type": "notify-fd", "command": "true"}, "protocol", "exit code 0 before it said that it was ready"),
        ({"requires": "ghost"}, "dependency", "it requires ghost, and there is no such service"),
    ],
)
def test_why_a_start_failed_is_told(keys: dict[str, object], result: str, reason: str) -> None:
    service = {**sh("exec sleep 1000", restart="no"), **keys}
    with Bare({"a": service}) as guest:
        state = guest.awaited("a", lambda state: state["sub"] == "failed", "failed")
        assert state["result"] == result, state
        assert reason in state["reason"], state
        assert "a: " not in state["reason"], state  # its name is said beside it
