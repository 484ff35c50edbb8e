"""`lcinit init`: read, look, plan, run."""

from __future__ import annotations

import os

from lcinit import log
from lcinit.boot.probe import look_at_guest, probe
from lcinit.boot.runner import Runner
from lcinit.boot.world import World
from lcinit.config.values import Config
from lcinit.errors import EX_USAGE, LcinitError, SystemFailure
from lcinit.plan.build import build, command
from lcinit.plan.facts import Machine
from lcinit.plan.guest import guest_root_owner
from lcinit.supervisor.loop import run
from lcinit.supervisor.spawn import Program, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.reading import Reading
    from lcinit.plan.build import Plan


def init(reading: Reading, arguments: tuple[str, ...], *, override_exec: bool) -> int:
    """Boot the guest. Returns an exit code only if that failed; everything was said on the console by then.

    Every signal is blocked by now, and `reading` is the configuration on its way.
    """
    world: World | None = None
    try:
        machine = _look()
        config = reading.result()
        machine, plan = prepare(config, machine, arguments, override_exec=override_exec)
        _configure_log(config)
        for warning in plan.warnings:
            log.warning(warning)
        world = World(config, plan, guest_root_owner(config), root_of(config))
        run(_boot(world))
    except LcinitError as error:
        log.error(str(error))
        if world is not None and world.config.exec.on_failure == "shell" and error.exit_code != EX_USAGE:
            _rescue_shell(world)
        return error.exit_code
    raise AssertionError("a plan ends by exec")


def look_and_plan(config: Config, arguments: tuple[str, ...], *, override_exec: bool) -> tuple[Machine, Plan]:
    """What `init` would run here, without running it."""
    return prepare(config, _look(), arguments, override_exec=override_exec)


def prepare(
    config: Config, machine: Machine, arguments: tuple[str, ...], *, override_exec: bool
) -> tuple[Machine, Plan]:
    """The plan for a configuration on a machine, and the machine with what is known of the guest."""
    argv = command(config, arguments, override_exec=override_exec)
    machine = machine.replace(guest=look_at_guest(config, argv[0]))
    return machine, build(config, machine, argv)


def _look() -> Machine:
    try:
        return probe()
    except OSError as error:
        raise SystemFailure.from_os_error("look at this machine", error, hint="is /proc mounted?") from error


def root_of(config: Config) -> str:
    """The guest root's path; "/" where the boot root is kept."""
    return config.root.path if config.root.mode != "none" and config.root.path else "/"


def _configure_log(config: Config) -> None:
    try:
        log.configure(config.log.level, config.log.format, config.log.file)
    except OSError as error:
        raise SystemFailure.from_os_error(f"open log.file {config.log.file}", error) from error


async def _boot(world: World) -> None:
    last = world.plan.steps[-1]
    world.guest_environment = last.environment  # type: ignore[attr-defined]
    try:
        await Runner(world).run()
    except BaseException as error:
        # asyncio is only imported by now if somebody could cancel
        if type(error).__name__ != "CancelledError" or world.watch is None or world.watch.stopped_by is None:
            raise
        asked = world.watch.stopped_by
        raise LcinitError(f"the boot was stopped by {world.watch.why()}", exit_code=128 + asked.signo) from error
    finally:
        if world.watch is not None:
            world.watch.stop()


def _rescue_shell(world: World) -> None:
    """exec.on_failure: shell. On the console, in whichever root PID 1 is; the boot ends when it does."""
    where = "guest root" if world.pivoted else "boot root"
    log.warning(f"on_failure: a shell in the {where}; the container ends with it")
    given = dict(world.guest_environment) if world.pivoted else world.outer_environment
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **given}
    try:
        pid = spawn(
            Program(argv=("/bin/sh",), environment=tuple(environment.items()), cwd="/", stdin=0, terminal=os.isatty(0))
        )
        while os.waitpid(-1, 0)[0] != pid:
            continue
    except (OSError, LcinitError) as error:
        log.error(f"no rescue shell: {error}")
