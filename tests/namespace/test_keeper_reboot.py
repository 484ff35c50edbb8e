"""The keeper as a process of its own that answers reboot(2): what a guest can make it cost, and what it can not."""

from __future__ import annotations

import errno
import itertools
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcinit.boot.own import keeper as keeper_argv
from lcinit.control.initctl import runlevel_request
from lcinit.linux import namespaces
from tests.namespace.isolated import needs_root, run_isolated
from tests.namespace.reboot_rig import POWER_OFF, RESTART, Guest, forked, reboot, without_sys_boot

pytestmark = needs_root

FLOOD = 100_000
MOST_PSS = 11 * 1024  # KiB, with nothing of it shared


@contextmanager
def keeper_of(guest: Guest, directory: Path) -> Iterator[int]:
    """The keeper beside PID 1, which is this process, with the listener and a FIFO; its PID."""
    dev = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    ready, ready_end = os.pipe()
    handed = {"--reboot-calls": guest.listener, "--initctl-dir": dev, "--ready": ready_end}
    words = [*itertools.chain.from_iterable((name, str(fd)) for name, fd in handed.items())]
    device, inode = guest.namespace
    words += ["--user-namespace", f"{device}:{inode}", "--owner", "0:0", "--poweroff", "SIGUSR1"]
    pid = os.fork()
    if pid == 0:
        for fd in handed.values():
            os.set_inheritable(fd, True)
        os.execv(sys.executable, keeper_argv(tuple(words)))
    for fd in handed.values():
        os.close(fd)
    assert select.select([ready], [], [], 10)[0]
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def written(pid: int) -> int:
    """KiB that are its own because it has written to them, whoever else runs the same program."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))


def pss(pid: int) -> int:
    """KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def ticks(pid: int) -> int:
    """Processor time, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.row(47)
def test_a_flood_of_refused_calls_costs_the_keeper_no_memory_and_keeps_it_from_nothing(tmp_path: Path) -> None:
    def body() -> None:
        def script() -> bool:
            without_sys_boot()
            return all(reboot(RESTART) == errno.EPERM for _ in range(FLOOD))

        heard: list[float] = []
        signal.signal(signal.SIGUSR1, lambda *_: heard.append(time.monotonic()))
        guest = Guest(script)
        with keeper_of(guest, tmp_path) as pid:
            time.sleep(0.5)
            before, descriptors = written(pid), len(os.listdir(f"/proc/{pid}/fd"))
            assert pss(pid) <= MOST_PSS
            fifo = os.open(tmp_path / "initctl", os.O_WRONLY | os.O_NONBLOCK)
            os.write(fifo, runlevel_request("0").pack())
            asked = time.monotonic()
            while not heard and time.monotonic() < asked + 5:
                time.sleep(0.01)
            assert heard, "the flood kept the keeper from the FIFO"
            assert not select.select([guest.report], [], [], 0)[0], "the flood was over before"
            assert guest.result() is True
            assert written(pid) <= before + 256
            assert len(os.listdir(f"/proc/{pid}/fd")) <= descriptors  # that many in the middle of a call
            spent = ticks(pid)
            time.sleep(0.5)  # nobody can call any more: the listener has hung up for good
            assert ticks(pid) <= spent + 1

    run_isolated(body, pid=True, timeout=120)


@pytest.mark.parametrize(("command", "death"), [(RESTART, signal.SIGHUP), (POWER_OFF, signal.SIGINT)])
def test_the_keeper_ends_the_pid_namespace_as_the_guest_asks(command: int, death: int, tmp_path: Path) -> None:
    def first_of_namespace() -> int:
        guest = Guest(lambda: reboot(command))
        with keeper_of(guest, tmp_path):
            guest.result()
        return 0

    def body() -> None:
        namespaces.unshare(namespaces.CLONE_NEWPID)
        assert forked(first_of_namespace) == -death

    run_isolated(body, pid=True)  # a PID namespace around the one that ends
