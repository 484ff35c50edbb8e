"""What a service has around it: the means that it is run with, and who is told what becomes of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from lcinit.service.cgroups import Cgroups
    from lcinit.service.launch import Launcher
    from lcinit.service.logger import Logger
    from lcinit.service.states import State
    from lcinit.service.task import Task
    from lcinit.service.tracking import Members
    from lcinit.supervisor.program import Program

    class Around(Protocol):
        """What a service has around it."""

        launcher: Launcher
        logger: Logger
        cgroups: Cgroups
        members: Members
        environment: Mapping[str, str]
        limits: tuple[tuple[int, int | None, int | None], ...]
        stopping: bool
        adapted: dict[str, Callable[[Program], Program]]

        def look_at(self, task: Task) -> None:
            """It waits: say `go` or `blocked`, now or when that is known."""

        def changed(self, task: Task, before: State) -> None:
            """Its state is another one."""

        def came_up(self, task: Task) -> None:
            """It is up."""

        def went_down(self, task: Task, *, asked: bool) -> None:
            """It is down and stays so."""

        def find_main(self, task: Task) -> None:
            """A forking service has forked: learn its main process from the PID file."""
