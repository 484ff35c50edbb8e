"""PID 1 that shares the guest's root with services: what comes before the supervisor, and what it is given.

The order is the point. The spawner is forked while PID 1 is small and in its own root; then everything is imported;
then the plan's steps are run, and imports are refused. What the guest can hold up (its files, its mounts) is looked at
by other processes from there on, or by handles that were opened before.
"""

from __future__ import annotations

import errno
import gc
import os
import resource

from lcinit import log
from lcinit.boot import guard, held
from lcinit.boot.runner import Runner
from lcinit.linux import files, namespaces, process
from lcinit.plan import steps as s
from lcinit.service.reader import Reader
from lcinit.supervisor import oom_score
from lcinit.supervisor.lean import import_json
from lcinit.supervisor.loop import import_loop, loop_needed, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.boot.reading import Reading
    from lcinit.boot.world import World
    from lcinit.plan.supervision import Supervision
    from lcinit.supervisor.guest_state import Action
    from lcinit.supervisor.spawner import Spawner

MORE_DESCRIPTORS = 1 << 20  # that many would do for any number of services; the hard limit decides


_OF_CONTROL = ("serving", "answers", "connection", "manager", "peer", "server", "services", "varlink")
_OF_SERVICE = ("changes", "commands", "health", "health_http", "health_state", "offered", "pid_process", "ready_fd")
FOR_LATER = (
    *(f"lcinit.control.{name}" for name in _OF_CONTROL),
    *(f"lcinit.service.{name}" for name in (*_OF_SERVICE, "reload", "tcp")),
    *("lcinit.boot.commands", "lcinit.plan.show"),
)


_IN_TURN = (  # of running, which has them imported otherwise, all at once
    "control.texts",
    "control.initctl_service",
    "control.notify",
    "service.services",
    "service.supervisor",
)


def prepare(enough: Callable[[], bool] = lambda: False) -> None:
    """Import what is not needed before it is known that there are services, and hold what they may need later; only as
    much as fits in before there is `enough`. Raises SystemFailure.
    """
    for name in ("asyncio", "json", *_IN_TURN, "service.running"):
        if enough():
            return
        _import(name)
    held.hold(*FOR_LATER)


def _import(name: str) -> None:
    if name == "asyncio":
        import_loop()
    elif name == "json":
        import_json()
    else:
        __import__(f"lcinit.{name}")


def stay(world: World, rules: Supervision, reading: Reading, spawner: Spawner) -> tuple[Action, Reader]:
    """Run the plan's steps, then the services: how lcinit is to end, and who can end the container from outside."""
    kinds = {type(step) for step in world.plan.steps}
    # with an id map only who stays outside of it may reboot; and an initramfs cannot be copied
    reader = Reader(reading.channel, stays=bool(kinds & {s.WriteIdMap, s.CoverInitramfs}))
    reader.keep_root(changes=s.ChangeRoot in kinds)
    # where no step can have changed what is to be read, it is read while PID 1 imports the rest
    answer = reader.ask(_root()) if kinds <= {s.TakeCgroup, s.KeepServices} else None
    prepare()
    from lcinit.service.running import Running

    return run(_stay(world, rules, reader, answer, spawner, Running)), reader


async def _stay(
    world: World, rules: Supervision, reader: Reader, answer: int | None, spawner: Spawner, running: type[Running]
) -> Action:
    await loop_needed()
    process.set_child_subreaper(True)
    # before the root changes: what is at these paths then is the guest's
    around = running(world, rules, reader, spawner, _procfs())
    runner = Runner(world)
    step = world.plan.steps[await runner.run()]
    if not isinstance(step, s.KeepServices):
        raise AssertionError(f"a plan with services ends with them, not {step.kind}")
    _spare()  # not before: what the plan runs inherits it
    guard.close()
    if world.helper is not None:
        world.helper.close()
        world.helper = None
    _raise_descriptors()
    gc.freeze()  # as it is: imports leave no garbage that is worth the time it takes to find
    gc.enable()
    root_fd = _root()
    return await around.run(step, root_fd, reader.ask(root_fd) if answer is None else answer)


def _spare() -> None:
    """The services' own scores are what PID 1 was given: the spawner, whose children they are, keeps that."""
    try:
        oom_score.spare()
    except (OSError, ValueError) as error:
        log.debug(f"PID 1 is not spared when memory runs out: {error}")


def _root() -> int:
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _procfs() -> int:
    """Where the table of processes is read: a procfs that nobody can mount over. Without the right to make one there is
    the container's, over which services that have no more rights than lcinit cannot mount either.
    """
    try:
        return namespaces.open_procfs()
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files.check_statfs_type(fd, files.PROC_SUPER_MAGIC, "/proc")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _raise_descriptors() -> None:
    """As many as may be: each service's output takes two. What services get is the spawner's, which stays as it was."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MORE_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.debug(f"no more descriptors than {os.sysconf('SC_OPEN_MAX')}: {error}")


if TYPE_CHECKING:
    from lcinit.service.running import Running
