"""`lcinit init`: read, look, plan, run."""

from __future__ import annotations

import os
import sys

from lcinit import log
from lcinit.boot import guard
from lcinit.boot.probe import look_at_guest, probe
from lcinit.boot.rescue import rescue_shell
from lcinit.boot.runner import Runner
from lcinit.boot.world import World
from lcinit.config.values import Config
from lcinit.errors import LcinitError, SystemFailure
from lcinit.plan.build import build
from lcinit.plan.facts import Machine
from lcinit.plan.guest import command, guest_root_owner, root_of
from lcinit.supervisor.loop import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from lcinit.boot.reading import Reading
    from lcinit.plan.build import Plan

    class Early(Protocol):
        """A process that services need, begun early."""

        @property
        def pid(self) -> int:
            """Its PID."""

        def close(self) -> None:
            """Have it end, and wait for that."""


EX_CANNOT_GO_ON = 255


def init(
    reading: Reading,
    arguments: tuple[str, ...],
    *,
    override_exec: bool,
    main: Callable[[list[str]], int],
    stay: Callable[[World], int],
    early: Early | None = None,
) -> int:
    """Boot the guest. After a handoff it returns an exit code only if that failed; all was said on the console then.

    Every signal is blocked by now, and `reading` is the configuration on its way. `stay` supervises the guest of a
    tolerant mode; its exit code is PID 1's. `early` was begun for services before it was known whether there are any.
    """
    world: World | None = None
    try:
        machine = look(frozenset({reading.pid, *(() if early is None else (early.pid,))}))
        config = reading.result()
        if early is not None and config.services is None:
            early.close()
        machine, plan = prepare(config, machine, arguments, override_exec=override_exec)
        _configure_log(config)
        for warning in plan.warnings:
            log.warning(warning)
        world = world_of(config, machine, plan, main)
        if plan.supervision is not None:
            return stay(world)
        run(Runner(world).run())
    except LcinitError as error:
        log.error(str(error))
        if world is not None and world.config.exec.on_failure == "shell" and not _stop_was_asked(world):
            rescue_shell(world)
        return error.exit_code
    except BaseException:
        # our own mistake, or the kernel's
        guard.show_exception(*sys.exc_info())
        log.error("lcinit cannot go on; its end is the end of everything that it has started")
        os._exit(EX_CANNOT_GO_ON)  # not by way of the interpreter's own end, which would close what is broken
    raise AssertionError("a plan ends by exec")


def look_and_plan(config: Config, arguments: tuple[str, ...], *, override_exec: bool) -> tuple[Machine, Plan]:
    """What `init` would run here, without running it."""
    return prepare(config, look(), arguments, override_exec=override_exec)


def prepare(
    config: Config, machine: Machine, arguments: tuple[str, ...], *, override_exec: bool
) -> tuple[Machine, Plan]:
    """The plan for a configuration on a machine, and the machine with what is known of the guest."""
    argv = command(config, arguments, override_exec=override_exec)
    if argv:
        machine = machine.replace(guest=look_at_guest(config, argv[0]))
    return machine, build(config, machine, argv)


def look(children: frozenset[int] = frozenset()) -> Machine:
    """The facts of this machine; `children` as for `probe`. Raises SystemFailure."""
    try:
        return probe(children)
    except OSError as error:
        raise SystemFailure.from_os_error("look at this machine", error, hint="is /proc mounted?") from error


def world_of(config: Config, machine: Machine, plan: Plan, main: Callable[[list[str]], int]) -> World:
    """The state with which the plan's first step begins."""
    world = World(config, plan, guest_root_owner(config), root_of(config), main)
    world.machine = machine
    return world


def _stop_was_asked(world: World) -> bool:
    return world.watch is not None and world.watch.stopped_by is not None


def _configure_log(config: Config) -> None:
    try:
        log.configure(config.log.level, config.log.format, config.log.file)
    except OSError as error:
        raise SystemFailure.from_os_error(f"open log.file {config.log.file}", error) from error
