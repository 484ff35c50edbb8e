"""rtnetlink on the running kernel: interfaces move and keep what they had."""

import errno
import os
import socket
import struct
import time

import pytest

from lcinit.linux import namespaces, netlink, rtnetlink
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root

NESTED = 0x8000


def create_link(name: str, kind: str, peer: str | None = None) -> int:
    """A new virtual link, or a veth pair: its index."""
    info = [(1, kind.encode())]
    if peer is not None:  # VETH_INFO_PEER holds a header and attributes of its own
        header = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        inner = rtnetlink.pack_attributes([(1, header + rtnetlink.pack_attributes([(3, peer.encode() + b"\0")]))])
        info.append((2 | NESTED, inner))
    attributes = [(3, name.encode() + b"\0"), (18 | NESTED, rtnetlink.pack_attributes(info))]
    payload = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + rtnetlink.pack_attributes(attributes)
    with rtnetlink.Netlink() as link:
        link.request(rtnetlink.RTM_NEWLINK, payload, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL)
    return link_named(name).index


def link_named(name: str) -> netlink.Link:
    (found,) = [link for link in netlink.links() if link.name == name]
    return found


def new_address(index: int, text: str, prefixlen: int, *more: tuple[int, bytes]) -> None:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    raw = socket.inet_pton(family, text)
    attributes = [(1, raw), (2, raw), *more]
    header = struct.pack("=BBBBi", family, prefixlen, 0, 0, index)
    netlink.add_address(netlink.Address(header + rtnetlink.pack_attributes(attributes)))


def new_route(family: int, dst_len: int, *attributes: tuple[int, bytes], table: int = 254, kind: int = 1) -> None:
    header = struct.pack("=BBBBBBBBI", family, dst_len, 0, 0, table, 4, 0, kind, 0)
    netlink.add_route(netlink.Route(header + rtnetlink.pack_attributes(attributes)))


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


def ip(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def shown_addresses() -> set[tuple[str, int]]:
    return {(socket.inet_ntop(each.family, each.address), each.prefixlen) for each in netlink.addresses()}


def shown_routes() -> set[tuple[int, int, int, frozenset[tuple[int, bytes]]]]:
    left_out = {4, 9, 12}  # interface indexes differ, ages too
    return {
        (
            route.family,
            route.dst_len,
            route.table,
            frozenset((kind, value) for kind, value in route.attributes if kind not in left_out),
        )
        for route in netlink.routes()
    }


def test_an_empty_namespace_has_loopback_alone() -> None:
    def inside() -> None:
        (lo,) = netlink.links()
        assert (lo.name, lo.index, lo.kind, lo.up, lo.loopback) == ("lo", 1, "", False, True)
        netlink.set_link(lo.index, up=True)
        assert link_named("lo").up
        assert netlink.addresses() == []  # 127.0.0.1 and ::1 come back by themselves
        assert netlink.routes() == []

    run_isolated(inside)


def test_links_are_listed_and_changed() -> None:
    def inside() -> None:
        index = create_link("d0", "bridge")
        link = link_named("d0")
        assert (link.kind, link.up, len(link.address), link.master) == ("bridge", False, 6, 0)
        create_link("v0", "veth", "v1")
        assert link_named("v0").link == link_named("v1").index
        netlink.set_link(index, mtu=1400, name="renamed")
        netlink.set_link(index, up=True)
        link = link_named("renamed")
        assert (link.index, link.mtu, link.up) == (index, 1400, True)
        netlink.set_link(index, up=False)
        assert not link_named("renamed").up

    run_isolated(inside)


def test_many_links_are_all_listed() -> None:
    def inside() -> None:
        for number in range(150):  # more than one datagram holds
            create_link(f"d{number}", "bridge")
        assert len(netlink.links()) == 151

    run_isolated(inside)


def test_errors_carry_the_kernels_reason() -> None:
    def inside() -> None:
        index = create_link("d0", "bridge")
        with pytest.raises(OSError, match=r"RTM_NEWLINK: .*: .*mtu") as caught:
            netlink.set_link(index, mtu=1)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(OSError, match="RTM_NEWLINK: No such device"):
            netlink.set_link(99, up=True)
        netlink.set_link(index, up=True)
        new_address(index, "10.1.0.2", 24)
        with pytest.raises(FileExistsError, match="RTM_NEWADDR"):
            new_address(index, "10.1.0.2", 24)
        with pytest.raises(OSError, match="RTM_NEWROUTE: .*: .*gateway") as caught:  # noqa: RUF043
            new_route(socket.AF_INET, 0, (5, ip("10.9.9.9")))
        assert caught.value.errno == errno.ENETUNREACH

    run_isolated(inside)


def test_a_moved_interface_gets_its_addresses_and_routes_back() -> None:
    def inside() -> None:
        index = create_link("v0", "veth", "v1")
        netlink.set_link(index, up=True, mtu=1450)
        netlink.set_link(link_named("v1").index, up=True)
        new_address(index, "10.1.0.2", 24, (4, ip("10.1.0.255")))
        new_address(index, "10.1.0.3", 24)
        new_address(index, "10.7.0.1", 32)
        new_address(index, "fd00::2", 64)
        new_route(socket.AF_INET, 0, (5, ip("10.1.0.1")), (7, ip("10.1.0.3")))
        new_route(socket.AF_INET, 16, (1, ip("10.8.0.0")), (4, u32(index)), (6, u32(50)))
        new_route(socket.AF_INET, 24, (1, ip("10.8.1.0")), (5, ip("10.1.0.9")), (15, u32(70000)), table=0)
        hop = struct.pack("=HBBi", 16, 0, 0, index) + struct.pack("=HH", 8, 5)
        multipath = hop + ip("10.1.0.7") + hop + ip("10.1.0.8")
        new_route(socket.AF_INET, 24, (1, ip("10.8.2.0")), (9, multipath))
        new_route(socket.AF_INET6, 0, (5, ip("fd00::1")), (4, u32(index)), (7, ip("fd00::2")))
        metrics = rtnetlink.pack_attributes([(2, u32(1300))])
        new_route(socket.AF_INET6, 48, (1, ip("fd07::")), (4, u32(index)), (8 | NESTED, metrics))
        before = shown_addresses(), shown_routes()
        assert len(before[0]) == 4
        assert len(before[1]) == 6
        kept_addresses, kept_routes = netlink.addresses(index), netlink.routes(index)
        assert len(kept_routes) == 6

        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        namespaces.unshare(namespaces.CLONE_NEWNET)
        there = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        for number in range(3):  # takes the index, so that the moved one gets another
            create_link(f"d{number}", "bridge")
        namespaces.setns(here, namespaces.CLONE_NEWNET)
        netlink.move_link(index, there, name="eth0")
        assert all(link.name != "v0" for link in netlink.links())

        namespaces.setns(there, namespaces.CLONE_NEWNET)
        moved = link_named("eth0")
        assert moved.index != index
        assert (moved.mtu, moved.up) == (1450, False)
        assert netlink.addresses(moved.index) == []
        netlink.set_link(moved.index, up=True)
        for address in kept_addresses:
            netlink.add_address(address, moved.index)
        for route in kept_routes:
            netlink.add_route(route, {index: moved.index})
        assert (shown_addresses(), shown_routes()) == before
        assert all(set(route.indexes) == {moved.index} for route in netlink.routes())

    run_isolated(inside)


def kernel_tells_who_made_addresses() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor.split("-")[0])) >= (5, 18)


def kernel_made_link_local() -> int:
    with open("/proc/net/if_inet6") as file:
        return sum(line.startswith("fe80") for line in file)


def test_a_link_local_address_that_a_user_gave_is_kept_and_the_kernels_is_not() -> None:
    def inside() -> None:
        index = create_link("v0", "veth", "v1")
        netlink.set_link(index, up=True)
        netlink.set_link(link_named("v1").index, up=True)
        deadline = time.monotonic() + 10  # the kernel makes them once it has noticed the carrier
        while kernel_made_link_local() < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if not kernel_tells_who_made_addresses():
            pytest.skip("IFA_PROTO came with Linux 5.18")
        assert netlink.addresses() == []
        new_address(index, "fe80::1", 64)
        assert shown_addresses() == {("fe80::1", 64)}

    run_isolated(inside)


def test_loopback_cannot_be_moved() -> None:
    def inside() -> None:
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        namespaces.unshare(namespaces.CLONE_NEWNET)
        with pytest.raises(OSError, match="RTM_NEWLINK: Invalid argument"):
            netlink.move_link(1, own)

    run_isolated(inside)


def test_a_socket_stays_in_the_namespace_it_was_made_in() -> None:
    def inside() -> None:
        with rtnetlink.Netlink() as first:
            namespaces.unshare(namespaces.CLONE_NEWNET)
            create_link("d0", "bridge")
            assert [link.name for link in netlink.links(first)] == ["lo"]
        assert first.fileno() == -1

    run_isolated(inside)


def test_what_is_left_of_a_lifetime_goes_on() -> None:
    def inside() -> None:
        index = create_link("v0", "veth", "v1")
        netlink.set_link(index, up=True)
        netlink.set_link(link_named("v1").index, up=True)
        lifetime = struct.pack("=IIII", 500, 1000, 0, 0)  # struct ifa_cacheinfo: preferred, valid, two times
        new_address(index, "10.1.0.2", 24, (6, lifetime))
        new_address(index, "fd00::2", 64, (6, lifetime))
        new_route(socket.AF_INET6, 48, (1, ip("fd07::")), (4, u32(index)), (23, u32(1000)))
        addresses, (route,) = netlink.addresses(index), netlink.routes(index)
        assert len(addresses) == 2
        namespaces.unshare(namespaces.CLONE_NEWNET)
        index = create_link("v0", "veth", "v1")
        netlink.set_link(index, up=True)
        for address in addresses:
            netlink.add_address(address, index)
        netlink.add_route(route, {route.indexes[0]: index})
        for address in netlink.addresses(index):
            preferred, valid = struct.unpack_from("=II", rtnetlink.attribute_values(address.attributes)[6])
            assert 400 < preferred <= 500
            assert 900 < valid <= 1000
        (again,) = netlink.routes(index)
        (expires,) = struct.unpack_from("=i", rtnetlink.attribute_values(again.attributes)[12], 8)
        assert 900 * 100 < expires <= 1000 * 100  # in hundredths of a second

    run_isolated(inside)
