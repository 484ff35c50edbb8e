"""The commands of a service's phases: which they are, what they are told, and what becomes of them."""

from __future__ import annotations

from lcinit import log
from lcinit.linux.signals import signal_number
from lcinit.service.exits import UNKNOWN
from lcinit.service.programs import command_program
from lcinit.service.states import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.values import Command
    from lcinit.service.commands import CommandList
    from lcinit.service.launch import Launcher
    from lcinit.service.task import Task
    from lcinit.supervisor.program import Program


class Phases:
    """Of one task. One phase's commands run at a time."""

    def __init__(self, task: Task, launcher: Launcher) -> None:
        self._task = task
        self._launcher = launcher
        self._commands: CommandList | None = None

    def begin(self, name: str) -> None:
        """Run those of start-pre, start-post, stop, stop-post or reload."""
        self.abort()
        key = name.replace("-", "_")
        if name == "reload":
            self._task.reload_failed = False
        commands: tuple[Command, ...] = getattr(self._task.service, key)
        label = f"{self._task.name}: {key}"
        from lcinit.service.commands import CommandList

        self._commands = CommandList(label, commands, self._launcher, self.program, self._ended)
        self._commands.begin()

    def abort(self) -> None:
        """End what runs, and say nothing of it."""
        if self._commands is not None:
            self._commands.abort()
            self._commands = None

    def program(self, command: Command, stdin: int | None) -> Program:
        """What is started for a command: it is told the main process, and in stop-post how that ended."""
        task = self._task
        extra = {}
        if task.leader:
            extra["MAINPID"] = str(task.leader)
        if task.state.sub == "stop-post":
            extra["SERVICE_RESULT"] = task.state.result
            if task.exit is not None and task.exit.code != UNKNOWN:
                extra["EXIT_CODE"] = "exited" if task.exit.signal is None else "dumped" if task.exit.core else "killed"
                extra["EXIT_STATUS"] = (task.exit.signal or "")[3:] or str(task.exit.code)
        return command_program(command, task.program(), extra, stdin)

    def _ended(self, result: str, why: str) -> None:
        self._commands = None
        task = self._task
        if result == "success":
            if task.state.sub == "reload":
                self._signal_reload()
            task.happen(Event(kind="done"))
            return
        log.warning(why)
        if task.state.sub == "reload":
            task.reload_failed = True
        elif not task.why:
            task.why = why.removeprefix(f"{task.name}: ")
        task.happen(Event(kind="failed", result=result))

    def _signal_reload(self) -> None:
        signal = self._task.service.reload_signal
        if signal is not None and self._task.main is not None:
            self._task.main.signal(signal_number(signal))
