"""The beginning and the end of a tolerant mode: what comes before the event loop and after it."""

from __future__ import annotations

import gc

from lcinit.errors import LcinitError
from lcinit.supervisor.dumping import forbid_dumping
from lcinit.supervisor.loop import import_loop, new_loop, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.boot.world import World
    from lcinit.guest.reexec import Handed
    from lcinit.plan.supervision import Supervision
    from lcinit.service.reader import Reader
    from lcinit.supervisor.guest_state import Action


def stay(world: World, services: Callable[[Supervision], tuple[Action, Reader]] | None = None) -> int:
    """Stay with the guest until it is over: the exit code, where PID 1 does not end by reboot(2).

    `services` stays with those of a configuration that has some. Raises LcinitError where lcinit cannot begin.
    """
    rules = world.plan.supervision
    if rules is None:
        raise AssertionError("a plan that hands over is not stayed with")
    forbid_dumping()
    if world.config.services is not None:
        if services is None:
            raise AssertionError("services are for PID 1 of a container")
        from lcinit.guest.ending import end

        how, reader = services(rules)
        return end(how, rules, reader.reboot)
    gc.enable()
    if rules.pid == "shared":
        import_loop(fast=True)
        from lcinit.guest import shared

        return shared.stay(world)
    from lcinit.boot import builder, oom
    from lcinit.boot.runner import Runner

    number = run(Runner(world).run()) + 1
    oom.spare(world)
    forked = builder.start(world, number)
    from lcinit.guest.early import Early, First
    from lcinit.guest.ending import end

    early = Early(world, forked)
    action = early.wait()
    if action is None:
        # the guest is up by now, and goes on with its own boot on another core
        import_loop()
        from lcinit.guest.supervisor import Supervisor

        supervisor = Supervisor(world, number, First(forked, early.heard))
        action = new_loop().run_until_complete(supervisor.run())
        if supervisor.failed_to_start and world.config.exec.on_failure == "shell":
            from lcinit.boot.rescue import rescue_shell

            oom.give_back(world)
            rescue_shell(world)
    return end(action, rules)


def take_over(world: World, handed: Handed, *, rehearsal: bool) -> int:
    """Go on with a guest that another lcinit has handed on; with `rehearsal` only see that it could be done."""
    rules = world.plan.supervision
    if rules is None or rules.pid != "nested":
        raise LcinitError("the configuration no longer says exec.mode: tolerant with exec.pid: nested")
    import_loop()
    from lcinit.guest.ending import end
    from lcinit.guest.services import Services  # noqa: F401 - what will be needed must be there
    from lcinit.guest.supervisor import Supervisor
    from lcinit.plan.steps import ForkBuilder

    number = next(i for i, step in enumerate(world.plan.steps) if isinstance(step, ForkBuilder)) + 1
    supervisor = Supervisor(world, number, handed)
    if rehearsal:
        return 0
    return end(new_loop().run_until_complete(supervisor.run()), rules)
