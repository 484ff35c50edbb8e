"""Starting processes for services on the loop of a PID 1: what is told of each, and in which order."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from lcinit.errors import CommandFailed
from lcinit.service import launch
from lcinit.service.launch import Launcher, Process
from lcinit.supervisor.reaper import Status
from lcinit.supervisor.spawn import Program
from tests.namespace.isolated import needs_root
from tests.namespace.spawn_rig import Ground
from tests.namespace.test_spawn_loop import Looping, on_loop

pytestmark = needs_root

TRUE = Program(argv=("/bin/true",))
NOWHERE = Program(argv=("/nowhere",))
SLEEP = Program(argv=("/bin/sleep", "30"))


class Told:
    """What was told of processes, in its order."""

    def __init__(self) -> None:
        self.of: dict[Process, list[str]] = {}

    def executed(self, process: Process) -> None:
        assert process.pid is not None
        self.of.setdefault(process, []).append("executed")

    def unstartable(self, process: Process, failure: CommandFailed) -> None:
        self.of.setdefault(process, []).append(f"unstartable: {failure.exit_code}")

    def ended(self, process: Process, status: Status) -> None:
        self.of.setdefault(process, []).append(f"ended: {status}")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_of_many_at_once_each_is_told_in_order_and_nothing_is_left_open() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        told, launcher = Told(), Launcher(ground.spawner, ground.reaper)
        before = descriptors()
        started = [launcher.launch(NOWHERE if n % 10 == 9 else TRUE, told) for n in range(200)]
        await looping.until(lambda: all(not process.alive for process in started))
        await looping.until(lambda: len(told.of) == 200)
        right = (["executed", "ended: 0"], ["unstartable: 127"])
        assert [told.of[process] for process in started] == [right[n % 10 == 9] for n in range(200)]
        assert descriptors() == before

    on_loop(work)


def test_one_whose_exec_takes_longer_is_told_when_it_is_executed() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        told, launcher = Told(), Launcher(ground.spawner, ground.reaper)
        os.kill(ground.spawner.pid, 19)  # SIGSTOP: nothing is born for a while
        process = launcher.launch(SLEEP, told)
        await asyncio.sleep(0.1)
        assert (process.pid, told.of) == (None, {})
        os.kill(ground.spawner.pid, 18)
        await looping.until(lambda: told.of.get(process) == ["executed"])
        process.signal(15)
        await looping.until(lambda: not process.alive)
        assert told.of[process] == ["executed", "ended: 143"]

    on_loop(work)


def test_a_start_that_the_kernel_has_no_room_to_watch_is_told_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        told, launcher = Told(), Launcher(ground.spawner, ground.reaper)
        loop = asyncio.get_running_loop()
        refused: list[Any] = []

        def no_room(fd: int, *_callback: object) -> None:
            refused.append(fd)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.kill(ground.spawner.pid, 19)
        process = launcher.launch(SLEEP, told)
        monkeypatch.setattr(launch, "AGAIN", 0.01)
        monkeypatch.setattr(loop, "add_reader", no_room)
        await looping.until(lambda: len(refused) > 3)
        os.kill(ground.spawner.pid, 18)
        await looping.until(lambda: told.of.get(process) == ["executed"])
        count = len(refused)
        await asyncio.sleep(0.05)
        assert len(refused) == count  # it is looked at no longer
        process.signal(9)
        await looping.until(lambda: not process.alive)

    on_loop(work)


def test_nobody_is_told_of_one_that_was_orphaned() -> None:
    async def work(ground: Ground, looping: Looping) -> None:
        told, launcher = Told(), Launcher(ground.spawner, ground.reaper)
        process = launcher.launch(TRUE, told)
        process.orphan()
        await looping.until(lambda: not process.alive)
        assert (process.executed, told.of) == (True, {})

    on_loop(work)
