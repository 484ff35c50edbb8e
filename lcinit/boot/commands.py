"""Running the configuration's commands: one at a time, supervised, with a time limit and the truth about their end."""

from __future__ import annotations

import os
import select
import time

from lcinit import log
from lcinit.boot.own import TOOLS, program
from lcinit.boot.world import World
from lcinit.config.values import Command
from lcinit.errors import CommandFailed
from lcinit.linux import process, signals
from lcinit.plan import steps as s
from lcinit.plan.guest import DEFAULT_PATH
from lcinit.supervisor.accounts import identity
from lcinit.supervisor.loop import loop_needed
from lcinit.supervisor.reaper import Child, describe_status, status_of
from lcinit.supervisor.spawn import Program, spawn

EX_TIMEOUT = 124  # as timeout(1)
GRACE = 2.0  # seconds between SIGTERM and SIGKILL for a command that took too long


async def run_command(world: World, step: s.RunCommand) -> None:
    """A command of PID 1's own: its output goes to the console, its end is waited for."""
    started = time.monotonic()
    with _Input(step.command) as stdin:
        pid = _start(world, step, stdin)
    child = world.reaper.register(pid)
    status = await _finish(world, child, _limit(world, step))
    log.debug(f"{step.key}: {describe_status(status)} after {time.monotonic() - started:.3f} s")
    if status != 0:
        _failed(step, status)


def run_outside(world: World, step: s.RunCommand, leader: int) -> None:
    """A `setup.outside` command, run by the helper, which has no loop and no other child."""
    extra = (("LCINIT_GUEST_PID", str(leader)),)
    with _Input(step.command) as stdin:
        pid = _start(world, step, stdin, extra)
    limit = _limit(world, step)
    pidfd = process.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(None if limit is None else max(0, int(limit * 1000))):
            os.killpg(pid, signals.SIGKILL)
            os.waitpid(pid, 0)
            status = -1
        else:
            status = status_of(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)
    if status != 0:
        _failed(step, status)


def _limit(world: World, step: s.RunCommand) -> float | None:
    """Seconds the command may take: its own time-out, and what is left of the phase's."""
    limits = [limit for limit in (step.command.timeout, world.phase_left(step)) if limit is not None]
    return min(limits, default=None)


def _start(world: World, step: s.RunCommand, stdin: int | None, extra: tuple[tuple[str, str], ...] = ()) -> int:
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
    name = command.argv[0]
    fallback = program(name, command.argv[1:]) if name in TOOLS and not world.pivoted else ()
    cwd = command.cwd or (world.root if step.place == "guest namespaces" else "/")
    return spawn(
        Program(
            argv=command.argv,
            environment=tuple(environment.items()),
            cwd=cwd,
            stdin=stdin,
            identity=who,
            fallback=fallback,
        )
    )


class _Input:
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


async def _finish(world: World, child: Child, limit: float | None) -> int:
    """The child's status; -1 when it was ended because its time was up."""
    await loop_needed()
    world.listen()
    import asyncio

    try:
        async with asyncio.timeout(limit):
            return await child.wait()
    except TimeoutError:
        await _end(child)
        return -1
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


def _failed(step: s.RunCommand, status: int) -> None:
    what = "took too long and was ended" if status < 0 else f"ended with {describe_status(status)}"
    message = f"{step.key}: {s.quote(step.command.argv[0])} {what}"
    if step.command.ignore_errors:
        log.warning(f"{message} (ignored)")
        return
    raise CommandFailed(
        message, hint="files that commands changed are not undone", exit_code=EX_TIMEOUT if status < 0 else status
    )
