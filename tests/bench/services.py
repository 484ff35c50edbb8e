"""Services: how soon all of them are up, how soon one that was killed is up again, what that many cost."""

from __future__ import annotations

import os
import select
import signal
import statistics
import time
from collections.abc import Callable

from tests.bench.quiet import pss, ticks, wake_ups
from tests.bench.runs import Failed, Peer, Row, Run, in_turn
from tests.bench.stage import CGROUP, Stage
from tests.bench.supervisors import Scene

COUNT, MANY = 200, 2_000
PATIENCE = 60.0  # seconds for all services to be up
RESTARTS = 6
PAUSE = 1.1  # seconds before each kill: runsv(8) waits where a service ran for less than one
IDLE = 10.0


class Marks:
    """The reading end of a scene's FIFO."""

    def __init__(self, scene: Scene) -> None:
        self._fd = os.open(scene.marks, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""

    def wait_for(self, count: int) -> list[int]:
        """The PIDs of the next services that are up."""
        pids: list[int] = []
        deadline = time.monotonic() + PATIENCE
        while len(pids) < count:
            if not select.select([self._fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failed(f"{len(pids)} of {count} services were up after {PATIENCE:g} s")
            *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
            pids += [int(line.split()[1]) for line in lines]
        return pids

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def starting(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Milliseconds from the exec of the supervisor until the last service has written its mark."""
    few = Scene(stage, "few", COUNT)
    own = [few.lcinit(), few.lcinit_of_files()]
    medians = in_turn([*own, *few.peers()], rounds, lambda peer: _time_to_start(few, peer), report)
    budgets = {"s6": 0.7}
    rows = []
    for each in own:
        value = medians[each.name][0]
        what = f"{COUNT} services up" + ("" if each is own[0] else ", of files")
        rows += [
            Row(what, value, "ms", peer.name, medians[peer.name][0], budgets.get(peer.name)) for peer in few.peers()
        ]
    many = Scene(stage, "many", MANY)
    of_files = own[1].name
    large = in_turn([many.lcinit_of_files()], min(rounds, 7), lambda peer: _time_to_start(many, peer), report)[of_files]
    rows.append(Row(f"{MANY:,} services up, of files", large[0], "ms", f"{COUNT} services", medians[of_files][0], 12.0))
    return rows


def _time_to_start(scene: Scene, peer: Peer) -> tuple[float]:
    marks = Marks(scene)
    try:
        with Run(peer, CGROUP) as run:
            marks.wait_for(scene.count)
            return ((time.perf_counter() - run.started) * 1000,)
    finally:
        marks.close()


def restarting(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Milliseconds from SIGKILL of a service until its successor has written its mark."""
    scene = Scene(stage, "one", 1)
    peers = [scene.lcinit(), *(peer for peer in scene.peers() if peer.name == "runit")]

    def measure(peer: Peer) -> tuple[float, float]:
        marks = Marks(scene)
        spent = []
        try:
            with Run(peer, CGROUP) as run:
                pid = marks.wait_for(1)[0]
                for _ in range(RESTARTS):
                    time.sleep(PAUSE)
                    outer = _outer(run, pid)
                    began = time.perf_counter()
                    os.kill(outer, signal.SIGKILL)
                    pid = marks.wait_for(1)[0]
                    spent.append((time.perf_counter() - began) * 1000)
        finally:
            marks.close()
        return statistics.median(spent), max(spent)

    medians = in_turn(peers, rounds, measure, report)
    rows = []
    for place, (what, budget) in enumerate((("restart, p50", 1.0), (f"restart, longest of {RESTARTS}", None))):
        own = medians["lcinit"][place]
        rows += [Row(what, own, "ms", peer.name, medians[peer.name][place], budget) for peer in peers[1:]]
    return rows


def costing(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """The proportional set size of a supervisor's own processes with all services up; lcinit's wake-ups when idle."""
    scene = Scene(stage, "cost", COUNT)
    peers = [scene.lcinit(), *scene.peers()]
    idle: list[tuple[int, int]] = []

    def measure(peer: Peer) -> tuple[float]:
        marks = Marks(scene)
        try:
            with Run(peer, CGROUP) as run:
                marks.wait_for(scene.count)
                time.sleep(1)
                own = [pid for pid in run.processes() if _command(pid) != "sleep"]
                memory = sum(pss(pid) for pid in own) / 1024
                if peer.name == "lcinit" and not idle:
                    time.sleep(2)
                    before = wake_ups(own), ticks(own)
                    time.sleep(IDLE)
                    idle.append((wake_ups(own) - before[0], ticks(own) - before[1]))
                return (memory,)
        finally:
            marks.close()

    medians = in_turn(peers, min(rounds, 3), measure, report)
    own = medians["lcinit"][0]
    what = f"memory with {COUNT} services"
    rows = [Row(what, own, "MiB", budget=22)]
    for peer in peers[1:]:
        rows.append(
            Row(what, own, "MiB", peer.name, medians[peer.name][0], 1.0 if peer.name == "supervisord" else None)
        )
    rows.append(Row(f"{COUNT} idle services: {IDLE:g} s, wake-ups", idle[0][0], "", budget=0))
    rows.append(Row(f"{COUNT} idle services: {IDLE:g} s, CPU ticks", idle[0][1], "", budget=0))
    return rows


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def _outer(run: Run, inner: int) -> int:
    """The harness's number of a process that calls itself `inner`."""
    for pid in run.processes():
        with open(f"/proc/{pid}/status") as file:
            numbers = next(line.split()[1:] for line in file if line.startswith("NSpid:"))
        if int(numbers[-1]) == inner and len(numbers) > 1:
            return pid
    raise Failed(f"{run.peer.name}: there is no process {inner}")
