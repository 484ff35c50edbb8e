"""Starting the guest again in place, and being stopped at every moment of a start."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.guests.test_nested import POWEROFF_DEATH
from tests.hostile.attacker import python_configuration
from tests.hostile.attempt import BOTH_LOOPS, Outcome, boot, configuration, outcome, start
from tests.lab.container import Container, descendants

NESTED = {"mode": "tolerant"}
FEW, MANY = 10, 110

# Reboots as often as the test wants, and stands still where it counts. 169 is reboot(2), 0x1234567 RESTART.
REBOOTS = f"""
import time
count = len(os.listdir("/tmp"))
os.close(os.open(f"/tmp/{{count}}", os.O_CREAT))
say("boot", count)
if count in ({FEW}, {MANY}):
    while not os.path.exists(f"/tmp/go-{{count}}"):
        time.sleep(0.01)
    os.unlink(f"/tmp/go-{{count}}")
syscall(169, 0xfee1dead, 0x28121969, 0x1234567, 0)
"""


def counts(container: Container) -> dict[str, int]:
    """What must not grow, of PID 1 and of the container."""
    pid = container.pid1()
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        mounts = len(file.readlines())
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        zombies_and_threads = next(line for line in file if line.startswith("Threads:"))
    cgroups = sum(len(names) for _, names, _ in os.walk(container.cgroup))
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "mounts": mounts,
        "processes": len(descendants(pid)),
        "threads": int(zombies_and_threads.split()[1]),
        "cgroups": cgroups,
    }


def memory(container: Container) -> int:
    """PID 1's own memory in KiB: what it has written, whoever else runs the same program."""
    with open(f"/proc/{container.pid1()}/smaps_rollup", encoding="utf-8") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_hundred_reboots_leave_nothing_behind(loop: str, tmp_path: object) -> None:
    flags = f"{tmp_path}/flags"
    os.mkdir(flags)
    os.chmod(flags, 0o777)
    config = python_configuration(
        REBOOTS,
        exec={**NESTED, "on_reboot": "restart"},
        setup={"mode": "auto", "before": ["sh -c 'echo set up; mount -t tmpfs nothing /mnt/cache'"]},
        mounts=[{"source": "/mnt/flags", "target": "/tmp"}],
    )
    with start(config, binds=[(flags, "/mnt/flags")], env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect(rf"^boot: {FEW}\b", 60)
        time.sleep(0.3)
        few, small = counts(container), memory(container)
        with open(f"{flags}/go-{FEW}", "w"):
            container.expect(rf"^boot: {MANY}\b", 120)
        time.sleep(0.3)
        many, large = counts(container), memory(container)
        text = container.console().decode()
        os.kill(container.pid1(), signal.SIGRTMIN + 14)
        assert container.wait(10).status == POWEROFF_DEATH
    assert many == few
    assert large - small < 1500, f"{small} KiB, {large} KiB: more than the history and the events that are kept"
    assert text.count("set up\n") == MANY + 1  # for each start again
    assert "left" not in text


SLOW: dict[str, dict[str, Any]] = {
    "setup.before": {"setup": {"mode": "auto", "before": ["sh -c 'echo slow; sleep 1000'"]}},
    "setup.after": {"setup": {"mode": "auto", "after": ["sh -c 'echo slow; sleep 1000'"]}},
    "setup.outside": {"setup": {"mode": "auto", "outside": ["sh -c 'echo slow; sleep 1000'"]}},
    "exec.before": {"exec": {**NESTED, "before": [["/bin/sh", "-c", "echo slow; sleep 1000"]]}},
}


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("phase", sorted(SLOW))
def test_a_stop_request_during_the_start_is_obeyed_and_the_command_is_gone(phase: str, loop: str) -> None:
    keys: dict[str, Any] = {"exec": NESTED, **SLOW[phase]}
    with start(configuration("echo never", **keys), env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^slow", 10)
        time.sleep(0.2)
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        result = outcome(container, 10)
        took = time.monotonic() - began
    assert took < 1.5, (took, result)
    assert result.status == POWEROFF_DEATH, result
    assert "never" not in result.lines
    assert result.errors() == [], result


def test_a_reboot_that_is_asked_for_during_the_start_begins_a_new_one() -> None:
    setup = {"mode": "auto", "before": ["sh -c 'echo slow; sleep 1000'"]}
    with start(configuration("true", exec=NESTED, setup=setup)) as container:
        place = container.expect("^slow").end()
        pid = container.pid1()
        os.kill(pid, signal.SIGRTMIN + 5)
        container.expect("^slow", 10, start=place)
        assert container.pid1() == pid
        time.sleep(0.2)
        assert [name for name in map(command_of, descendants(pid)) if name == "sleep 1000"] == ["sleep 1000"]


def command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


AFTER = ["sh -c 'echo one; exit 3'", "/nowhere", "sh -c 'echo two'"]


def test_what_comes_after_the_guest_runs_all_of_it_and_changes_no_exit_code() -> None:
    result = boot(configuration("exit 4", exec=NESTED, shutdown={"after": AFTER}))
    assert result.status == 4, result
    assert [line for line in result.lines if line in ("one", "two")] == ["one", "two"]
    errors = result.errors()
    assert len(errors) == 2
    assert "shutdown.after[0]" in errors[0]
    assert "not found" in errors[1]


def test_signals_are_heard_after_commands_that_came_after_a_guest() -> None:
    """Those commands must not leave anybody behind who takes PID 1's signals."""
    config = configuration(
        "echo began; sleep 0.2; exit 5",
        exec={**NESTED, "on_exit": "restart"},
        shutdown={"after": "sh -c 'echo after'"},
    )
    for _ in range(3):
        with start(config) as container:
            place = container.expect("^after").end()
            container.expect("^began", 10, start=place)
            os.kill(container.pid1(), signal.SIGTERM)
            assert container.wait(5).status in (5, POWEROFF_DEATH)


def stopped_after(word: int, shutdown: dict[str, Any], **keys: Any) -> tuple[Outcome, float]:
    """The container whose guest has ended by itself, stopped while shutdown.after runs; seconds until its end."""
    exec_keys = {**NESTED, **keys}
    with start(configuration("exit 6", exec=exec_keys, shutdown=shutdown)) as container:
        container.expect("^cleaning", 10)
        time.sleep(0.2)
        began = time.monotonic()
        os.kill(container.pid1(), word)
        return outcome(container, 10), time.monotonic() - began


def test_a_stop_request_lets_the_commands_after_the_guest_come_to_their_end() -> None:
    clean = {"after": "sh -c 'echo cleaning; sleep 1; echo clean'"}
    result, _ = stopped_after(signal.SIGTERM, clean, on_exit="restart")
    assert "clean" in result.lines, result
    assert result.lines.count("cleaning") == 1, result
    assert result.status == POWEROFF_DEATH


def test_at_once_does_not_wait_for_the_commands_after_the_guest() -> None:
    result, took = stopped_after(signal.SIGRTMIN + 14, {"after": "sh -c 'echo cleaning; sleep 1000'"})
    assert took < 1
    assert result.status == 6, result


def test_commands_after_the_guest_have_as_long_as_it_had_to_stop() -> None:
    began = time.monotonic()
    keys: dict[str, Any] = {"exec": NESTED, "shutdown": {"timeout": "1s", "after": "sleep 1000"}}
    result = boot(configuration("exit 6", **keys))
    assert time.monotonic() - began < 4
    assert result.status == 6
    assert any("shutdown.after took longer than 1 s" in line for line in result.errors()), result


def test_a_start_that_fails_ends_with_the_code_of_what_failed() -> None:
    failing: dict[str, tuple[dict[str, Any], int]] = {
        "setup.before[0]": ({"setup": {"mode": "auto", "before": ["sh -c 'exit 33'"]}, "exec": NESTED}, 33),
        "exec.before[0]": ({"exec": {**NESTED, "before": ["/bin/false"]}}, 1),
        "/etc/passwd": ({"exec": {**NESTED, "command": "/etc/passwd"}}, 126),
        "the guest root has no /nowhere": ({"exec": {**NESTED, "command": "/nowhere"}}, 127),
    }
    for what, (keys, status) in failing.items():
        result = boot(configuration("true", **keys))
        assert len(result.errors()) == 1, result
        assert what in result.errors()[0], result
        assert result.status == status, result


def test_a_start_that_fails_gives_a_shell_where_one_is_wanted() -> None:
    keys: dict[str, Any] = {
        "setup": {"mode": "auto", "before": ["sh -c 'exit 33'"]},
        "exec": {**NESTED, "on_failure": "shell"},
    }
    with start(configuration("true", **keys), console="pty") as container:
        container.expect("setup.before.0.: ")
        container.expect(r"[#$] $", 10)
        container.send(b"echo rescued $((6 * 7)); exit 9\n")
        container.expect("rescued 42")
        assert container.wait(10).status == 33


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_builder_that_is_killed_is_a_start_that_failed(loop: str) -> None:
    keys: dict[str, Any] = {"exec": NESTED, **SLOW["setup.before"]}
    with start(configuration("echo never", **keys), env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^slow", 10)
        pid = container.pid1()
        os.kill(descendants(pid)[0], signal.SIGKILL)
        result = outcome(container, 10)
    assert result.status == 254, result
    assert result.errors() == ["the start of the guest ended without a word"], result
