"""exec.pid: shared. PID 1 in the guest root, with one command as its child: it reaps, forwards signals, ends with it.

Everything is imported before the root changes and nothing after: what is at those paths then is the guest's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import time

from lcinit import log
from lcinit.boot import guard
from lcinit.boot.console import terminal_is_foreign
from lcinit.boot.runner import Runner
from lcinit.errors import SystemFailure
from lcinit.linux import process, signals
from lcinit.linux.signals import SIGRTMIN, signal_name, signal_number
from lcinit.plan import steps as s
from lcinit.supervisor.accounts import identity
from lcinit.supervisor.backoff import BackOff
from lcinit.supervisor.loop import loop_needed, run
from lcinit.supervisor.reaper import describe_status
from lcinit.supervisor.spawn import Program, begin, told
from lcinit.supervisor.watch import SignalStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.world import World
    from lcinit.linux.signals import SignalInfo
    from lcinit.supervisor.reaper import Child, Status

# What a manager sends to an init, and a command knows nothing of: its own stop signal takes their place.
TRANSLATED = frozenset((signals.SIGPWR, SIGRTMIN + 3, SIGRTMIN + 4))
# What is PID 1's own: a terminal's job control, and descriptors that are ready.
KEPT = frozenset((signals.SIGTTIN, signals.SIGTTOU, signals.SIGIO, signals.SIGPIPE))


def stay(world: World) -> int:
    """Run the plan's steps, then the command; its exit code, or 128 + the signal that ended it."""
    return run(_stay(world), fast=True)


async def _stay(world: World) -> int:
    await loop_needed()  # and with it all that the loop imports
    process.set_child_subreaper(True)
    runner = Runner(world)
    step = world.plan.steps[await runner.run()]
    if not isinstance(step, s.KeepCommand):
        raise AssertionError(f"a plan that shares PID 1 ends with a command, not {step.kind}")
    guard.close()
    if world.helper is not None:
        world.helper.close()
        world.helper = None
    return await Keeping(world, step).run()


def _kill_group(leader: int, number: int) -> None:
    """Signal its process group, or itself while it has not made one yet."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        os.kill(leader, number)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


class Keeping:
    """The command while it runs."""

    def __init__(self, world: World, step: s.KeepCommand) -> None:
        self._world = world
        self._step = step
        self._child: Child | None = None
        self._started = False
        self._stopping = False
        self._stop_signal = signal_number(dict(step.stop).get("poweroff", "SIGTERM"))
        self._signals = SignalStream(world.reaper, self._take)
        self._back_off = BackOff()
        self._woken = asyncio.Event()

    async def run(self) -> int:
        """Until it has ended and is not to be started again."""
        program = self._program()
        self._signals.start()
        while True:
            began = time.monotonic()
            try:
                status = await self._once(program)
            except OSError as error:
                # no room for another process: what began well may go on well
                failure = SystemFailure.from_os_error(f"start {program.argv[0]}", error)
                if self._stopping or not self._started:
                    raise failure from error
                delay = self._back_off.next(0)
                log.error(f"{failure}; it is tried again in {delay:g} s")
                if await self._stopped_within(delay):
                    return failure.exit_code
                continue
            if self._stopping or self._world.config.exec.on_exit == "exit":
                return status
            delay = self._back_off.next(time.monotonic() - began)
            log.info(f"the command has ended: {describe_status(status)}; it is started again in {delay:g} s")
            if await self._stopped_within(delay):
                return status

    async def _once(self, program: Program) -> Status:
        """Start it and wait for its end. Who lives in the guest may hold the exec up, and so it is waited for on the
        loop: by a stop signal, or by a lease on the program's file (fcntl(2), F_SETLEASE).
        """
        pid, reader = begin(program)
        self._child = self._world.reaper.register(pid)
        try:
            await _readable(reader)
            failure = told(program, reader)
            status = await self._child.wait()
        finally:
            self._child = None
        if failure is not None:
            raise failure
        self._started = True
        return status

    async def _stopped_within(self, delay: float) -> bool:
        try:
            async with asyncio.timeout(delay):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True

    def _take(self, info: SignalInfo) -> None:
        if info.signo in KEPT:
            return
        number = self._stop_signal if info.signo in TRANSLATED else info.signo
        if number in (self._stop_signal, signals.SIGTERM, signals.SIGINT, signals.SIGQUIT):
            self._stop()
        child = self._child
        if child is None or child.status is not None:
            return
        try:
            if self._world.config.exec.forward_to == "group":
                _kill_group(child.pid, number)
            else:
                os.kill(child.pid, number)
        except ProcessLookupError:
            return  # it has ended, and SIGCHLD is on its way
        except OSError as error:
            raise SystemFailure.from_os_error(f"forward {signal_name(number)}", error) from error

    def _stop(self) -> None:
        """From here on the command's end is the end; with shutdown.timeout it has that long."""
        if self._stopping:
            return
        self._stopping = True
        self._woken.set()
        timeout = self._world.config.shutdown.timeout
        if timeout is not None:
            asyncio.get_running_loop().call_later(timeout, self._kill, timeout)

    def _kill(self, timeout: float) -> None:
        if self._child is not None and self._child.status is None:
            log.warning(f"the command has not ended within {timeout:g} s: killing it")
            os.kill(self._child.pid, signals.SIGKILL)

    def _program(self) -> Program:
        step = self._step
        self._world.reopen_root()
        try:
            who = identity(self._world.root_fd, step.user, step.group, step.groups)
        finally:
            os.close(self._world.root_fd)
            self._world.root_fd = -1
        return Program(
            argv=step.argv,
            environment=step.environment,
            cwd=step.cwd or "/",
            stdin=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10),
            identity=who,
            limits=tuple(
                (getattr(resource, f"RLIMIT_{limit.name.upper()}"), limit.soft, limit.hard) for limit in step.limits
            ),
            session="new" if terminal_is_foreign(self._world) else "group",
        )
