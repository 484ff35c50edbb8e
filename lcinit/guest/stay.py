"""The beginning and the end of a tolerant mode: what comes before the event loop and after it."""

from __future__ import annotations

from lcinit.boot import builder
from lcinit.boot.namespaces import forbid_dumping
from lcinit.boot.runner import Runner
from lcinit.supervisor.loop import import_loop, new_loop, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.world import World


def stay(world: World) -> int:
    """Stay with the guest until it is over: the exit code, where PID 1 does not end by reboot(2).

    Raises LcinitError where lcinit cannot begin.
    """
    rules = world.plan.supervision
    if rules is None:
        raise AssertionError("a plan that hands over is not stayed with")
    forbid_dumping()
    if rules.pid == "shared":
        import_loop(fast=True)
        from lcinit.guest import shared

        return shared.stay(world)
    number = run(Runner(world).run()) + 1
    forked = builder.start(world, number)
    from lcinit.guest.early import Early
    from lcinit.guest.ending import end

    early = Early(world, forked)
    action = early.wait()
    if action is None:
        # the guest is up by now, and goes on with its own boot on another core
        import_loop()
        from lcinit.guest.supervisor import Supervisor

        action = new_loop().run_until_complete(Supervisor(world, number, forked, early.heard).run())
    return end(action, rules)
