"""Services: how soon all of them are up, how soon one that was killed is up again, what that many cost."""

from __future__ import annotations

import os
import select
import signal
import statistics
import time
from collections.abc import Callable

from tests.bench.quiet import pss, ticks, wake_ups
from tests.bench.runs import WARM_UP, Failed, Peer, Row, Run, in_turn
from tests.bench.stage import CGROUP, Stage
from tests.bench.supervisors import LCINIT, NOWHERE, OF_FILES, Scene, beside

COUNT, MANY = 200, 2_000
PATIENCE = 60.0  # seconds for all services to be up
KILLED = 50  # services, each once in a round
AGED = 1.1  # seconds that they have run when they are killed: runsv(8) waits where it was less than one
BETWEEN = 0.01  # seconds from one that is up again to the next that is killed
SETTLED = 1.0  # seconds until what a start leaves to do is done
IDLE = 10.0
ALL = ("s6", "runit", "supervisord", "circus", *NOWHERE)


def half(rounds: int) -> int:
    """The rounds of what takes seconds each time."""
    return max(7, rounds // 2)


class Marks:
    """The reading end of a scene's FIFO."""

    def __init__(self, scene: Scene) -> None:
        self._fd = os.open(scene.marks, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""

    def wait_for(self, count: int) -> list[int]:
        """The PIDs of the next services that are up, as they see themselves."""
        pids: list[int] = []
        deadline = time.monotonic() + PATIENCE
        while len(pids) < count:
            if not select.select([self._fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failed(f"{len(pids)} of {count} services were up after {PATIENCE:g} s")
            *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
            pids += [int(line.split()[1]) for line in lines]
        return pids

    def __enter__(self) -> Marks:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)


def starting(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Milliseconds from the clone of the supervisor until the last service has written its mark."""
    few, many = Scene(stage, "few", COUNT), Scene(stage, "many", MANY)
    rounds = half(rounds)
    inline, files = few.lcinit(), few.lcinit_of_files()
    medians = in_turn([inline, files, *few.peers()], rounds, lambda peer: _time_to_start(few, peer), report)
    values = {name: median[0] for name, median in medians.items()}
    rows = []
    for own, what in ((inline, f"{COUNT} services up"), (files, f"{COUNT} services up, of files")):
        rows += beside(what, values[own.name], "ms", values, ALL, {"s6": 0.7})
    # in turn with the same of the small number, so that the ratio is one of one run, too
    scenes = {f"{scene.count:,} services": scene for scene in (few, many)}
    pair = [files._replace(name=f"{COUNT:,} services"), many.lcinit_of_files()._replace(name=f"{MANY:,} services")]
    large = in_turn(pair, rounds, lambda peer: _time_to_start(scenes[peer.name], peer), report)
    small, big = (large[peer.name][0] for peer in pair)
    return [*rows, Row(f"{MANY:,} services up, of files", big, "ms", f"{OF_FILES}, {COUNT} of them", small, 12.0)]


def _time_to_start(scene: Scene, peer: Peer) -> tuple[float]:
    with Marks(scene) as marks, Run(peer, CGROUP) as run:
        marks.wait_for(scene.count)
        return ((time.perf_counter() - run.started) * 1000,)


def restarting(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Milliseconds from SIGKILL of a service until its successor has written its mark."""
    scene = Scene(stage, "killed", KILLED)
    # s6 and supervisord wait for a second, circus until it looks again
    peers = [scene.lcinit(), *scene.peers("runit")]
    spent: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}

    def measure(peer: Peer) -> tuple[float]:
        with Marks(scene) as marks, Run(peer, CGROUP) as run:
            inner = marks.wait_for(scene.count)
            outer = _outer_pids(run)
            time.sleep(AGED)
            times = []
            for pid in inner:
                time.sleep(BETWEEN)
                began = time.perf_counter()
                os.kill(outer[pid], signal.SIGKILL)
                marks.wait_for(1)
                times.append((time.perf_counter() - began) * 1000)
        spent[peer.name].append(times)
        return (statistics.median(times),)

    in_turn(peers, half(rounds), measure, report)
    counted = {name: [time for turn in turns[WARM_UP:] for time in turn] for name, turns in spent.items()}
    centiles = {name: statistics.quantiles(times, n=100) for name, times in counted.items()}
    rows = []
    for place, budgets in ((50, {"runit": 1.0}), (99, {})):
        values = {name: of_peer[place - 1] for name, of_peer in centiles.items()}
        rows += beside(f"restart, p{place}", values[LCINIT], "ms", values, ("runit", *NOWHERE), budgets)
    return rows


def _outer_pids(run: Run) -> dict[int, int]:
    """The harness's numbers of a run's processes by those in their own namespace."""
    found = {}
    for pid in run.processes():
        with open(f"/proc/{pid}/status") as file:
            numbers = next(line.split()[1:] for line in file if line.startswith("NSpid:"))
        found[int(numbers[-1])] = pid
    return found


def costing(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """The proportional set size of a supervisor's own processes with all services up; lcinit's wake-ups when idle."""
    scene = Scene(stage, "cost", COUNT)
    peers = [scene.lcinit(), *scene.peers()]
    idle: list[tuple[int, int]] = []

    def measure(peer: Peer) -> tuple[float]:
        with Marks(scene) as marks, Run(peer, CGROUP) as run:
            marks.wait_for(scene.count)
            time.sleep(SETTLED)
            own = _own(run, scene)
            memory = sum(pss(pid) for pid in own) / 1024
            if peer.name == LCINIT and not idle:
                time.sleep(2 * SETTLED)
                before = wake_ups(own), ticks(own)
                time.sleep(IDLE)
                idle.append((wake_ups(own) - before[0], ticks(own) - before[1]))
                if _own(run, scene) != own:
                    raise Failed(f"{peer.name}: processes came or went while nothing was asked of it")
            return (memory,)

    # memory does not vary as time does
    medians = in_turn(peers, min(rounds, 3), measure, report)
    values = {name: median[0] for name, median in medians.items()}
    own = values[LCINIT]
    what = f"{COUNT} services: memory"
    return [
        Row(what, own, "MiB", budget=22),
        *beside(what, own, "MiB", values, ALL, {"supervisord": 1.0}),
        Row(f"{COUNT} idle services: {IDLE:g} s, wake-ups", idle[0][0], "", budget=0),
        Row(f"{COUNT} idle services: {IDLE:g} s, CPU ticks", idle[0][1], "", budget=0),
    ]


def _own(run: Run, scene: Scene) -> list[int]:
    """The processes of a run that are not its services."""
    programs = {pid: os.readlink(f"/proc/{pid}/exe") for pid in run.processes()}
    own = sorted(pid for pid, program in programs.items() if program != scene.shell)
    if len(programs) - len(own) != scene.count:
        raise Failed(f"{run.peer.name}: {len(programs) - len(own)} of {scene.count} services are there")
    return own
