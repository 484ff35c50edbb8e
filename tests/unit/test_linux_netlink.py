"""The encoding of rtnetlink messages, and what is changed in an entry that is added again."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.linux import netlink, rtnetlink

ATTRIBUTES = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=300)), max_size=10)


@given(ATTRIBUTES)
def test_attributes_come_back_as_they_were(attributes: list[tuple[int, bytes]]) -> None:
    packed = rtnetlink.pack_attributes(attributes)
    assert len(packed) % 4 == 0
    assert rtnetlink.unpack_attributes(packed) == tuple(attributes)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=60)), max_size=5))
def test_messages_come_back_as_they_were(messages: list[tuple[int, int, bytes]]) -> None:
    data = b""
    for kind, flags, payload in messages:
        packed = rtnetlink.pack_message(kind, flags, 9, payload)
        data += packed + bytes(-len(packed) % 4)
    assert rtnetlink.unpack_messages(data) == [(kind, flags, 9, payload) for kind, flags, payload in messages]


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for unpack in (rtnetlink.unpack_attributes, rtnetlink.unpack_messages):
        try:
            unpack(data)
        except OSError as error:
            assert error.errno == errno.EBADMSG


def test_layout_of_an_attribute() -> None:
    assert rtnetlink.pack_attributes([(3, b"lo\0")]) == struct.pack("=HH3sx", 7, 3, b"lo\0")


def test_an_attribute_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OSError, match="65535 bytes"):
        rtnetlink.pack_attributes([(1, bytes(65535))])


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_reason_is_found(capped: bool) -> None:
    request = rtnetlink.pack_message(20, 5, 1, b"abcdefgh")
    echoed = request[:16] if capped else request
    reason = rtnetlink.pack_attributes([(2, bytes(4)), (1, b"why not\0")])
    payload = struct.pack("=i", -22) + echoed + reason
    flags = 0x200 | (0x100 if capped else 0)
    assert rtnetlink.extended_error(flags, payload) == "why not"
    assert rtnetlink.extended_error(0, payload) == ""


def route(attributes: list[tuple[int, bytes]], family: int = netlink.AF_INET, flags: int = 0) -> netlink.Route:
    header = struct.pack("=BBBBBBBBI", family, 24, 0, 0, 254, 3, 0, 1, flags)
    return netlink.Route(header + rtnetlink.pack_attributes(attributes))


def test_a_route_follows_its_interfaces_to_new_indexes() -> None:
    hops = (
        struct.pack("=HBBi", 16, 0x11, 4, 2)
        + struct.pack("=HH4s", 8, 5, b"\x0a\0\0\1")
        + struct.pack("=HBBi", 8, 4, 0, 3)
    )
    moved = netlink.Route(netlink.route_request(route([(9, hops)]), {2: 7}))
    assert moved.indexes == (7, 3)
    assert dict(moved.attributes)[9][2:4] == bytes([0, 4])  # the state LINKDOWN is left out, the weight stays
    assert netlink.Route(netlink.route_request(route([(4, struct.pack("=I", 2))]), {2: 7})).indexes == (7,)


def test_what_a_request_may_not_hold_is_left_out() -> None:
    expiring = route([(12, struct.pack("=IIi", 0, 0, 4200) + bytes(20)), (30, bytes(4))], netlink.AF_INET6, 0x14)
    request = netlink.Route(netlink.route_request(expiring, {}))
    assert dict(request.attributes) == {23: struct.pack("=I", 42)}
    assert request.flags == 4


def test_nested_flags_stay() -> None:
    assert netlink.Route(netlink.route_request(route([(8 | 0x8000, b"abcd")]), {})).attributes == (
        (8 | 0x8000, b"abcd"),
    )


def test_a_large_table_is_kept_in_its_attribute() -> None:
    big = route([(15, struct.pack("=I", 70000))])
    assert big.table == 70000
    assert netlink.Route(netlink.route_request(big, {})).table == 70000


@pytest.mark.parametrize("hops", [struct.pack("=HBBi", 7, 0, 0, 2), struct.pack("=HBBi", 40, 0, 0, 2)])
def test_a_broken_hop_is_refused(hops: bytes) -> None:
    with pytest.raises(OSError, match="next hop"):
        netlink.route_request(route([(9, hops)]), {})


def test_an_ipv6_address_is_added_without_duplicate_detection() -> None:
    header = struct.pack("=BBBBi", netlink.AF_INET6, 64, 0x80, 0, 2)
    address = netlink.Address(header + rtnetlink.pack_attributes([(1, bytes(16)), (8, struct.pack("=I", 0x208))]))
    request = netlink.Address(netlink.address_request(address, 9))
    assert request.index == 9
    assert request.flags == 0x202
