"""Running the configuration's commands: one at a time, supervised, with a time limit and the truth about their end."""

from __future__ import annotations

import os
import select
import time

from lcinit import log
from lcinit.boot.own import tool
from lcinit.boot.world import World
from lcinit.config.values import Command
from lcinit.errors import CommandFailed, LcinitError
from lcinit.linux import process, signals
from lcinit.plan import steps as s
from lcinit.plan.guest import DEFAULT_PATH
from lcinit.record import Record
from lcinit.supervisor.accounts import identity
from lcinit.supervisor.loop import loop_needed
from lcinit.supervisor.reaper import Child, Status, describe_status, status_of
from lcinit.supervisor.spawn import Program, spawn
from lcinit.supervisor.watch import STOP

EX_TIMEOUT = 124  # as timeout(1)
TOO_LONG = Status(-1)  # of a command that was ended because its time was up
GRACE = 2.0  # seconds between SIGTERM and SIGKILL for a command that took too long


async def run_command(world: World, step: s.RunCommand) -> None:
    """A command of PID 1's own: its output goes to the console, its end is waited for."""
    started = time.monotonic()
    pid = _start(world, step)
    if pid is None:
        return
    child = world.reaper.register(pid)
    limit = _limit(world, step)
    status = await _finish(world, child, limit.seconds)
    log.debug(f"{step.key}: {describe_status(status)} after {time.monotonic() - started:.3f} s")
    if status != 0:
        _failed(step, status, limit)


def run_outside(world: World, step: s.RunCommand, leader: int) -> None:
    """A `setup.outside` command, run by the helper, which has no loop and no other child."""
    pid = _start(world, step, (("LCINIT_GUEST_PID", str(leader)),))
    if pid is None:
        return
    limit = _limit(world, step)
    pidfd = process.pidfd_open(pid)
    asked = signals.SignalFd(STOP)
    try:
        poll = select.poll()
        for fd in (pidfd, asked.fileno()):
            poll.register(fd, select.POLLIN)
        ready = poll.poll(None if limit.seconds is None else max(0, int(limit.seconds * 1000)))
        if pidfd not in dict(ready):
            os.killpg(pid, signals.SIGKILL)
        status = status_of(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)
        asked.close()
    if not ready:
        status = TOO_LONG
    if status != 0:
        _failed(step, status, limit)


class _Limit(Record):
    """How long a command may take, None without a limit, and which key of the configuration says so."""

    seconds: float | None
    key: str = ""


def _limit(world: World, step: s.RunCommand) -> _Limit:
    """The command's own time-out, or what is left of the phase's where that is less."""
    own, left = step.command.timeout, world.phase_left(step)
    if left is not None and (own is None or left < own):
        return _Limit(seconds=left, key=f"setup.timeout ({step.deadline:g} s)")
    return _Limit(seconds=own, key=f"its timeout ({own:g} s)" if own is not None else "")


def _start(world: World, step: s.RunCommand, extra: tuple[tuple[str, str], ...] = ()) -> int | None:
    """The command's PID; None when it cannot be run and nobody minds."""
    try:
        with command_input(step.command) as stdin:
            return _spawn(world, step, stdin, extra)
    except CommandFailed as error:
        _give_up(step, error.message, error.exit_code)
        return None
    except LcinitError as error:
        raise type(error)(f"{step.key}: {error.message}", hint=error.hint, exit_code=error.exit_code) from error


def _spawn(world: World, step: s.RunCommand, stdin: int | None, extra: tuple[tuple[str, str], ...]) -> int:
    command = step.command
    if step.place == "guest root":
        environment = dict(world.guest_environment)
    else:
        environment = {"PATH": DEFAULT_PATH, **world.outer_environment}
    environment.update(extra)
    environment.update(command.environment)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        who = identity(root_fd, command.user, command.group)
    finally:
        os.close(root_fd)
    cwd = command.cwd or (world.root if step.place == "guest namespaces" else "/")
    return spawn(
        Program(
            argv=command.argv,
            environment=tuple(environment.items()),
            cwd=cwd,
            stdin=stdin,
            identity=who,
            function=None if world.pivoted else tool(command.argv, environment.get("PATH", DEFAULT_PATH), world.main),
        )
    )


class command_input:  # noqa: N801 - used as a function is
    """The command's input as a descriptor: a memory file, so that nobody has to write while it reads."""

    def __init__(self, command: Command) -> None:
        self.fd: int | None = None
        if command.input is not None:
            self.fd = os.memfd_create("input", os.MFD_CLOEXEC)
            data = command.input.encode("utf-8", "surrogateescape")
            while data:
                data = data[os.write(self.fd, data) :]
            os.lseek(self.fd, 0, os.SEEK_SET)

    def __enter__(self) -> int | None:
        return self.fd

    def __exit__(self, *_exception: object) -> None:
        if self.fd is not None:
            os.close(self.fd)


async def _finish(world: World, child: Child, limit: float | None) -> Status:
    """The child's status; TOO_LONG when it was ended because its time was up."""
    await loop_needed()
    world.listen()
    import asyncio

    try:
        async with asyncio.timeout(limit):
            return await child.wait()
    except TimeoutError:
        await _end(child)
        return TOO_LONG
    except asyncio.CancelledError:
        _kill(child, signals.SIGKILL)
        raise


async def _end(child: Child) -> None:
    import asyncio

    _kill(child, signals.SIGTERM)
    try:
        async with asyncio.timeout(GRACE):
            await child.wait()
    except TimeoutError:
        _kill(child, signals.SIGKILL)
        await child.wait()


def _kill(child: Child, number: int) -> None:
    """Signal the child's process group; it leads one of its own."""
    if child.status is None:
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass


def _failed(step: s.RunCommand, status: Status, limit: _Limit) -> None:
    name = s.quote(step.command.argv[0])
    if status < 0:
        _give_up(step, f"{name} took longer than {limit.key} and was ended", EX_TIMEOUT)
    else:
        _give_up(step, f"{name} ended with {describe_status(status)}", status)


def _give_up(step: s.RunCommand, why: str, exit_code: int) -> None:
    """End the boot because of a command, unless it says that errors do not matter."""
    if step.command.ignore_errors:
        log.warning(f"{step.key}: {why} (ignored)")
        return
    hint = "mend the command, or give it ignore_errors: true; files that commands changed are not undone"
    raise CommandFailed(f"{step.key}: {why}", hint=hint, exit_code=exit_code)
