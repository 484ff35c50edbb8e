"""What an init of one command is there for: reaping orphans, and passing signals on."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable

from tests.bench.runs import Peer, Row, Run, in_turn
from tests.bench.stage import CGROUP, PYTHON, Stage

ORPHANS, BATCH = 20_000, 100
SIGNALS = 2_000
SMALL = "root: null\nsetup: none\nexec: {{mode: tolerant, pid: shared, command: {command}}}\n"

# Each batch is forked by a subshell that ends at once, so that all of it becomes PID 1's. A zombie is in /proc too.
_ORPHANS = f"""\
set -- /proc/[0-9]*
before=$#
echo begin
batches=0
while [ $batches -lt {ORPHANS // BATCH} ]; do
    ({": & " * BATCH})
    batches=$((batches + 1))
done
while set -- /proc/[0-9]*; [ $# -gt $before ]; do :; done
echo end
"""
_ANSWER = """\
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.write(1, b".")
while True:
    signal.sigwait({signal.SIGUSR1})
    os.write(1, b".")
"""


def reaping(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Seconds from the first fork until the last orphan is reaped."""
    command = ["/bin/sh", stage.write("orphans", _ORPHANS)]
    peers = [stage.lcinit("lcinit", SMALL.format(command=command), proc=True), *stage.small_inits(command)]

    def measure(peer: Peer) -> tuple[float]:
        with Run(peer, CGROUP) as run:
            begin = run.read_until(b"begin")
            spent = run.read_until(b"end") - begin
            run.wait()
            return (spent,)

    medians = in_turn(peers, rounds, measure, report)
    # ninety-five hundredths of tini's rate
    budgets = {"tini": 1 / 0.95}
    own = medians["lcinit"][0]
    what = f"reaping {ORPHANS:,} orphans"
    return [Row(what, own, "s", peer.name, medians[peer.name][0], budgets.get(peer.name)) for peer in peers[1:]]


def signals(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Microseconds from kill(2) of PID 1 until its child has answered."""
    command = [PYTHON, "-I", "-S", stage.write("answer", _ANSWER)]
    peers = [stage.lcinit("lcinit", SMALL.format(command=command), proc=True), *stage.small_inits(command, ("tini",))]

    def measure(peer: Peer) -> tuple[float, float]:
        with Run(peer, CGROUP) as run:
            run.read_until(b".")
            spent = []
            for _ in range(SIGNALS):
                begin = time.perf_counter()
                os.kill(run.pid, signal.SIGUSR1)
                os.read(run.output, 1)
                spent.append((time.perf_counter() - begin) * 1e6)
            centiles = statistics.quantiles(spent, n=100)
            return centiles[49], centiles[98]

    medians = in_turn(peers, rounds, measure, report)
    rows = []
    for place, (what, budget) in enumerate((("signal to a child, p50", 1.5), ("signal to a child, p99", None))):
        own = medians["lcinit"][place]
        rows += [Row(what, own, "µs", peer.name, medians[peer.name][place], budget) for peer in peers[1:]]
    return rows
