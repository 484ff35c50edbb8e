"""What a reexec hands on, and its new side: the same world again, from the same configuration on the same machine.

The file is read anew, so that a reexec is also how a changed configuration is taken up. Should it be broken by now, the
guest goes on under the configuration that the lcinit before this one had.
"""

from __future__ import annotations

from lcinit import log
from lcinit.boot.boot import prepare, world_of
from lcinit.boot.probe import probe
from lcinit.boot.reading import Reading, from_plain, to_plain
from lcinit.boot.world import World
from lcinit.errors import LcinitError, SystemFailure
from lcinit.guest.reexec import read_state
from lcinit.linux import process, signals
from lcinit.plan.facts import Cgroup
from lcinit.supervisor.dumping import forbid_dumping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lcinit.config.values import Config
    from lcinit.guest.reexec import Handed
    from lcinit.guest.supervisor import Supervisor


class Invocation:
    """What `lcinit init` was started with."""

    def __init__(
        self,
        config: str | None,
        arguments: tuple[str, ...],
        *,
        override_exec: bool,
        main: Callable[[list[str]], int],
    ) -> None:
        self.config = config
        self.arguments = arguments
        self.override_exec = override_exec
        self.main = main


def facts_of(supervisor: Supervisor) -> dict[str, Any]:
    """All that another lcinit needs to go on from here, as JSON types."""
    current = supervisor.current
    assert current is not None
    return {
        "since": supervisor.since,
        "starts": supervisor.starts,
        "history": supervisor.history,
        "events": supervisor.events.history(),
        "events_last": supervisor.events.last,
        "log": log.kept(),
        "log_level": log.level(),
        "ready": supervisor.ready,
        "frozen": supervisor.frozen,
        "failures": supervisor.back_off.failures,
        "start": current.facts(),
        "console": supervisor.console.facts(),
        "init_variables": {} if supervisor.services is None else supervisor.services.init_variables(),
        "world": _world_facts(supervisor.world),
        "descriptors": {
            "pidfd": current.pidfd,
            "root": current.root_fd,
            "cgroup": current.cgroup_fd,
            "notify": -1 if supervisor.readiness is None else supervisor.readiness.fileno(),
            "console": supervisor.console.master(),
            **({} if supervisor.services is None else supervisor.services.descriptors()),
        },
    }


def _world_facts(world: World) -> dict[str, Any]:
    """What of the world is not there to be found again, as JSON types."""
    cgroup = None if world.machine is None else world.machine.cgroup
    return {
        "config": to_plain(world.config),
        "cgroup": None if cgroup is None else cgroup.values(),
        "control": world.control,
        "oom_score_adj": world.oom_score_adj,
    }


def run(text: str, invocation: Invocation, *, rehearsal: bool) -> int:
    """Take the guest over; `text` says where the state is. The exit code, as of an lcinit that stays."""
    from lcinit.guest.stay import take_over

    handed = read_state(text)
    if not rehearsal:
        signals.block_all()
        forbid_dumping()
        process.close_all_but(handed.kept())
    try:
        world = _world(handed, invocation, rehearsal=rehearsal)
        return take_over(world, handed, rehearsal=rehearsal)
    except OSError as error:
        raise SystemFailure.from_os_error("take the guest over", error) from error


def _world(handed: Handed, invocation: Invocation, *, rehearsal: bool) -> World:
    reading = Reading(invocation.config)
    facts = handed.facts["world"]
    try:
        config = reading.result()
    except LcinitError as error:
        if rehearsal:
            raise
        log.error(f"{error}; the guest goes on under the configuration of before")
        config = _config_of(facts)
    log.configure(config.log.level, config.log.format, config.log.file)
    cgroup = None if facts["cgroup"] is None else Cgroup(**facts["cgroup"])
    # as it was found before there was a guest in it
    machine = probe().replace(cgroup=cgroup)
    machine, plan = prepare(config, machine, invocation.arguments, override_exec=invocation.override_exec)
    world = world_of(config, machine, plan, invocation.main)
    world.control = facts["control"]
    world.oom_score_adj = facts.get("oom_score_adj")
    return world


def _config_of(facts: dict[str, Any]) -> Config:
    config: Config = from_plain(_with_tuples(facts["config"]))
    return config


def _with_tuples(value: Any) -> Any:
    """JSON has lists where a configuration has tuples."""
    if isinstance(value, list):
        return tuple(_with_tuples(each) for each in value)
    if isinstance(value, dict):
        return {name: _with_tuples(each) for name, each in value.items()}
    return value
