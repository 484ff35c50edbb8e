"""Rows 5, 6, 7 and 37 for programs that PID 1 starts in a guest by way of the spawner, and for the spawner itself."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import time

import pytest

from lcinit.supervisor import spawn
from lcinit.supervisor.spawn import Identity, Program
from tests.hostile.attacker import PRELUDE
from tests.hostile.attempt import Outcome
from tests.hostile.test_descriptors import ROB, denied
from tests.namespace.isolated import needs_root
from tests.namespace.ordinary import PYTHON, needs_system_python
from tests.namespace.spawn_rig import PATH, Ended, Ground, drained, on_ground, shell

pytestmark = [needs_root, needs_system_python]

USER = Identity(uid=4321, gid=4321)


def attacker(script: str, **fields: object) -> Program:
    """The guest's Python with a script."""
    argv = (PYTHON, "-ISc", f"{PRELUDE}\n{ROB}\n{script}")
    return Program(argv=argv, environment=(PATH,), **fields)  # type: ignore[arg-type]


def outcome(ended: Ended) -> Outcome:
    return Outcome(ended.status, ended.output.splitlines())


@pytest.mark.row(5)
def test_the_guests_root_can_rob_neither_the_spawner_nor_pid_1() -> None:
    def inside(ground: Ground) -> None:
        # it has been at work: what it makes must not change what it is
        assert ground.sh("true", identity=USER, private_tmp=True).status == 0
        script = f"rob('spawner', {ground.spawner.pid}, True); rob('PID 1', 1, True)"
        result = outcome(ground.run(attacker(script)))
        for role in ("spawner", "PID 1"):
            assert denied(result, role) == {}, result

    on_ground(inside, mapped=True)


@pytest.mark.row(5)
@pytest.mark.parametrize("who", [None, USER], ids=["root", "user"])
def test_nobody_can_rob_a_program_that_is_not_executed_yet(who: Identity | None) -> None:
    """It still has the spawner's memory while somebody in the guest holds up its exec."""

    def inside(ground: Ground) -> None:
        shutil.copy("/bin/sleep", "/tmp/held")
        file = os.open("/tmp/held", os.O_RDWR)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        held = ground.spawner.begin(
            Program(argv=("/tmp/held", "5"), identity=who, capabilities=("kill",) if who else None)
        )
        ground.until(lambda: held.pid)
        ground.until(lambda: status_of(held.pid, "Uid").split()[0] == str(0 if who is None else who.uid))
        script = f"rob('held', {held.pid}, True)"
        for attacks in {None, who}:
            result = outcome(ground.run(attacker(script, identity=attacks)))
            assert denied(result, "held") == {}, result
        assert not held.done

    on_ground(inside, mapped=True)


def status_of(pid: int | None, name: str) -> str:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith(f"{name}:"))


SEIZE = """
import time
pid, end = {pid}, time.monotonic() + 2
def tries():
    yield lambda: syscall(SYS_ptrace, PTRACE_SEIZE, pid, 0, 0)
    yield lambda: os.open(f"/proc/{{pid}}/mem", os.O_RDONLY)
    yield lambda: os.readlink(f"/proc/{{pid}}/fd/0")
    yield lambda: read_memory(pid)
    yield lambda: take_descriptor(pid)
count = won = 0
say("attacks", "begin")
while time.monotonic() < end and not os.path.exists("/tmp/entered"):
    for attack in tries():
        try:
            attack()
            won += 1
        except OSError:
            count += 1
say("won", won)
say("count", count)
"""


@pytest.mark.row(6)
def test_nobody_can_rob_the_spawner_while_it_enters() -> None:
    for _ in range(20):
        on_ground(enter_under_attack, mapped=True, enter=False)


def enter_under_attack(ground: Ground) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    attack = attacker(SEIZE.format(pid=ground.spawner.pid), stdout=writer, stderr=writer)
    pid, report = spawn.begin(attack)  # by PID 1, which is in the guest already
    child = ground.reaper.register(pid)
    os.close(report)
    os.close(writer)
    assert os.read(reader, 15) == b"attacks: begin\n"
    time.sleep(0.005)
    ground.spawner.enter()
    time.sleep(0.005)
    os.close(os.open("/tmp/entered", os.O_WRONLY | os.O_CREAT))
    ground.until(lambda: child.status is not None)
    said = dict(line.split(": ") for line in drained(reader).splitlines())
    assert said["won"] == "0", said
    assert int(said["count"]) > 20, said
    assert ground.sh("echo runs").output == "runs\n"


@pytest.mark.row(7)
def test_of_fifty_descriptors_a_program_gets_its_streams_alone() -> None:
    def fifty() -> None:
        for number in range(100, 150):
            fd = os.open("/" if number % 2 else "/etc/passwd", os.O_RDONLY)
            os.dup2(fd, number, inheritable=True)
            os.close(fd)

    def inside(ground: Ground) -> None:
        # one more that is listed is the shell's own, of the directory
        list_them = shell("for fd in /proc/$$/fd/*; do test -e $fd && echo $fd; done")
        for ended in (ground.run(list_them), ground.run_here(list_them)):
            assert [name.rpartition("/")[2] for name in ended.output.split()] == ["0", "1", "2"], ended
        script = "say('cwd', os.getcwd()); attempt('up', os.listdir, '/proc/self/cwd/..')"
        assert outcome(ground.run(attacker(script))).said("cwd") == ["/"]

    on_ground(inside, mapped=True, before=fifty)


@pytest.mark.row(37)
def test_nothing_of_the_outside_is_a_programs() -> None:
    """Environment, umask, ignored signals, and the number of descriptors that PID 1 allows itself."""

    def outside() -> None:
        os.environ["SECRET"] = "of the outside"
        os.umask(0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def inside(ground: Ground) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (given[0] - 1, given[1]))
        script = "env; umask; ulimit -n; while read -r line; do echo $line; done </proc/$$/status"
        killed = ground.spawner.pid
        results = [ground.sh(script)]
        os.kill(killed, signal.SIGKILL)
        ground.until(lambda: not ground.spawner.alive)
        results.append(ground.sh(script))  # by PID 1 itself
        for ended in results:
            lines = ended.output.splitlines()
            assert "0022" in lines, ended
            assert str(given[0]) in lines, ended
            assert "SECRET" not in ended.output
            assert {f"{name}: {0:016x}" for name in ("SigIgn", "SigBlk")} <= set(lines), ended
            assert set(names(lines)) <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}, ended

    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    on_ground(inside, mapped=True, before=outside)


def names(lines: list[str]) -> list[str]:
    """Of the variables."""
    return [line.partition("=")[0] for line in lines if "=" in line and not line.startswith(("x86", "Speculation"))]


def test_denials_are_what_these_tests_think_they_are() -> None:
    def inside(ground: Ground) -> None:
        # the same attempts do reach a program that runs
        starting = ground.spawner.begin(Program(argv=("/bin/sleep", "5")))
        ground.until(lambda: starting.pid and not starting.take() and starting.done)
        result = outcome(ground.run(attacker(f"rob('victim', {starting.pid}, True)")))
        won = denied(result, "victim")
        assert {"process_vm_readv", "pidfd_getfd", "read mem", "read environ"} <= set(won), result

    on_ground(inside, mapped=True)
