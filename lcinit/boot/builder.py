"""The builder: a fork of PID 1 that prepares one start of a nested guest, makes its leader, and ends.

All that a start leaves behind belongs to the builder, above all its mount namespace: its end undoes it, and the next
start of the guest is the same again.
"""

from __future__ import annotations

import os
import sys

from lcinit import log
from lcinit.boot import guard, oom
from lcinit.boot.helper import Helper, serve
from lcinit.boot.namespaces import clone_leader
from lcinit.boot.report import Report, Reports, channel
from lcinit.boot.runner import Runner
from lcinit.boot.world import World
from lcinit.errors import EX_SOFTWARE, LcinitError, SystemFailure
from lcinit.linux import process
from lcinit.linux.signals import SIGKILL
from lcinit.plan import steps as s
from lcinit.supervisor.loop import forget_loop, import_loop, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, Never
else:
    import _socket as socket

NO_START = 254  # the exit code of a builder or leader whose failure was told


def start(world: World, number: int) -> tuple[int, Reports]:
    """Fork a builder that does the steps from `number` on: its PID, and what it and the leader will tell.

    Raises SystemFailure where there is no room for it.
    """
    supervisor = os.getpid()
    ours = theirs = None
    try:
        ours, theirs = channel()
        pid = os.fork()
    except OSError as error:
        for end in (ours, theirs):
            if end is not None:
                end.close()
        raise SystemFailure.from_os_error("fork a builder for the guest", error) from error
    if pid == 0:
        try:
            _begin(theirs, world, number, supervisor)
        except BaseException:
            guard.show_exception(*sys.exc_info())
        finally:
            os._exit(EX_SOFTWARE)
    theirs.close()
    return pid, Reports(ours)


def _begin(theirs: socket.socket, world: World, number: int, supervisor: int) -> Never:
    """In the builder: nothing of PID 1's is kept but the configuration and the standard streams."""
    report = Report(theirs)
    process.close_all_but((report.fileno(), log.descriptor()))
    log.send_file_to(None)  # its writer is PID 1's
    forget_loop()
    process.set_pdeathsig(SIGKILL)
    if os.getppid() != supervisor:
        os._exit(0)
    fresh = World(world.config, world.plan, world.owner, world.root, world.main)
    fresh.report = report
    fresh.oom_score_adj = world.oom_score_adj
    runner = Runner(fresh)
    _tell_failure(report, _build, runner, number)


def _build(runner: Runner, number: int) -> Never:
    oom.give_back(runner.world)
    split = run(runner.run(number))
    step = runner.world.plan.steps[split]
    if not isinstance(step, s.CloneLeader):
        raise AssertionError(f"the builder cannot go on at {step.kind}")
    _make_leader(runner, split, step)


def _make_leader(runner: Runner, number: int, step: s.CloneLeader) -> Never:
    world = runner.world
    assert world.report is not None
    if any(isinstance(each, s.RunCommand) for each in world.plan.steps[number:]):
        import_loop()  # the guest's root, which the leader will be, may not be allowed to read it
    ours, theirs = channel()
    try:
        pid, pidfd = clone_leader(world, step)
    except OSError as error:
        raise SystemFailure.from_os_error(
            step.what(), error, hint="`lcinit doctor` tells what this container does not permit"
        ) from error
    if pid == 0:
        try:
            theirs.close()
            forget_loop()
            world.helper = Helper(os.getppid(), ours)
            _tell_failure(world.report, _lead, runner, number + 1)
        finally:
            os._exit(EX_SOFTWARE)
    ours.close()
    runner.leader = pid
    handed = (pidfd, world.guest_cgroup) if world.guest_cgroup >= 0 else (pidfd,)
    world.report.say("leader", descriptors=handed, pid=pid, phases=dict(world.phase_seconds))
    for fd in handed:
        os.close(fd)
    world.guest_cgroup = -1
    serve(theirs, runner.perform)


def _lead(runner: Runner, number: int) -> Never:
    """In the leader, the guest's PID 1: ends by the exec of the guest's init."""
    runner.world.forget_processes()
    runner.leader = os.getpid()
    run(runner.run(number))
    raise AssertionError("a plan ends by exec")


def _tell_failure(report: Report, do: Any, *arguments: Any) -> Never:
    """Do it; what it fails with is PID 1's to say."""
    try:
        do(*arguments)
    except LcinitError as error:
        report.fail(error)
    except BaseException as error:
        guard.show_exception(*sys.exc_info())
        report.fail(SystemFailure(f"unexpected {type(error).__name__} while the guest was started"))
    finally:
        os._exit(NO_START)
