"""Which network interfaces the guest gets. Pure."""

from __future__ import annotations

from lcinit.config.values import Config
from lcinit.errors import ConfigError
from lcinit.plan.facts import Machine
from lcinit.plan.managers import MANAGERS


def interfaces_to_move(config: Config, machine: Machine) -> tuple[tuple[str, ...], str]:
    """The names, and the reason in words.

    `auto` takes interfaces only where nobody else can need them: the manager is one that makes a network namespace for
    the container, this is not the machine's first one, and no interface is a device of the machine.
    """
    wanted = config.network.interfaces
    present = {interface.name: interface for interface in machine.interfaces}
    if not config.namespaces.network:
        return (), "the guest shares the network namespace"
    if wanted == "none":
        return (), "network.interfaces is none"
    if wanted == "all":
        return tuple(present), "network.interfaces is all"
    if isinstance(wanted, tuple):
        missing = [name for name in wanted if name not in present]
        if missing:
            raise ConfigError(
                f"network.interfaces: no interface {missing[0]!r} here; there is {', '.join(present) or 'none'}"
            )
        return wanted, "network.interfaces names them"
    if not present:
        return (), "auto: there is no interface but the loopback"
    if not MANAGERS[machine.manager].private_network:
        return (), "auto: no known manager made this network namespace for the container; network.interfaces names some"
    if machine.pid != 1:
        return (), "auto: this is not PID 1 of a container"
    if machine.initial_network:
        return (), "auto: this is the machine's own network namespace"
    hardware = [name for name, interface in present.items() if interface.hardware]
    if hardware:
        return (), f"auto: {hardware[0]} is a device of the machine"
    return tuple(present), "auto: the manager made them for this container"
