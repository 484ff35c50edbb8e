"""Faults in kernel calls: a boot is traced once, and started again with one of its calls failing (strace(1) --inject).

The tracer stands outside the container, before the program that makes its namespaces, so PID 1 stays PID 1 and sees
nothing of it. Faults are counted for each process on its own; what a process did before it became lcinit counts too.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tests.hostile.attempt import Outcome, outcome, start
from tests.lab.container import Container, Specification
from tests.lab.managers import Unshare

INIT = 'execve("/sbin/init"'
# Calls of lcinit/linux, and those that the boot makes through os: what mounts, isolates, gives away or starts.
WRAPPED = (
    *("unshare", "setns", "fsopen", "fsconfig", "fsmount", "open_tree", "move_mount", "mount_setattr", "umount2"),
    *("pivot_root", "openat2", "fstatfs", "prctl", "capget", "capset", "close_range", "keyctl", "sethostname"),
    *("ioctl", "signalfd4", "socket", "setsockopt", "sendto", "recvfrom", "setfsuid", "setfsgid"),
    *("pidfd_open", "mknodat", "mkdirat", "symlinkat", "fchownat", "fchmodat", "fchown", "setgroups", "setresuid"),
    *("setresgid", "chdir", "fchdir", "socketpair", "execve"),
)
# One system call that is many: its command, the first or second argument, tells them apart.
_COMMAND = {"prctl": 0, "ioctl": 1, "fsconfig": 1}


class Point(NamedTuple):
    """Occurrence `number` of a call in one process of the boot, `what` it was, and how many of its kind there are."""

    process: str  # "leader" or "helper"
    call: str
    kind: str
    number: int
    line: str


class Traced(Unshare):
    """The unshare driver under strace(1); `options` are strace's. One log for each process, in `logs`."""

    options: Sequence[str] = ()

    @property
    def logs(self) -> str:
        """The directory of the logs."""
        return os.path.join(self.directory, "trace")

    def command(self, spec: Specification) -> Sequence[str]:
        os.mkdir(self.logs)
        path = os.path.join(self.logs, "log")
        return ["strace", "-ff", "--seccomp-bpf", "-qq", "-s", "256", "-o", path, *self.options, *super().command(spec)]


def traced_with(*options: str) -> Callable[..., Container]:
    """The driver with options of strace(1)."""
    return type("TracedWith", (Traced,), {"options": options})


def read_logs(container: Container) -> dict[str, list[str]]:
    """The lines of every traced process by its number."""
    assert isinstance(container, Traced)
    found = {}
    for name in os.listdir(container.logs):
        with open(os.path.join(container.logs, name), encoding="utf-8", errors="replace") as file:
            found[name.rpartition(".")[2]] = file.read().splitlines()
    return found


def programs_run(logs: dict[str, list[str]]) -> set[str]:
    """What was executed from the start of lcinit on, by it and by everything below it."""
    mark = re.compile(r'execve\("([^"]+)".* = 0$')
    found: set[str] = set()
    for lines in logs.values():
        begin = next((index for index, line in enumerate(lines) if INIT in line), None)
        of_lab = begin is None and any("starter.py" in line for line in lines)
        if not of_lab:
            found |= {match[1] for line in lines[begin or 0 :] if (match := mark.match(line))}
    return found


def leader_of(logs: dict[str, list[str]]) -> str:
    """The process that was lcinit, PID 1."""
    return next(pid for pid, lines in logs.items() if any(INIT in line for line in lines))


def points(config: str, **options: Any) -> list[Point]:
    """Every call of the leader between the start of lcinit and the exec of the guest's init, and of the helper those
    that can fail alone: no other process makes as many of that call.
    """
    with start(config, driver=traced_with("-e", f"trace={','.join((*WRAPPED, 'clone'))}"), **options) as container:
        done = outcome(container, 60)
        logs = read_logs(container)
    assert done.said("guest") == ["runs"], done
    leader = leader_of(logs)
    lines = logs[leader]
    begin = next(index for index, line in enumerate(lines) if INIT in line) + 1
    end = next(index for index, line in enumerate(lines) if index > begin and line.startswith("execve("))
    found = list(_points("leader", lines, begin, end + 1))
    for pid, others in logs.items():
        if any("PR_SET_PDEATHSIG, SIGKILL" in line for line in others) and pid != leader and _is_fork(others):
            stop = next((i for i, line in enumerate(others) if line.startswith("execve(")), len(others))
            most = _most_calls(lines for other, lines in logs.items() if other != pid)
            found += [p for p in _points("helper", others, 0, stop) if p.number > most.get(p.call, 0)]
    return found


def _most_calls(logs: Iterable[list[str]]) -> Counter[str]:
    """Of each call the greatest number that one process makes."""
    most: Counter[str] = Counter()
    for lines in logs:
        most |= Counter(line.partition("(")[0] for line in lines)
    return most


def _is_fork(lines: list[str]) -> bool:
    """Not a program of the lab: those begin with an exec."""
    return not any(line.startswith("execve(") and "@lcinit" not in line for line in lines)


def _points(process: str, lines: list[str], begin: int, end: int) -> Any:
    counts: dict[str, int] = {}
    for index, line in enumerate(lines):
        call, parenthesis, rest = line.partition("(")
        if not parenthesis or call not in WRAPPED:
            continue
        counts[call] = counts.get(call, 0) + 1
        if begin <= index < end:
            yield Point(process, call, kind_of(call, rest), counts[call], line)


def kind_of(call: str, arguments: str) -> str:
    """The call with its command."""
    if call not in _COMMAND:
        return call
    words = re.split(r"[,)] *", arguments)
    return f"{call} {words[_COMMAND[call]]}"


def boot_with_fault(config: str, point: Point, error: str, **options: Any) -> tuple[Outcome, list[str]]:
    """Boot with the call failing; the outcome, and the kinds of calls that were made to fail."""
    inject = f"inject={point.call}:error={error}:when={point.number}"
    driver = traced_with("-e", f"trace={point.call},execve", "-e", inject)
    with start(config, driver=driver, **options) as container:
        done = outcome(container, 60)
        logs = read_logs(container)
    failed = []
    for lines in logs.values():
        for line in lines:
            if line.endswith("(INJECTED)"):
                call, _, rest = line.partition("(")
                failed.append(kind_of(call, rest))
    return done, failed


def first_and_last(found: Iterable[Point]) -> list[Point]:
    """Of every kind of call in each process the first occurrence and the last."""
    kinds: dict[tuple[str, str], list[Point]] = {}
    for point in found:
        kinds.setdefault((point.process, point.kind), []).append(point)
    return [point for each in kinds.values() for point in dict.fromkeys((each[0], each[-1]))]
