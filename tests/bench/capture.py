"""What a service prints, into rotated files with timestamps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from lcinit.linux import calls, mount
from tests.bench.runs import Peer, Row, Run, in_turn
from tests.bench.stage import CGROUP, CONTAINER, ENVIRONMENT, PYTHON, Stage
from tests.bench.supervisors import STAYING, s6_log, unpacked

SIZE = 400 << 20
LOGS = "/var/log"
# Blocks that were made before, so that the sink is what is measured; the last mark comes when all is in the pipe.
_PRODUCER = f"""\
import os
block = (b"x" * 89 + b"\\n") * 11_650
marks = os.open({{marks!r}}, os.O_WRONLY)
os.write(marks, b"begin\\n")
left = {SIZE}
while left > 0:
    left -= os.write(1, block)
os.write(marks, b"end\\n")
import time
time.sleep(1000)
"""


def run(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Seconds from the first byte until the last is in the sink's hands."""
    stage.unpack(unpacked())
    fd = mount.new_mount("tmpfs", {"size": "1g"})
    mount.move_mount(fd, "", calls.AT_FDCWD, LOGS, mount.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(fd)
    marks = os.path.join(stage.directory, "capture-marks")
    os.mkfifo(marks)
    producer = f"{PYTHON} -I -S {stage.write('producer', _PRODUCER.format(marks=marks))}"
    policy = "log: {to: file, max_size: 16M, max_files: 10}"
    peers = [
        stage.lcinit("lcinit", f"{STAYING}services:\n  p: {{command: {producer}, {policy}}}\n", proc=True),
        _shell("s6-log T", f"exec {producer} | {s6_log()} -- n10 s16777215 T {LOGS}/s6"),
        _shell("s6-log, no timestamps", f"exec {producer} | {s6_log()} -- n10 s16777215 {LOGS}/s6"),
    ]
    peers = [peer for peer in peers if peer.name == "lcinit" or os.path.exists(s6_log())]

    def measure(peer: Peer) -> tuple[float]:
        for entry in os.scandir(LOGS):
            for _directory, _, names in os.walk(entry.path):
                for name in names:
                    os.unlink(os.path.join(_directory, name))
        reader = os.open(marks, os.O_RDWR | os.O_CLOEXEC)
        try:
            with Run(peer, CGROUP):
                os.read(reader, 6)
                began = time.perf_counter()
                os.read(reader, 4)
                return (time.perf_counter() - began,)
        finally:
            os.close(reader)

    medians = in_turn(peers, rounds, measure, report)
    own = medians["lcinit"][0]
    what = f"{SIZE >> 20} MB of log captured"
    return [Row(what, own, "s", p.name, medians[p.name][0], 0.4 if p.name == "s6-log T" else None) for p in peers[1:]]


def _shell(name: str, script: str) -> Peer:
    return Peer(name, ["/bin/sh", "-c", script], ENVIRONMENT, flags=CONTAINER, proc=True)
