"""Rows 34, 38 and 40, and faults of PID 1's own: what a guest or a shortage does to a lcinit that stays."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.guests.test_nested import POWEROFF_DEATH
from tests.hostile.attacker import python_configuration
from tests.hostile.attempt import BOTH_LOOPS, configuration, outcome, start
from tests.hostile.faults import traced_with
from tests.lab.container import Container, cgroup1_mount, descendants

NESTED = {"mode": "tolerant"}


@contextmanager
def limited(container: Container, controller: str) -> Iterator[str]:
    """A cgroup v1 of its own around everything in the container; yields its directory."""
    mount = cgroup1_mount(controller)
    if mount is None:
        pytest.skip(f"this machine has no cgroup v1 hierarchy with {controller}")
    directory = os.path.join(mount, container.name)
    os.mkdir(directory)
    try:
        pid = container.pid1()
        while outside := {pid, *descendants(pid)} - members(directory):  # those that fork meanwhile are not born there
            for each in outside:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    put(directory, "cgroup.procs", each)
        yield directory
        container.stop()
    finally:
        deadline = time.monotonic() + 10
        while True:
            try:
                os.rmdir(directory)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                container.stop()
                time.sleep(0.05)


def members(directory: str) -> set[int]:
    """The processes of a cgroup."""
    with open(f"{directory}/cgroup.procs") as file:
        return set(map(int, file.read().split()))


def put(directory: str, name: str, value: int) -> None:
    with open(f"{directory}/{name}", "w") as file:
        file.write(str(value))


# Every process forks as long as it lives, also when it fails. It hears SIGTERM, and goes on.
BOMB = """
import time
signal.signal(signal.SIGTERM, lambda *_: None)
say("up", "yes")
time.sleep(0.5)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.02)
"""


@pytest.mark.row(34)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_fork_bomb_ends_at_the_deadline(loop: str) -> None:
    # the limit is the machine's protection; the bomb goes on against it
    config = python_configuration(BOMB, exec=NESTED, limits={"nproc": 300}, shutdown={"timeout": "2s"})
    with start(config, env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^up")
        time.sleep(1.5)
        pid = container.pid1()
        assert len(descendants(pid)) > 100
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        result = outcome(container, 15)
        took = time.monotonic() - began
    assert result.status == POWEROFF_DEATH, result
    assert 1.9 < took < 6, took
    assert any("has not ended within 2 s: killing it" in line for line in result.lines), result


@pytest.mark.row(34)
def test_a_fork_bomb_that_has_taken_every_process_of_the_container_ends_at_once_when_asked_so() -> None:
    # more than the container may have, and less than would hurt the machine if the bomb got away
    config = python_configuration(BOMB, exec=NESTED, limits={"nproc": 200}, shutdown={"timeout": "60s"})
    with start(config) as container:
        container.expect("^up")
        with limited(container, "pids") as directory:
            put(directory, "pids.max", 80)
            time.sleep(1.5)
            assert read(directory, "pids.current") == 80
            began = time.monotonic()
            os.kill(container.pid1(), signal.SIGRTMIN + 14)
            result = outcome(container, 10)
            assert time.monotonic() - began < 3
    assert result.status == POWEROFF_DEATH, result


def read(directory: str, name: str) -> int:
    with open(f"{directory}/{name}") as file:
        return int(file.read())


@pytest.mark.row(34)
@pytest.mark.parametrize("pid", ["nested", "shared"])
def test_a_start_that_finds_no_room_for_a_process_is_tried_again(pid: str) -> None:
    config = configuration("echo began; sleep 0.7; exit 3", exec={**NESTED, "pid": pid, "on_exit": "restart"})
    with start(config) as container:
        container.expect("^began")
        with limited(container, "pids") as directory:
            put(directory, "pids.max", 1)
            place = container.expect(r"error: .*Resource temporarily unavailable.*again in (\d+) s", 10).end()
            put(directory, "pids.max", 50)
            container.expect("^began", 15, start=place)
            put(directory, "pids.max", 1)
            container.expect(r"error: .*Resource temporarily unavailable", 15, start=place)
            began = time.monotonic()
            os.kill(container.pid1(), signal.SIGTERM)  # and a stop does not wait for room
            result = outcome(container, 5)
            assert time.monotonic() - began < 2
    assert "unexpected" not in str(result), result


HOG = """
import time
while not os.path.exists("/tmp/go"):
    time.sleep(0.01)
hoard = []
while True:
    hoard.append(bytearray(os.urandom(1 << 16)) * 64)
"""


@pytest.mark.row(38)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_guest_that_takes_all_the_memory_dies_and_pid_1_says_so(loop: str, tmp_path: object) -> None:
    flags = f"{tmp_path}/flags"
    os.mkdir(flags)
    os.chmod(flags, 0o755)
    config = python_configuration(
        HOG, exec={**NESTED, "on_exit": "restart"}, mounts=[{"source": "/mnt/flags", "target": "/tmp"}]
    )
    with start(config, binds=[(flags, "/mnt/flags")], env={"LCINIT_EVENT_LOOP": loop}) as container:
        guest, pid = container.guest_pid1(), container.pid1()
        time.sleep(0.5)
        with limited(container, "memory") as directory:
            put(directory, "memory.limit_in_bytes", 64 << 20)
            with open(f"{flags}/go", "w"):
                container.expect(r"the guest is started again in 1 s", 30)
            assert guest not in descendants(pid)
            os.unlink(f"{flags}/go")
            place = len(container.console())
            assert container.pid1() == pid
            container.guest_pid1(10)  # and has gone on with its work
            time.sleep(0.5)
            os.kill(pid, signal.SIGRTMIN + 14)
            result = outcome(container, 5)
            assert result.status == POWEROFF_DEATH, (place, result)


def boot_by(command: str, config: str, **options: object) -> Container:
    """A container whose PID 1 is a shell that makes something scarce and then becomes lcinit."""
    return start(config, init="/bin/sh", args=("-c", command), **options)  # type: ignore[arg-type]


SCARCE = {
    "descriptors": "ulimit -n 32; exec /sbin/init",
    "stack and core": "ulimit -c 0; ulimit -s 512; exec /sbin/init",
    "address space": "ulimit -v 400000; exec /sbin/init",
}


@pytest.mark.row(40)
@pytest.mark.parametrize("what", sorted(SCARCE))
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_with_little_of_something_the_guest_still_comes_up_and_is_stopped(what: str, loop: str) -> None:
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with boot_by(SCARCE[what], configuration(script, exec=NESTED), env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^up")
        time.sleep(0.5)
        os.kill(container.pid1(), signal.SIGTERM)
        result = outcome(container, 10)
    assert result.status == 5, result
    assert "unexpected" not in str(result), result


@pytest.mark.row(40)
def test_a_control_socket_that_cannot_be_had_is_said_and_the_guest_comes_up() -> None:
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
    driver = traced_with("--inject=listen:error=EMFILE")
    with start(configuration(script, exec=NESTED), driver=driver) as container:
        container.expect("^up", 20)
        container.expect(r"(warning|error): .*control", 15)
        os.kill(container.pid1(), signal.SIGTERM)
        assert container.wait(15).status == 5


@pytest.mark.parametrize("calls", ["pidfd_send_signal", "pidfd_send_signal,kill"])
def test_a_guest_that_cannot_be_signalled_is_killed_all_the_same(calls: str) -> None:
    """By its cgroup, or its cgroup and its number: whatever still works."""
    script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"
    driver = traced_with(*(f"--inject={call}:error=EIO" for call in calls.split(",")))
    with start(configuration(script, exec=NESTED, shutdown={"timeout": "1s"}), driver=driver) as container:
        container.expect("^up", 20)
        time.sleep(1)
        os.kill(container.pid1(), signal.SIGTERM)
        result = outcome(container, 15)
    # the fault is unshare(1)'s too, which then cannot die of the signal that its child died of
    assert result.status == (1 if "kill" in calls.split(",") else POWEROFF_DEATH), result
    assert "asked" not in result.lines


@pytest.mark.parametrize("pid1", [True, False])
def test_a_pid_1_that_cannot_go_on_says_so_and_the_guest_ends_with_it(pid1: bool) -> None:
    """Its loop's own call fails for good: there is nothing left to wait with."""
    driver = traced_with("--inject=epoll_wait:error=EBADF:when=12+")
    config = configuration("echo up; while :; do sleep 0.05; done", exec=NESTED)
    how = "lcinit init" if pid1 else "lcinit init --no-pid1"
    # whoever is PID 1 then sees whether the guest is gone: only it and its own children are left
    after = "echo status $?; sleep 0.3; echo left $(cat /proc/[0-9]*/comm | grep -c sleep)"
    command = f"unshare --pid --fork --mount-proc {how}; {after}" if pid1 else f"{how}; {after}"
    with start(config, driver=driver, init="/bin/sh", args=("-c", command), env={"LCINIT_EVENT_LOOP": "asyncio"}) as c:
        c.expect("^up", 20)
        for _ in range(40):
            if not c.running() or b"status" in c.console():
                break
            tell(c)
            time.sleep(0.1)
        result = outcome(c, 10)
    assert "status 255" in result.lines, result
    assert sum("lcinit cannot go on" in line for line in result.errors()) == 1, result
    assert "left 0" in result.lines, result
    assert "Traceback" not in str(result)


def tell(container: Container) -> None:
    """Something for its loop to do."""
    for pid in descendants(container.pid1()):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        if b"init" in words and b"unshare" not in words[0]:
            os.kill(pid, signal.SIGWINCH)
            return
