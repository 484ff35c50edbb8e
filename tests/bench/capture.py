"""What a service prints, into rotated files."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

from lcinit.linux import calls, mount
from tests.bench.runs import Failed, Peer, Row, Run, in_turn
from tests.bench.services import half
from tests.bench.stage import CGROUP, CONTAINER, ENVIRONMENT, PYTHON, Stage
from tests.bench.supervisors import LCINIT, STAYING, beside, in_cache, supervisord, supervisord_head, unpacked

SIZE = 400 << 20
LOGS = "/var/log"
FILE, FILES = 16 << 20, 10  # bytes of one, and how many older ones are kept
SINKS = ("s6-log T", "svlogd -tt", "supervisord")
# A block that was made before, so that the sink is what is measured; the last mark comes when all is in the pipe.
_PRODUCER = f"""\
import os, time
block = (b"x" * 89 + b"\\n") * 11_650
marks = os.open({{marks!r}}, os.O_WRONLY)
os.write(marks, b"begin\\n")
left = {SIZE}
while left > 0:
    left -= os.write(1, block)
os.write(marks, b"end\\n")
time.sleep(1000)
"""


def run(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Seconds from the first byte until the last is in the sink's hands; the files are in memory."""
    stage.unpack(unpacked())
    fd = mount.new_mount("tmpfs", {"size": "1g"})
    mount.move_mount(fd, "", calls.AT_FDCWD, LOGS, mount.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(fd)
    marks = os.path.join(stage.directory, "capture-marks")
    os.mkfifo(marks)
    producer = f"{PYTHON} -I -S {stage.write('producer', _PRODUCER.format(marks=marks))}"
    peers = _peers(stage, producer)

    def measure(peer: Peer) -> tuple[float]:
        _make_anew(LOGS)
        reader = os.open(marks, os.O_RDWR | os.O_CLOEXEC)
        try:
            with Run(peer, CGROUP):
                os.read(reader, 6)
                began = time.perf_counter()
                os.read(reader, 4)
                spent = time.perf_counter() - began
                if (kept := _kept(LOGS)) < FILES * FILE * 0.9:
                    raise Failed(f"{peer.name} kept {kept:,} bytes")
                return (spent,)
        finally:
            os.close(reader)

    medians = in_turn(peers, half(rounds), measure, report)
    values = {name: median[0] for name, median in medians.items()}
    return beside(f"{SIZE >> 20} MiB of log captured", values[LCINIT], "s", values, SINKS, {"s6-log T": 0.4})


def _peers(stage: Stage, producer: str) -> list[Peer]:
    """The sinks that are in the cache, all with the same sizes and numbers of files."""
    policy = f"log: {{to: file, max_size: {FILE >> 20}M, max_files: {FILES}}}"
    head = supervisord_head(stage.directory)
    program = f"[program:p]\ncommand={producer}\nstdout_logfile={LOGS}/supervisord/p\nstderr_logfile=NONE\n"
    rotation = f"stdout_logfile_maxbytes={FILE}\nstdout_logfile_backups={FILES}\n"
    peers = [
        stage.lcinit(LCINIT, f"{STAYING}services:\n  p: {{command: {producer}, {policy}}}\n", proc=True),
        _pipe("s6-log T", producer, f"/usr/bin/s6-log -- n{FILES} s{FILE - 1} T {LOGS}/s6"),
        _pipe("svlogd -tt", producer, f"/usr/bin/svlogd -tt {LOGS}/runit"),
        supervisord(stage.write("capture.conf", head + program + rotation)),
    ]
    had = {LCINIT, *(each for each in SINKS if in_cache({"s6-log T": "s6", "svlogd -tt": "runit"}.get(each, each)))}
    return [peer for peer in peers if peer.name in had]


def _pipe(name: str, producer: str, sink: str) -> Peer:
    return Peer(name, ["/bin/sh", "-c", f"{producer} | {sink}"], ENVIRONMENT, flags=CONTAINER, proc=True)


def _make_anew(directory: str) -> None:
    """Take what the last one wrote away, and make what the sinks expect to find."""
    for entry in os.scandir(directory):
        shutil.rmtree(entry.path)
    for name in ("runit", "supervisord"):
        os.mkdir(os.path.join(directory, name))
    with open(os.path.join(directory, "runit", "config"), "w") as file:
        file.write(f"s{FILE}\nn{FILES}\n")


def _kept(directory: str) -> int:
    """The bytes of all files."""
    walk = os.walk(directory)
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in walk for name in names)
