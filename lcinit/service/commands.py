"""The commands of one phase of a service: one after the other, each with its time limit, until one fails."""

from __future__ import annotations

import asyncio

from lcinit import log
from lcinit.boot.commands import command_input
from lcinit.linux.signals import SIGKILL, SIGTERM
from lcinit.supervisor.reaper import describe_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from lcinit.config.values import Command
    from lcinit.errors import CommandFailed
    from lcinit.service.launch import Launcher, Process
    from lcinit.supervisor.reaper import Status
    from lcinit.supervisor.spawn import Program

GRACE = 2.0  # seconds between SIGTERM and SIGKILL for a command that took too long


class CommandList:
    """Runs `commands` of `key` (its place in the file, for messages). `program` makes what is started for one of them.

    `ended(result, why)` is called once: result is a word of machine.RESULTS. After `abort` nothing is called any more.
    """

    def __init__(
        self,
        key: str,
        commands: tuple[Command, ...],
        launcher: Launcher,
        program: Callable[[Command, int | None], Program],
        ended: Callable[[str, str], None],
    ) -> None:
        self._key = key
        self._commands = commands
        self._launcher = launcher
        self._program = program
        self._ended = ended
        self._at = -1
        self._process: Process | None = None
        self._timer: TimerHandle | None = None
        self._too_long = False
        self._over = False

    def begin(self) -> None:
        """Start the first."""
        self._next()

    def abort(self) -> None:
        """End what runs, and say nothing of it."""
        self._over = True
        self._forget_timer()
        if self._process is not None:
            self._process.orphan()
            self._process.signal(SIGKILL, group=True)

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return None if self._process is None else self._process.pid

    def _next(self) -> None:
        if self._over:
            return
        self._at += 1
        if self._at >= len(self._commands):
            self._finish("success", "")
            return
        command = self._commands[self._at]
        try:
            with command_input(command) as stdin:
                self._process = self._launcher.launch(self._program(command, stdin), self)
        except OSError as error:
            self._process = None
            self._judge("start-failure", f"cannot start {command.argv[0]}: {error.strerror}")
            return
        if command.timeout is not None:
            self._timer = asyncio.get_running_loop().call_later(command.timeout, self._took_too_long)

    def _took_too_long(self) -> None:
        self._timer = None
        if self._process is None:
            return
        first = not self._too_long
        self._too_long = True
        self._process.signal(SIGTERM if first else SIGKILL, group=True)
        if first:
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._took_too_long)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # what the launcher tells

    def executed(self, _process: Process) -> None:
        """It runs."""

    def unstartable(self, _process: Process, failure: CommandFailed) -> None:
        """It cannot be run."""
        self._forget_timer()
        self._judge("start-failure", failure.message)

    def ended(self, _process: Process, status: Status) -> None:
        """It has ended."""
        self._forget_timer()
        command = self._commands[self._at]
        if self._too_long:
            self._too_long = False
            self._judge("timeout", f"{command.argv[0]} took longer than its timeout ({command.timeout:g} s)")
        elif status != 0:
            result = "signal" if status.signal else "exit-code"
            self._judge(result, f"{command.argv[0]} ended with {describe_status(status)}")
        else:
            self._next()

    def _judge(self, result: str, why: str) -> None:
        if self._over:
            return
        self._process = None
        text = f"{self._key}[{self._at}]: {why}"
        if self._commands[self._at].ignore_errors:
            log.warning(f"{text} (ignored)")
            self._next()
        else:
            self._finish(result, text)

    def _finish(self, result: str, why: str) -> None:
        self._over = True
        self._process = None
        self._ended(result, why)
