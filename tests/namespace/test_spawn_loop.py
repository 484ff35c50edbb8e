"""The spawner on the loop of a PID 1: births are told by themselves, and who holds up an exec holds up nobody else."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lcinit.supervisor import spawner as module
from lcinit.supervisor import spawner_process
from lcinit.supervisor.spawn import Program
from lcinit.supervisor.spawner import Starting
from lcinit.supervisor.watch import SignalStream
from tests.namespace.isolated import needs_root
from tests.namespace.spawn_rig import Ground, on_ground

pytestmark = needs_root

TRUE = Program(argv=("/bin/true",))
LAUNCHING = pytest.mark.parametrize("launching", [True, False], ids=["launched", "forked"])
SLEEP = Program(argv=("/bin/sleep", "30"))


def on_loop(
    work: Callable[[Ground, Looping], Awaitable[None]],
    *,
    before: Callable[[], object] | None = None,
    launching: bool = True,
) -> None:
    """Call it on a loop that reaps as PID 1's does."""

    def inside(ground: Ground) -> None:
        async def main() -> None:
            del ground.reaper.children[ground.spawner.pid]  # on a loop nobody needs to tell it of its end
            looping = Looping(ground)
            await work(ground, looping)

        asyncio.run(main())

    on_ground(inside, mapped=False, before=before, launching=launching)


class Looping:
    """What a supervisor does with the spawner."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.told: list[str] = []
        born = ground.spawner.on_pid

        def on_pid(starting: Starting) -> None:
            assert born is not None
            born(starting)
            self.told.append(starting.name)

        ground.spawner.on_pid = on_pid
        self.signals = SignalStream(ground.reaper, lambda _info: None)
        self.signals.start()

    def begin(self, program: Program) -> tuple[Starting, asyncio.Event]:
        """Begin it, and an event for its exec or its failure."""
        executed = asyncio.Event()
        starting = self.ground.spawner.begin(program)
        loop = asyncio.get_running_loop()

        def look() -> None:
            starting.take()
            if starting.done:
                loop.remove_reader(starting.fileno())
                executed.set()

        loop.add_reader(starting.fileno(), look)
        return starting, executed

    async def until(self, condition: Callable[[], Any]) -> None:
        """Leave everything to the loop until something is so."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it is not so in time"
            await asyncio.sleep(0.005)

    def status_of(self, starting: Starting) -> int | None:
        child = self.ground.children.get(starting)
        return None if child is None else child.status


def test_births_execs_and_ends_come_by_themselves() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        starts = [looping.begin(TRUE) for _ in range(50)] + [looping.begin(Program(argv=("/nowhere",)))]
        for _, executed in starts:
            await executed.wait()
        await looping.until(lambda: all(looping.status_of(starting) is not None for starting, _ in starts))
        assert [starting.failure is None for starting, _ in starts] == [True] * 50 + [False]
        assert len(looping.told) == 51

    on_loop(work)


@pytest.mark.row(51)
@LAUNCHING
def test_a_held_exec_holds_up_neither_pid_1_nor_the_spawner_nor_another_start(launching: bool) -> None:
    """A process of the guest has a lease on the program (fcntl(2), F_SETLEASE): the exec waits for its answer."""

    async def work(ground: Ground, looping: Looping) -> None:
        shutil.copy("/bin/sleep", "/tmp/held")
        file = os.open("/tmp/held", os.O_RDWR)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        held = [looping.begin(Program(argv=("/tmp/held", "30"))) for _ in range(5)]
        began = time.monotonic()
        for _, executed in [looping.begin(TRUE) for _ in range(20)]:
            await executed.wait()
        assert time.monotonic() - began < 3
        # they are known nevertheless, and can be ended
        await looping.until(lambda: all(starting.pid for starting, _ in held))
        assert not any(executed.is_set() for _, executed in held)
        for starting, _ in held[:2]:
            assert starting.pid is not None
            os.kill(starting.pid, signal.SIGKILL)
        await looping.until(lambda: all(looping.status_of(starting) == 137 for starting, _ in held[:2]))
        # the lease is given up, and the others run
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(file)
        for _, executed in held[2:]:
            await executed.wait()

    on_loop(work, launching=launching)


@pytest.mark.row(51)
@LAUNCHING
def test_a_held_child_does_not_hide_the_spawners_end(launching: bool) -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        shutil.copy("/bin/sleep", "/tmp/held")
        file = os.open("/tmp/held", os.O_RDWR)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        looping.begin(Program(argv=("/tmp/held", "30")))
        await looping.until(lambda: looping.told)
        os.kill(ground.spawner.pid, signal.SIGKILL)
        starting, executed = looping.begin(TRUE)
        await executed.wait()
        await looping.until(lambda: looping.status_of(starting) == 0)
        assert not ground.spawner.alive

    on_loop(work, launching=launching)


@pytest.mark.row(38)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_what_was_asked_of_a_spawner_that_is_lost_is_done_by_pid_1(how: int, capfd: Any) -> None:
    """Also where a process of the guest only stops it: after a while without a fork it is held for lost."""

    def sooner() -> None:
        module.PATIENCE = 0.3

    async def work(ground: Ground, looping: Looping) -> None:
        os.kill(ground.spawner.pid, how)
        starts = [looping.begin(SLEEP) for _ in range(30)]
        for starting, executed in starts:
            await executed.wait()
            assert starting.failure is None
        assert len({starting.pid for starting, _ in starts}) == 30
        assert not ground.spawner.alive
        after, executed = looping.begin(TRUE)
        await executed.wait()
        await looping.until(lambda: looping.status_of(after) == 0)

    on_loop(work, before=sooner)
    said = capfd.readouterr().err
    assert said.count("the spawner has ended") == 1, said
    assert said.count("has not forked for 0.3 s") == (how == signal.SIGSTOP), said


def test_an_idle_pid_1_is_not_woken_by_the_spawner() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        starting, executed = looping.begin(TRUE)
        await executed.wait()
        await looping.until(lambda: looping.status_of(starting) == 0)
        loop: Any = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    on_loop(work)


def test_more_than_the_channel_takes_is_sent_when_there_is_room() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        os.kill(ground.spawner.pid, signal.SIGSTOP)
        starts = [looping.begin(TRUE) for _ in range(400)]
        assert ground.spawner._queued, "the test needs a queue"
        await asyncio.sleep(0.1)
        os.kill(ground.spawner.pid, signal.SIGCONT)
        for _, executed in starts:
            await executed.wait()
        await looping.until(lambda: all(looping.status_of(starting) == 0 for starting, _ in starts))
        assert ground.spawner.alive

    on_loop(work)


def test_more_than_there_are_slots_for_run_at_once() -> None:
    """Their programs stay: no end of a child has the queue looked at."""

    async def work(ground: Ground, looping: Looping) -> None:
        count = module.SLOTS + 50
        starts = [looping.begin(SLEEP) for _ in range(count)]
        async with asyncio.timeout(20):
            for _, executed in starts:
                await executed.wait()
        assert len({starting.pid for starting, _ in starts}) == count

    on_loop(work)


def few_slots() -> None:
    """As few as a test can use up without keeping the whole machine busy."""
    module.PATIENCE = 0.5
    module.SLOTS = spawner_process.SLOTS = 100
    module.RESERVE = 20


@pytest.mark.row(51)
def test_execs_that_are_held_up_leave_room_for_other_starts() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        shutil.copy("/bin/sleep", "/tmp/held")
        file = os.open("/tmp/held", os.O_RDWR)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        held = [looping.begin(Program(argv=("/tmp/held", "30"))) for _ in range(module.SLOTS)]
        starts = [looping.begin(TRUE) for _ in range(20)]
        async with asyncio.timeout(20):
            for _, executed in starts:
                await executed.wait()
        assert not any(executed.is_set() for _, executed in held)
        assert ground.spawner.alive
        # and when they go on, all is as before
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(file)
        for _, executed in held:
            await executed.wait()
        assert len(ground.spawner._free) == module.SLOTS

    on_loop(work, before=few_slots)


def test_starts_whose_owners_have_left_them_use_no_slot_for_ever() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        for _ in range(5):
            for _ in range(80):
                ground.spawner.begin(TRUE).close()
            await asyncio.sleep(0.1)
        _, executed = looping.begin(TRUE)
        async with asyncio.timeout(20):
            await executed.wait()
        await looping.until(lambda: len(ground.children) == 401)
        assert len(os.listdir("/proc/self/fd")) < module.SLOTS + 50

    on_loop(work, before=few_slots)
