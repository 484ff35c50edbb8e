"""Running peers in turn: A B C, A B C, …; medians; ratios of what was measured in one run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lcinit.linux import namespaces, process


class Peer(NamedTuple):
    """One program to time: `argv` run in `environment`, which must end with `status`.

    `flags` are namespaces that it is born into, for a program that is no manager and expects one to have made them.
    """

    name: str
    argv: Sequence[str]
    environment: dict[str, str]
    status: int = 0
    flags: int = 0


class Row(NamedTuple):
    """One line of the table. `seconds` are medians; `ratio` is lcinit's to the peer's; `budget` its bound."""

    what: str
    lcinit: float
    peer: str
    seconds: float
    ratio: float
    budget: float | None

    @property
    def met(self) -> bool | None:
        """Whether the budget holds; None where the peer has none."""
        return None if self.budget is None else self.ratio <= self.budget


class Failed(RuntimeError):
    """A peer did not do its work: its time means nothing."""


def run_once(peer: Peer, cgroup: str, number: int) -> float:
    """Seconds from the clone to the end of the peer, born alone in a new cgroup as a manager's payload is."""
    home = os.path.join(cgroup, f"run{number}")
    os.mkdir(home)
    handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        started = time.perf_counter()
        pid, _ = namespaces.clone3(namespaces.CLONE_INTO_CGROUP | peer.flags, cgroup_fd=handle)
        if pid == 0:
            _become(peer)
        _, status = os.waitpid(pid, 0)
        spent = time.perf_counter() - started
    finally:
        os.close(handle)
        remove_cgroups(home)
    if os.waitstatus_to_exitcode(status) != peer.status:
        raise Failed(f"{peer.name}: exit status {os.waitstatus_to_exitcode(status)}; run {' '.join(peer.argv)}")
    return spent


def _become(peer: Peer) -> None:
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        process.close_range(3)
        process.set_pdeathsig(9)
        os.execve(peer.argv[0], peer.argv, peer.environment)
    finally:
        os._exit(127)


def remove_cgroups(directory: str) -> None:
    """Remove a cgroup and those below it, once the last process of each is gone."""
    for parent, names, _ in os.walk(directory, topdown=False):
        for name in names:
            _remove(os.path.join(parent, name))
    _remove(directory)


def _remove(directory: str) -> None:
    for _ in range(500):
        try:
            os.rmdir(directory)
            return
        except OSError:
            time.sleep(0.01)
    raise Failed(f"{directory} does not become empty")


def in_turn(peers: Sequence[Peer], rounds: int, cgroup: str, report: Callable[[str], None]) -> dict[str, float]:
    """Median seconds of each peer over `rounds` rounds, after two that do not count."""
    samples: dict[str, list[float]] = {peer.name: [] for peer in peers}
    number = 0
    for turn in range(rounds + 2):
        for peer in peers:
            number += 1
            seconds = run_once(peer, cgroup, number)
            if turn >= 2:
                samples[peer.name].append(seconds)
        report(f"round {turn + 1} of {rounds + 2}")
    return {name: statistics.median(values) for name, values in samples.items()}
