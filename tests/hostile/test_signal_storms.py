"""Row 52: in a guest that shares PID 1's namespace, processes that keep PID 1 busy with signals and with orphans."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.hostile.attacker import python_configuration
from tests.hostile.attempt import BOTH_LOOPS, start

SHARED = {"mode": "tolerant", "pid": "shared"}

# Real-time signals queue up, as many as RLIMIT_SIGPENDING lets them: there always is another one.
SIGNALS = """
while True:
    for number in (signal.SIGHUP, signal.SIGUSR1, *range(signal.SIGRTMIN + 6, signal.SIGRTMIN + 10)):
        try:
            os.kill(1, number)
        except OSError:
            pass
"""

ORPHANS = """
while True:
    try:
        between = os.fork()
        if between == 0:
            for _ in range(20):
                if os.fork() == 0:
                    os._exit(0)
            os._exit(0)
        os.waitpid(between, 0)
    except OSError:
        pass
"""

STORM = """
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
for number in (signal.SIGHUP, signal.SIGUSR1, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)):
    signal.signal(number, signal.SIG_IGN)
for _ in range(4):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        STORM
say("up", "yes")
while True:
    signal.pause()
"""


@pytest.mark.row(52)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("storm", ["signals", "orphans"])
def test_pid_1_hears_a_stop_request_in_a_storm(storm: str, loop: str) -> None:
    body = {"signals": SIGNALS, "orphans": ORPHANS}[storm].strip().replace("\n", "\n        ")
    config = python_configuration(STORM.replace("STORM", body), exec=SHARED)
    with start(config, env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^up", 30)
        time.sleep(3)
        pid = container.pid1()
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
            private = sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        assert container.wait(10).status == 5
        assert time.monotonic() - began < 5
    assert private < 64 << 10, f"{private} KiB"
