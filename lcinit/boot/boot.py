"""`lcinit init`: read, look, plan, run."""

from __future__ import annotations

import os

from lcinit import log
from lcinit.boot.probe import probe
from lcinit.boot.runner import Runner
from lcinit.boot.world import World
from lcinit.config.load import load
from lcinit.config.values import Config
from lcinit.errors import EX_USAGE, LcinitError, SystemFailure, UsageError
from lcinit.linux.signals import block_all
from lcinit.plan.build import build
from lcinit.plan.facts import Machine
from lcinit.plan.guest import guest_root_owner
from lcinit.supervisor.loop import run
from lcinit.supervisor.spawn import Program, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.plan.build import Plan


def init(config_path: str | None, arguments: tuple[str, ...], *, override_exec: bool, pid1_only: bool) -> int:
    """Boot the guest. Returns an exit code only if that failed; everything was said on the console by then."""
    block_all()
    world: World | None = None
    try:
        refuse_setuid()
        if pid1_only and os.getpid() != 1:
            raise UsageError(
                f"this is process {os.getpid()}, not PID 1 of a container",
                hint="start it as the container's init, or give --no-pid1; `init RUNLEVEL` talks to a running init",
            )
        config, _machine, plan = prepare(config_path, arguments, override_exec=override_exec)
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


def prepare(
    config_path: str | None, arguments: tuple[str, ...], *, override_exec: bool
) -> tuple[Config, Machine, Plan]:
    """Configuration, machine and plan: what `init` runs and `plan` prints."""
    config = load(config_path)
    try:
        machine = probe(
            config, arguments[0] if arguments and (override_exec or not config.exec.command_given) else None
        )
    except OSError as error:
        raise SystemFailure.from_os_error("look at this machine", error, hint="is /proc mounted?") from error
    return config, machine, build(config, machine, arguments=arguments, override_exec=override_exec)


def root_of(config: Config) -> str:
    """The guest root's path; "/" where the boot root is kept."""
    return config.root.path if config.root.mode != "none" and config.root.path else "/"


def refuse_setuid() -> None:
    """A program that is meant for root's hands must not run in anybody else's with root's rights."""
    if os.geteuid() != os.getuid() or os.getegid() != os.getgid():
        raise UsageError("lcinit is installed setuid or setgid; it must not be", exit_code=77)


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
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **world.outer_environment}
    try:
        pid = spawn(
            Program(argv=("/bin/sh",), environment=tuple(environment.items()), cwd="/", stdin=0, terminal=os.isatty(0))
        )
        while os.waitpid(-1, 0)[0] != pid:
            continue
    except (OSError, LcinitError) as error:
        log.error(f"no rescue shell: {error}")
