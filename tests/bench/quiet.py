"""What lcinit costs while a nested guest does nothing: memory, processor time, wake-ups. In a boot root of its own, so
that it shares no page with the other programs of this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from tests.bench.runs import Failed, Row
from tests.lab import guests
from tests.lab.container import Container, descendants, namespace_pids
from tests.lab.managers import Unshare

IDLE = 10.0  # seconds
SETTLED = 3.0  # seconds until what a start leaves to do is done
CONFIG = """\
id_map: {users: 0 1000000 65536}
root: {path: /mnt/root, id_map: true}
initctl: auto
exec: {mode: tolerant, pid: nested, command: [/bin/sh, -c, "echo guest is up; exec sleep 1000000"]}
"""


def run(boot_root: str, report: Callable[[str], None]) -> list[Row]:
    """Memory is the proportional set size (smaps_rollup, proc(5)) of all its processes."""
    report("starting")
    with Unshare(console="pty").start(boot_root, guest_root=guests.guest("plain"), config=CONFIG) as container:
        container.expect("guest is up")
        time.sleep(SETTLED)
        report("idle")
        pids = own_processes(container)
        if not pids:
            raise Failed(f"lcinit did not stay:\n{container.console().decode(errors='replace')}")
        memory = sum(pss(pid) for pid in pids) / 1024
        before = ticks(pids), wake_ups(pids)
        time.sleep(IDLE)
        spent, woken = (now - then for now, then in zip((ticks(pids), wake_ups(pids)), before, strict=True))
        assert own_processes(container) == pids
    return [
        Row("idle guest: memory", memory, "MiB", budget=20),
        Row(f"idle guest: {IDLE:g} s, wake-ups", woken, "", budget=0),
        Row(f"idle guest: {IDLE:g} s, CPU ticks", spent, "", budget=0),
    ]


def own_processes(container: Container) -> list[int]:
    """PID 1 of the container and what it keeps beside the guest, which has a PID namespace of its own."""
    assert container.process is not None
    return [pid for pid in descendants(container.process.pid) if len(namespace_pids(pid)) == 3]


def _fields(path: str, name: str) -> Iterator[int]:
    with open(path) as file:
        for line in file:
            if line.split()[:1] and name in line.split()[0]:
                yield int(line.split()[1])


def _field(pid: int, file: str, name: str) -> int:
    return sum(_fields(f"/proc/{pid}/{file}", name))


def pss(pid: int) -> int:
    """The proportional set size of a process, in KiB."""
    return _field(pid, "smaps_rollup", "Pss:")


def wake_ups(pids: list[int]) -> int:
    """Context switches of all threads."""
    tasks = [f"/proc/{pid}/task/{task}" for pid in pids for task in os.listdir(f"/proc/{pid}/task")]
    return sum(sum(_fields(f"{task}/status", "ctxt_switches")) for task in tasks)


def ticks(pids: list[int]) -> int:
    """Processor time, in hundredths of a second (utime and stime of proc_pid_stat(5))."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total
