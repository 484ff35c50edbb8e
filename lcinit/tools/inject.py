"""`inject`: a command in the namespaces of any process, or of the container whose supervisor a process is."""

from __future__ import annotations

import os
import select

from lcinit.errors import SystemFailure, UsageError
from lcinit.guest import session
from lcinit.guest.order import Order
from lcinit.guest.target import Target
from lcinit.linux import process
from lcinit.tools.interpreter import protect_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._")
_LONGEST = 64


def inject(pid: int, argv: Sequence[str] = (), user: str | int = "root") -> session.End:
    """Run `argv` (the user's shell without one) in the namespaces of process `pid`, on the standard streams.

    For a process in this PID namespace that has started the PID 1 of another one, as contain(1) does, those of that
    child. Raises LcinitError when the command cannot be started.
    """
    have_streams()
    with find(pid) as target:
        protect_from(target)
        return session.run(target, order(argv, user))


def order(argv: Sequence[str], user: str | int) -> Order:
    """The order for a command, with what the caller's environment may say in a guest: its terminal, its manager."""
    chosen = {"container": "lcinit", "TERM": "dumb"}
    for name in chosen:
        value = os.environ.get(name, "")
        if 0 < len(value) <= _LONGEST and _WORD.issuperset(value):
            chosen[name] = value
    return Order(argv=tuple(argv), user=user, environment=tuple(chosen.items()))


def have_streams() -> None:
    """A standard stream that is closed becomes /dev/null: the next thing that is opened would take its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)


def find(pid: int) -> Target:
    """The process to enter. Raises LcinitError when there is none."""
    inits = [] if pid == os.getpid() else _inits_below(pid)
    if len(inits) > 1:
        found = ", ".join(map(str, inits))
        raise UsageError(f"process {pid} has started {len(inits)} containers: PID {found}", hint="name one of them")
    if not inits:
        return Target(pid)
    supervisor = process.pidfd_open(pid)

    def is_its_child(target: Target) -> None:
        parent = next(line.split()[1] for line in target.read("status").splitlines() if line.startswith("PPid:"))
        if parent != str(pid) or select.select([supervisor], [], [], 0)[0]:
            raise SystemFailure(f"the container of process {pid} has ended")

    try:
        return Target(inits[0], is_its_child)
    finally:
        os.close(supervisor)


def _inits_below(pid: int) -> list[int]:
    """Children of a process of this PID namespace that are PID 1 of another one (NSpid in proc_pid_status(5))."""
    if len(_numbers(pid)) != 1:
        return []
    numbers = {child: _numbers(child) for child in _children(pid)}
    return [child for child, known in numbers.items() if len(known) > 1 and known[-1] == 1]


def _children(pid: int) -> list[int]:
    """What its threads have started; none where it has ended, or the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="utf-8") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _numbers(pid: int) -> list[int]:
    """A process' number in each PID namespace from this one inwards; none where it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith("NSpid:")), "")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(number) for number in line.split()[1:]]
