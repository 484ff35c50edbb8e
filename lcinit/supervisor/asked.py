"""What the spawner is asked for: a program that is launched, one that is forked for, a function."""

from __future__ import annotations

from lcinit.linux import launch, prepared
from lcinit.supervisor import spawn
from lcinit.supervisor.program import Program
from lcinit.supervisor.spawner_messages import body_address, packets, program_of
from lcinit.supervisor.spawner_process import RECEIVED, REMEMBERED, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lcinit.errors import CommandFailed
    from lcinit.supervisor.spawner_messages import Packet
    from lcinit.supervisor.spawner_process import Memory

_CGROUP = Program._fields.index("cgroup")


class Asked:
    """One of them. `numbers` are the descriptors that it needs, in the order in which they are sent.

    `holds_slot`: what its slot stands for is used until the program is executed. `quiet`: not while a program that was
    launched is not executed yet, if that can be helped.
    """

    def __init__(self, name: str, numbers: list[int]) -> None:
        self.name = name
        self.numbers = numbers
        self.holds_slot = False
        self.quiet = False

    def packets(self, slot: int, descriptors: list[int]) -> list[Packet]:
        """The message. Raises OSError."""
        raise NotImplementedError

    def otherwise(self) -> Asked | None:
        """Another way to ask for it, where this one has failed."""
        return None

    def failure(self, report: bytes) -> CommandFailed | None:
        """What a report means, all of it."""
        return spawn.failure_of(self.name, report) if report else None


class Function(Asked):
    """One of the functions that were named at the start."""

    def packets(self, slot: int, descriptors: list[int]) -> list[Packet]:
        """The message. Raises OSError."""
        return packets(slot, ("function", self.name), descriptors)


class Forked(Asked):
    """A program that the spawner forks for."""

    def __init__(self, program: Program, memory: Memory, values: tuple[Any, ...], numbers: list[int]) -> None:
        """`values` and `numbers` are what `flat` makes of it."""
        super().__init__(program.argv[0], numbers)
        # the spawner lends it its score, and so to those that still have its memory (proc_pid_oom_score_adj(5))
        self.quiet = program.oom_score_adj is not None
        self._program = program
        self._memory = memory
        self._values = values

    def packets(self, slot: int, descriptors: list[int]) -> list[Packet]:
        """The message. Raises OSError."""
        program = self._program
        if spawn.is_late(program):
            return packets(slot, ("program", self._values, None), descriptors)
        at = body_address(self._memory.room_at)
        laid_out, *addresses = prepared.lay_out(*_words(program), at)
        return packets(slot, ("program", self._values, addresses), descriptors, laid_out)

    def program_with(self, descriptors: list[int]) -> Program:
        """The program, with these in the place of its descriptors."""
        program = program_of(self._values, descriptors)
        return program.replace(argv=self._program.argv, environment=self._program.environment)


class Launched(Forked):
    """A program that the spawner launches: no memory is copied for it. One whose words are too many is forked for."""

    def __init__(
        self, program: Program, memory: Memory, values: tuple[Any, ...], numbers: list[int], kind: launch.Kind
    ) -> None:
        super().__init__(program, memory, values, numbers)
        self._kind = kind
        self._paths = 0
        self._base = 0

    def packets(self, slot: int, descriptors: list[int]) -> list[Packet]:
        """The message; and the table of the slot is written."""
        paths, argv, environment = _words(self._program)
        self._paths = len(paths)
        self._base = self._memory.table(slot)
        table = self._kind.table(paths, argv, environment, self._base)
        if len(table) > TABLE:
            return super().packets(slot, descriptors)
        self.holds_slot = True
        self._memory.tables[TABLE * slot : TABLE * slot + len(table)] = table
        return packets(slot, ("launch", self._values[_CGROUP], self._kind.start), descriptors)

    def otherwise(self) -> Asked | None:
        """It is forked for."""
        return Forked(self._program, self._memory, self._values, self.numbers)

    def failure(self, report: bytes) -> CommandFailed | None:
        """What the results mean that its child has written."""
        if not self.holds_slot:
            return super().failure(report)
        told = self._kind.why_not(report, self._paths, self._base)
        if told is None:
            return None
        words, number = told
        return spawn.failure_of(self.name, spawn.report_of(words, OSError(number, "")))


class Kinds:
    """What children do for programs that differ in nothing but their words, their variables and what their descriptors
    are: worked out once.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[Any, ...], launch.Kind] = {}

    def kind(self, values: tuple[Any, ...], count: int) -> launch.Kind:
        """That of a plain program as `flat` has it, with its `count` descriptors as the spawner receives them."""
        found = self._kinds.get(values)
        if found is None:
            if len(self._kinds) >= REMEMBERED:
                self._kinds.clear()
            report = RECEIVED + count
            program = program_of(values, [*range(RECEIVED, report)])
            child = spawn.Child(program, report, within_cgroup=True, default_signals=True)
            found = self._kinds[values] = launch.Kind(child.steps, report)
        return found


def can_be_launched(program: Program) -> bool:
    """Whether a child with nothing of the interpreter's can do all of it."""
    return spawn.is_plain(program) and all(number < RECEIVED - 1 for _, number in program.descriptors)


def _words(program: Program) -> tuple[list[str], tuple[str, ...], dict[str, str]]:
    environment = dict(program.environment)
    return spawn.candidates(program.argv[0], environment), program.argv, environment
