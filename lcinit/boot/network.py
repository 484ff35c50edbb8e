"""Moving network interfaces: the helper stays in the old namespace and can enter the new one."""

from __future__ import annotations

import os

from lcinit.errors import SystemFailure
from lcinit.linux import namespaces, netlink
from lcinit.linux.rtnetlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.world import World
    from lcinit.plan import steps as s


def loopback_up(_world: World, _step: s.LoopbackUp) -> None:
    """Inside the new namespace."""
    with Netlink() as channel:
        for link in netlink.links(channel):
            if link.loopback:
                netlink.set_link(link.index, up=True, netlink=channel)


def check_target(target: int, owner: int) -> None:
    """Refuse a descriptor that is not a network namespace of the user namespace `owner`, or is the caller's own.

    An interface that has gone to a namespace of somebody else's could not be had back.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        own = os.path.samestat(os.fstat(home), os.fstat(target))
    finally:
        os.close(home)
    if own or namespaces.ns_get_nstype(target) != namespaces.CLONE_NEWNET:
        raise SystemFailure("refused: interfaces move to a new network namespace of the guest's alone")
    owning = namespaces.ns_get_userns(target)
    try:
        if not os.path.samestat(os.fstat(owning), os.fstat(owner)):
            raise SystemFailure("refused: the network namespace does not belong to the guest's user namespace")
    finally:
        os.close(owning)


def move_interfaces(names: tuple[str, ...], target: int, owner: int) -> None:
    """The helper's part: move each interface to the namespace `target` and make it there what it was here.

    `owner` is the user namespace that must own it: PID 1's.
    Addresses and routes are lost in the move (they belong to the namespace), so they are read first and made again.
    Routes go last, and those without a gateway first: a gateway must be reachable when its route is made.
    """
    check_target(target, owner)
    with Netlink() as here:
        present = {link.name: link for link in netlink.links(here)}
        moving = []
        for name in names:
            if name not in present:
                raise SystemFailure(f"the network interface {name} is gone")
            moving.append(present[name])
        addresses = [a for link in moving for a in netlink.addresses(link.index, here)]
        indexes = {link.index for link in moving}
        routes = [r for r in netlink.routes(netlink=here) if r.indexes and set(r.indexes) <= indexes]
        for link in moving:
            netlink.move_link(link.index, target, netlink=here)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(target, namespaces.CLONE_NEWNET)
        try:
            there = Netlink()
        finally:
            namespaces.setns(home, namespaces.CLONE_NEWNET)
    finally:
        os.close(home)
    with there:
        arrived = {link.name: link.index for link in netlink.links(there)}
        new_index = {link.index: arrived[link.name] for link in moving}
        for link in moving:
            netlink.set_link(new_index[link.index], up=link.up, mtu=link.mtu, netlink=there)
        for address in addresses:
            try:
                netlink.add_address(address, new_index[address.index], there)
            except FileExistsError:
                continue  # kernels before 5.18 do not tell which link-local address the kernel made itself
        for route in sorted(routes, key=lambda route: route.has_gateway):
            netlink.add_route(route, new_index, there)
