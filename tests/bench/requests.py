"""Ten thousand initctl requests of several writers, until each was acted on: none may be lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from lcinit.control.initctl import INIT_CMD_SETENV, Request
from lcinit.linux import calls, mount
from tests.bench.runs import Peer, Row, Run, in_turn
from tests.bench.stage import CGROUP, CONTAINER, ENVIRONMENT, Stage
from tests.lab import guests
from tests.namespace.initctl_server import Server, pending

REQUESTS, WRITERS = 10_000, 8
FRAME = Request(cmd=INIT_CMD_SETENV, data=b"INIT_BENCH=1").pack()  # what costs both the least
INITTAB = "id:3:initdefault:\nonly:3:respawn:/bin/sleep 1000000\n"


def run(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """lcinit's service on its loop, in a process of its own, which counts; and sysvinit as PID 1, which does not."""
    own, sysvinit = Peer("lcinit", [], {}), _sysvinit(stage)
    missing = []

    def measure(peer: Peer) -> tuple[float]:
        if peer is sysvinit:
            fifo = Path(sysvinit.argv[1], "run/initctl")
            fifo.unlink(missing_ok=True)
            with Run(sysvinit, CGROUP):
                return (_flood(fifo),)
        fifo = Path(stage.directory, "initctl")
        server = Server("asyncio", Path(stage.directory, "initctl.log"), fifo)
        try:
            spent = _flood(fifo)
            missing.append(REQUESTS - int(server.end().rpartition("ended after ")[2]))
        finally:
            server.stop()
        return (spent,)

    medians = in_turn([own, sysvinit], rounds, measure, report)
    what = f"{REQUESTS:,} initctl requests"
    return [
        Row(what, medians["lcinit"][0] * 1000, "ms", "sysvinit", medians["sysvinit"][0] * 1000),
        Row(f"{what}, lost", max(missing), "", budget=0),
    ]


def _flood(fifo: Path) -> float:
    """Seconds from the first write until the FIFO is empty."""
    while not fifo.is_fifo():
        time.sleep(0.01)
    begin = time.perf_counter()
    writers = []
    for _ in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            fd = os.open(fifo, os.O_WRONLY)
            for _ in range(REQUESTS // WRITERS):
                os.write(fd, FRAME)
            os._exit(0)
        writers.append(pid)
    for pid in writers:
        os.waitpid(pid, 0)
    while pending(fifo):
        time.sleep(0.001)
    return time.perf_counter() - begin


def _sysvinit(stage: Stage) -> Peer:
    """Debian's, in a root of its own with an inittab that starts next to nothing."""
    place = os.path.join(stage.directory, "sysvinit")
    root = f"{place}/root"
    os.mkdir(place)
    _attach("tmpfs", {}, place)
    for name in ("upper", "work", "root"):
        os.mkdir(f"{place}/{name}", 0o755)
    layers = {"lowerdir": guests.guest("sysvinit"), "upperdir": f"{place}/upper", "workdir": f"{place}/work"}
    _attach("overlay", layers, root)
    with open(f"{root}/etc/inittab", "w") as file:
        file.write(INITTAB)
    return Peer("sysvinit", ["/usr/sbin/chroot", root, "/sbin/init"], ENVIRONMENT, flags=CONTAINER)


def _attach(fstype: str, options: dict[str, str], target: str) -> None:
    made = mount.new_mount(fstype, options)
    mount.move_mount(made, "", calls.AT_FDCWD, target, 0)
    os.close(made)
