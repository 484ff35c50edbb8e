"""Orphans in numbers: signals coalesce, and none may stay a zombie because of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.namespace.isolated import needs_root

ORPHANS, BATCH = 10_000, 100
LOAD = f"""\
echo ready
while [ ! -e "$1" ]; do sleep 0.05; done
batches=0
while [ $batches -lt {ORPHANS // BATCH} ]; do
    ({": & " * BATCH})
    batches=$((batches + 1))
done
echo forked
exec sleep 1000
"""
CONFIG = "root: null\nsetup: none\nexec: {{mode: tolerant, pid: shared, command: [/bin/sh, {load}, {flag}]}}\n"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@needs_root
@pytest.mark.row(33)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_ten_thousand_orphans_that_ended_together_are_reaped_within_two_seconds(loop: str, tmp_path: Path) -> None:
    (tmp_path / "load").write_text(LOAD)
    config = tmp_path / "init.yml"
    config.write_text(CONFIG.format(load=tmp_path / "load", flag=tmp_path / "flag"))
    command = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--net", "--ipc", "--uts", "--"]
    command += [sys.executable, "-m", "lcinit", "init", "--config", str(config)]
    environment = {**os.environ, "LCINIT_EVENT_LOOP": loop}
    with (tmp_path / "log").open("wb") as log:
        outer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
    try:
        assert outer.stdout is not None
        assert outer.stdout.readline() == b"ready\n", (tmp_path / "log").read_text()
        (init,) = children(outer.pid)
        os.kill(init, signal.SIGSTOP)  # so that one SIGCHLD stands for all of them
        (tmp_path / "flag").touch()
        assert outer.stdout.readline() == b"forked\n"
        assert within(20, lambda: len(children(init)) == ORPHANS + 1)
        os.kill(init, signal.SIGCONT)
        assert within(2, lambda: len(children(init)) == 1), len(children(init))
        assert outer.poll() is None
    finally:
        outer.kill()
        outer.wait(10)
