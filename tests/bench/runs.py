"""Running peers in turn, in another order each time; medians; ratios of what was measured in one run."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from lcinit.linux import calls, mount, namespaces, process

WARM_UP = 2  # rounds that do not count


class Peer(NamedTuple):
    """One program to time: `argv` run in `environment`, which must end with `status`.

    `flags` are namespaces that it is born into, for a program that is no manager and expects one to have made them;
    with `proc` it finds their /proc mounted.
    """

    name: str
    argv: list[str]
    environment: dict[str, str]
    status: int = 0
    flags: int = 0
    proc: bool = False


class Row(NamedTuple):
    """One line of the table: `lcinit` and the peer's `value` in `unit`, `ratio` lcinit's to the peer's.

    `budget` bounds the ratio, or lcinit's own figure where there is no peer.
    """

    what: str
    lcinit: float
    unit: str
    peer: str = ""
    value: float | None = None
    budget: float | None = None

    @property
    def ratio(self) -> float | None:
        """None where there is no peer."""
        return self.lcinit / self.value if self.value else None

    @property
    def met(self) -> bool | None:
        """Whether the budget holds; None where there is none."""
        if self.budget is None:
            return None
        return (self.lcinit if self.ratio is None else self.ratio) <= self.budget


class Failed(RuntimeError):
    """A peer did not do its work: its time means nothing."""


class Run:
    """A peer, started alone in a new cgroup as a manager's payload is. `pid` is its outer one, `output` what it prints.

    A context manager: leaving it kills what is left.
    """

    _number = 0

    def __init__(self, peer: Peer, cgroup: str) -> None:
        Run._number += 1
        self.peer = peer
        self.pid = -1
        self._home = os.path.join(cgroup, f"run{Run._number}")
        os.mkdir(self._home)
        handle = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.output, printed = os.pipe()
        self._errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        try:
            self.started = time.perf_counter()
            self.pid, _ = namespaces.clone3(namespaces.CLONE_INTO_CGROUP | peer.flags, cgroup_fd=handle)
            if self.pid == 0:
                _become(peer, printed, self._errors)
        finally:
            os.close(handle)
            os.close(printed)

    def read_until(self, text: bytes) -> float:
        """Wait until it has printed the text; the time (perf_counter). Raises Failed when it ends before."""
        printed = b""
        while text not in printed:
            received = os.read(self.output, 65536)
            if not received:
                raise Failed(f"{self.peer.name} ended before it printed {text!r}:\n{self._said()}")
            printed += received
        return time.perf_counter()

    def wait(self) -> float:
        """Its end (perf_counter). Raises Failed for another status than the peer's."""
        pid, self.pid = self.pid, -1
        _, status = os.waitpid(pid, 0)
        ended = time.perf_counter()
        if os.waitstatus_to_exitcode(status) != self.peer.status:
            command = " ".join(self.peer.argv)
            code = os.waitstatus_to_exitcode(status)
            raise Failed(f"{self.peer.name}: exit status {code} of {command}\n{self._said()}")
        return ended

    def processes(self) -> list[int]:
        """Everything that it has started and that is still there."""
        found = []
        for directory, _, _ in os.walk(self._home):
            with open(os.path.join(directory, "cgroup.procs")) as file:
                found += map(int, file.read().split())
        return found

    def _said(self) -> str:
        return os.pread(self._errors, 4000, 0).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.pid > 0:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self.output)
        os.close(self._errors)
        remove_cgroups(self._home)


def whole_run(peer: Peer, cgroup: str) -> tuple[float]:
    """Seconds from the clone to the end of the peer."""
    with Run(peer, cgroup) as run:
        return (run.wait() - run.started,)


def _become(peer: Peer, output: int, errors: int) -> None:
    try:
        if peer.proc:
            mount.make_private("/")
            mount.move_mount(mount.new_mount("proc"), "", calls.AT_FDCWD, "/proc", 0)
        null = os.open("/dev/null", os.O_RDWR)
        for fd, stream in enumerate((null, output, errors)):
            os.dup2(stream, fd)
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


def in_turn(
    peers: Sequence[Peer], rounds: int, measure: Callable[[Peer], Sequence[float]], report: Callable[[str], None]
) -> dict[str, list[float]]:
    """The medians of what `measure` says of each peer over `rounds` rounds, after those that do not count.

    What one leaves to the machine (processes that end, caches, processors that sleep) the next one has. So that this is
    not always the same one, each round has an order of its own, the same in every run.
    """
    samples: dict[str, list[Sequence[float]]] = {peer.name: [] for peer in peers}
    for turn in range(rounds + WARM_UP):
        for peer in random.Random(turn).sample(peers, len(peers)):
            values = measure(peer)
            if turn >= WARM_UP:
                samples[peer.name].append(values)
        report(f"round {turn + 1} of {rounds + WARM_UP}")
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in samples.items()}
