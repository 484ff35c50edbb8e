"""Real guests under a lcinit that stays: they come up, and end as they were asked to or as they like."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.hostile.attacker import attack
from tests.hostile.attempt import BOTH_LOOPS, boot, configuration, outcome, start
from tests.lab import guests
from tests.lab.container import Container, descendants
from tests.lab.probe import SYSTEMD_STATE, await_probe, layer_for

REBOOT_DEATH = 128 + 1  # SIGHUP: what a PID namespace's PID 1 dies of when it calls reboot(RESTART)
POWEROFF_DEATH = 128 + 2  # SIGINT: the same for POWER_OFF and HALT
UP = r"^lcinit: the guest's \S+ is up as process \d+"
MAPPED = {"id_map": {"users": "0 1000000 65536"}}
FACTS = """\
echo "uid_map $(tr -s ' ' < /proc/1/uid_map)"
echo "pid1 $(cat /proc/1/comm)"
echo "cgroup $(grep ^0: /proc/1/cgroup)"
echo "processes $(ls /proc | grep -c '^[0-9]')"
echo "console $(stat -c '%u %F' /dev/console)"
"""


def tolerant(**keys: Any) -> str:
    """A configuration with a layer over the guest root, in a mode that stays."""
    mapped = bool(keys.pop("mapped", False))
    before = ["overlay -- /mnt/layer"]
    if mapped:
        before.insert(0, "mount-idmapped --map-mount=b:0:1000000:65536 /mnt/root /mnt/root")
    exec_keys = {"mode": "tolerant", **keys.pop("exec", {})}
    keys = {**(MAPPED if mapped else {}), "setup": {"mode": "auto", "before": before}, **keys}
    return configuration(mapped=False, exec=exec_keys, **keys)


def boot_guest(
    container: Callable[..., Container],
    boot_root: str,
    name: str,
    directory: str,
    script: str,
    *,
    manager: str = "unshare",
    mapped: bool = False,
    after: str | None = "poweroff",
    env: dict[str, str] | None = None,
    **keys: Any,
) -> Container:
    layer = layer_for(f"{directory}/layer", name, script, after)
    if mapped:
        guests.shift_owners(layer, 1000000)
    config = tolerant(mapped=mapped, **keys)
    running = container(manager, console="pty")
    return running.start(
        boot_root, guest_root=guests.guest(name), config=config, binds=[(layer, "/mnt/layer")], env=env
    )


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
@pytest.mark.parametrize("name", ["systemd252", "busybox"])
def test_a_guest_comes_up_and_its_poweroff_is_lcinits(
    name: str, mapped: bool, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    script = FACTS + (SYSTEMD_STATE if name.startswith("systemd") else "")
    running = boot_guest(container, boot_root, name, str(tmp_path), script, mapped=mapped)
    result = await_probe(running, 20)
    assert result.value("uid_map") == ("0 1000000 65536" if mapped else "0 0 4294967295")
    # the guest's own cgroup is the root that it sees; systemd makes others below it
    assert result.value("cgroup") == ("0::/init.scope" if name.startswith("systemd") else "0::/")
    assert result.value("console") == "0 character special file"
    if name.startswith("systemd"):
        assert result.value("state") == "running"
        assert result.values("failed") == []
    assert running.wait(20).status == POWEROFF_DEATH


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize(
    ("on_reboot", "status"), [("propagate", REBOOT_DEATH), ("exit", POWEROFF_DEATH), ("restart", None)]
)
def test_a_reboot_from_inside_is_what_on_reboot_says(
    on_reboot: str, status: int | None, loop: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = boot_guest(
        container,
        boot_root,
        "busybox",
        str(tmp_path),
        FACTS,
        after="reboot",
        exec={"on_reboot": on_reboot},
        env={"LCINIT_EVENT_LOOP": loop},
    )
    await_probe(running, 20)
    if status is not None:
        assert running.wait(20).status == status
        return
    first = running.expect(UP)
    running.expect(UP, 20, start=first.end())  # the same PID 1 starts it again
    os.kill(running.pid1(), signal.SIGRTMIN + 14)
    assert running.wait(10).status == POWEROFF_DEATH


@pytest.mark.parametrize("code", [0, 1, 2, 77, 127, 128, 129, 130, 137, 143, 254, 255])
def test_the_exit_code_of_a_plain_command_is_lcinits(code: int) -> None:
    loop = BOTH_LOOPS[code % 2]
    assert (
        boot(configuration(f"exit {code}", exec={"mode": "tolerant"}), env={"LCINIT_EVENT_LOOP": loop}).status == code
    )


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_killed_init_ends_lcinit_as_a_shell_would_say_it(loop: str) -> None:
    with start(
        configuration("echo up; exec sleep 100", exec={"mode": "tolerant"}), env={"LCINIT_EVENT_LOOP": loop}
    ) as container:
        container.expect("^up")
        os.kill(container.guest_pid1(), signal.SIGKILL)
        assert container.wait(10).status == 128 + signal.SIGKILL


@pytest.mark.parametrize("delay", [0, 1], ids=["at-once", "later"])
@pytest.mark.parametrize(("command", "status"), [(0x01234567, REBOOT_DEATH), (0x4321FEDC, POWEROFF_DEATH)])
def test_a_command_that_calls_reboot_is_told_from_one_that_exits(command: int, status: int, delay: int) -> None:
    """The numbers are LINUX_REBOOT_CMD_RESTART and POWER_OFF of linux/reboot.h, 169 is reboot(2) of x86-64."""
    keys = {"exec": {"mode": "tolerant", "on_reboot": "propagate"}}
    script = f"import time; time.sleep({delay}); syscall(169, 0xfee1dead, 0x28121969, {command}, 0)"
    assert attack(script, keys=keys).status == status
    outcome = boot(configuration(f"sleep {delay}; exit {status}", exec={"mode": "tolerant", "on_reboot": "exit"}))
    assert outcome.status == status


def test_a_killed_init_is_started_again_at_growing_intervals() -> None:
    config = configuration("echo began; exec sleep 100", exec={"mode": "tolerant", "on_exit": "restart"})
    with start(config) as container:
        place = 0
        times = []
        for wait in (1, 2, 4):
            place = container.expect(r"^began", 15, start=place).end()
            times.append(time.monotonic())
            os.kill(container.guest_pid1(), signal.SIGKILL)
            place = container.expect(r"lcinit: the guest has ended: signal SIGKILL", 5, start=place).end()
            found = container.expect(r"started again in (\d+) s", 5, start=place)
            assert int(found.group(1)) == wait
            place = found.end()
        assert 0.9 <= times[1] - times[0] <= 2.5
        assert 1.9 <= times[2] - times[1] <= 4
        # a stop request does not wait for the interval's end
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        assert container.wait(3).status == POWEROFF_DEATH
        assert time.monotonic() - began < 2


STUBBORN = "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_guest_that_ignores_every_request_is_killed_at_the_deadline(loop: str) -> None:
    config = configuration(STUBBORN, exec={"mode": "tolerant"}, shutdown={"timeout": "2s"})
    with start(config, env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^up")
        time.sleep(0.3)
        began = time.monotonic()
        pid = container.pid1()
        for _ in range(3):  # only the first one counts
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.2)
        result = outcome(container, 10)
        took = time.monotonic() - began
        assert 1.9 < took < 3.2, took
        assert result.lines.count("asked") == 1, str(result)
        assert result.status == POWEROFF_DEATH
        assert any("has not ended within 2 s: killing it" in line for line in result.lines), str(result)


def test_progress_is_said_while_a_guest_takes_its_time() -> None:
    script = "sleep 1000 & trap 'sleep 5.5; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    with start(configuration(script, exec={"mode": "tolerant"}, shutdown={"timeout": "20s"})) as container:
        container.expect("^up")
        time.sleep(0.5)
        os.kill(container.pid1(), signal.SIGTERM)
        result = outcome(container, 15)
        said = [line for line in result.lines if "waiting for" in line]
        assert len(said) == 1, str(result)
        assert re.search(r"warning: waiting for the guest's command and \d more process(es)?, 5 of 20 s", said[0])
        assert result.status == 3  # what it says itself is not lost


def test_at_once_does_not_wait_even_when_a_stop_is_under_way() -> None:
    config = configuration(STUBBORN, exec={"mode": "tolerant"}, shutdown={"timeout": "60s"})
    with start(config) as container:
        container.expect("^up")
        time.sleep(0.3)
        os.kill(container.pid1(), signal.SIGTERM)
        container.expect("^asked")
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGRTMIN + 14)
        assert container.wait(5).status == POWEROFF_DEATH
        assert time.monotonic() - began < 1.5


def test_a_guest_that_has_ended_leaves_no_process_and_no_cgroup() -> None:
    """The last of them is gone before lcinit says that the guest has ended: here a restart shows what is left."""
    script = "for i in 1 2 3 4 5; do setsid sleep 1000 & done; echo up $(ls /proc | grep -c '^[0-9]'); exit 0"
    with start(configuration(script, exec={"mode": "tolerant", "on_exit": "restart"})) as container:
        container.expect(r"started again in")
        pid = container.pid1()
        assert descendants(pid) == []
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            own = re.search(r"^0::(.*)$", file.read(), re.MULTILINE)
        assert own is not None
        directory = os.path.join(os.path.dirname(container.cgroup), own.group(1).lstrip("/"))
        assert [each.name for each in os.scandir(directory) if each.is_dir()] == []


@pytest.mark.parametrize("delay", [0, 0.02, 0.05, 0.1, 0.15, 0.25])
def test_a_request_in_the_first_moments_of_a_guest_reaches_it(delay: float) -> None:
    """PID 1 imports its loop by then: what is pending is taken once it is known that the guest is up."""
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done"
    for loop in BOTH_LOOPS:
        with start(configuration(script, exec={"mode": "tolerant"}), env={"LCINIT_EVENT_LOOP": loop}) as container:
            container.expect("^up")
            time.sleep(delay)
            os.kill(container.pid1(), signal.SIGTERM)
            assert container.wait(10).status == 5, container.console()


def test_a_frozen_guest_stands_still_and_is_thawed_to_be_stopped() -> None:
    script = "trap 'exit 5' TERM; while :; do echo tick; sleep 0.02; done"
    with start(configuration(script, exec={"mode": "tolerant"})) as container:
        container.expect("^tick")
        deadline = time.monotonic() + 10
        while (done := container.run("/usr/lib/lcinit/bin/lcinit", "freeze")).returncode != 0:
            assert time.monotonic() < deadline, done.stderr  # the control socket comes a little later
            time.sleep(0.1)
        time.sleep(0.2)
        ticks = container.console().count(b"tick")
        time.sleep(0.5)
        assert container.console().count(b"tick") == ticks
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        assert container.wait(10).status == 5
        assert time.monotonic() - began < 2
