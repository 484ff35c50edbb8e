"""Network interfaces, their addresses and routes, and moving them to another network namespace.

rtnetlink(7); constants from linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h. A move takes all addresses and
routes from an interface: they are read before it and added again after it, as the kernel itself described them.

What the kernel makes by itself is not listed: loopback and IPv6 link-local addresses (IFA_PROTO says who made them,
since Linux 5.18; before it a link-local address is listed, and adding it twice is EEXIST), IPv6 temporary addresses,
routes with protocol `kernel` or `redirect`, table `local`, and cached ones. Setting the link up or adding an address
brings them back. Addresses and routes of a router advertisement are listed, with what is left of their lifetimes.
"""

from __future__ import annotations

import errno
import struct

from .calls import failure
from .rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Netlink,
    attribute_type,
    attribute_values,
    pack_attributes,
    unpack_attributes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .rtnetlink import Attributes

AF_UNSPEC = 0
AF_INET = 2
AF_INET6 = 10

IFF_UP = 0x1
IFF_LOOPBACK = 0x8

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_LINKINFO = 18
_IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1

_IFA_LOCAL = 2
_IFA_ADDRESS = 1
_IFA_FLAGS = 8
_IFA_TARGET_NETNSID = 10
_IFA_F_NODAD = 0x02
_IFA_F_DADFAILED = 0x08
_IFA_PROTO = 11
_IFA_F_TEMPORARY = 0x01
_IFAPROT_KERNEL_LO = 1
_IFAPROT_KERNEL_LL = 3
_RT_SCOPE_HOST = 254
_LOOPBACK = bytes((127, 0, 0, 1))

_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_MULTIPATH = 9
_RTA_CACHEINFO = 12
_RTA_TABLE = 15
_RTA_VIA = 18
_RTA_EXPIRES = 23
_RTA_NH_ID = 30
_RT_TABLE_LOCAL = 255
_RTPROT_REDIRECT = 1
_RTPROT_KERNEL = 2
_RTM_F_CLONED = 0x200
_RTNH_F_SETTABLE = 0x02 | 0x04  # PERVASIVE, ONLINK; the others are states that a request may not hold
_USER_HZ = 100

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefixlen, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RTNEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, index
_U32 = struct.Struct("=I")


class Link:
    """One interface. `kind` is what made it (`veth`, `dummy`; empty for hardware), `address` its link address.

    `link` is the index of its lower or peer interface, `master` that of its bridge or bond; 0 for none. `type` is
    ARPHRD_*.
    """

    __slots__ = ("address", "attributes", "flags", "index", "kind", "link", "master", "mtu", "name", "type")

    def __init__(self, payload: bytes) -> None:
        _, self.type, self.index, self.flags, _ = _IFINFO.unpack_from(payload)
        self.attributes = unpack_attributes(payload[_IFINFO.size :])
        values = attribute_values(self.attributes)
        self.name = _text(values.get(_IFLA_IFNAME, b""))
        self.mtu = _u32(values.get(_IFLA_MTU))
        self.address = values.get(_IFLA_ADDRESS, b"")
        self.link = _u32(values.get(_IFLA_LINK))
        self.master = _u32(values.get(_IFLA_MASTER))
        self.kind = _text(attribute_values(values.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b""))

    @property
    def up(self) -> bool:
        """Whether it was set up, which says nothing of a carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def loopback(self) -> bool:
        """Whether it is the loopback interface, which cannot be moved."""
        return bool(self.flags & IFF_LOOPBACK)

    def __repr__(self) -> str:
        return f"Link({self.index}, {self.name!r}, kind={self.kind!r}, mtu={self.mtu}, up={self.up})"


class Address:
    """One address of an interface, with the attributes (IFA_*) as the kernel gave them."""

    __slots__ = ("attributes", "family", "flags", "index", "prefixlen", "scope")

    def __init__(self, payload: bytes) -> None:
        self.family, self.prefixlen, self.flags, self.scope, self.index = _IFADDR.unpack_from(payload)
        self.attributes: Attributes = unpack_attributes(payload[_IFADDR.size :])
        self.flags = _u32(attribute_values(self.attributes).get(_IFA_FLAGS), self.flags)

    @property
    def address(self) -> bytes:
        """The address itself, 4 or 16 bytes."""
        values = attribute_values(self.attributes)
        return values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS, b"")

    def __repr__(self) -> str:
        return f"Address({self.address.hex()}/{self.prefixlen}, index={self.index})"


class Route:
    """One route, with the attributes (RTA_*) as the kernel gave them. `table` is the full 32-bit number."""

    __slots__ = (
        "attributes",
        "dst_len",
        "family",
        "flags",
        "protocol",
        "scope",
        "src_len",
        "table",
        "tos",
        "type",
    )

    def __init__(self, payload: bytes) -> None:
        self.family, self.dst_len, self.src_len, self.tos, table, self.protocol, self.scope, self.type, self.flags = (
            _RTMSG.unpack_from(payload)
        )
        self.attributes: Attributes = unpack_attributes(payload[_RTMSG.size :])
        self.table = _u32(attribute_values(self.attributes).get(_RTA_TABLE), table)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The interfaces that it leads to; several for a multipath route, none for a blackhole."""
        values = attribute_values(self.attributes)
        if _RTA_MULTIPATH in values:
            return tuple(hop[2] for hop in _hops(values[_RTA_MULTIPATH]))
        return (_u32(values[_RTA_OIF]),) if _RTA_OIF in values else ()

    @property
    def has_gateway(self) -> bool:
        """Whether another route must lead to its next hop first."""
        return any(attribute_type(kind) in (_RTA_GATEWAY, _RTA_VIA, _RTA_MULTIPATH) for kind, _ in self.attributes)

    def __repr__(self) -> str:
        return f"Route(family={self.family}, dst_len={self.dst_len}, table={self.table}, indexes={self.indexes})"


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _u32(value: bytes | None, default: int = 0) -> int:
    return default if value is None else int(_U32.unpack(value)[0])


def _hops(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Flags, weight, index and attributes of each next hop of a multipath route."""
    hops = []
    while len(data) >= _RTNEXTHOP.size:
        length, flags, weight, index = _RTNEXTHOP.unpack_from(data)
        if not _RTNEXTHOP.size <= length <= len(data):
            raise failure("netlink", errno.EBADMSG, None, f"next hop of {length} bytes in {len(data)}")
        hops.append((flags, weight, index, data[_RTNEXTHOP.size : length]))
        data = data[length + -length % 4 :]
    return hops


def links(netlink: Netlink | None = None) -> list[Link]:
    """All interfaces of the namespace."""
    return [Link(answer) for answer in _dump(netlink, RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))]


def addresses(index: int | None = None, netlink: Netlink | None = None) -> list[Address]:
    """Addresses of one interface or of all, in the order in which they are to be added again."""
    found = [Address(answer) for answer in _dump(netlink, RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0))]
    return [each for each in found if index in (None, each.index) and not _kernel_made_address(each)]


def _kernel_made_address(address: Address) -> bool:
    if address.family == AF_INET6 and address.flags & _IFA_F_TEMPORARY:
        return True
    if address.family == AF_INET and address.scope == _RT_SCOPE_HOST and address.address == _LOOPBACK:
        return True  # on lo, without IFA_PROTO
    proto = attribute_values(address.attributes).get(_IFA_PROTO, b"\0")
    return proto[0] in (_IFAPROT_KERNEL_LO, _IFAPROT_KERNEL_LL)


def routes(index: int | None = None, netlink: Netlink | None = None) -> list[Route]:
    """Routes that lead to one interface, or all, in the order in which they are to be added again."""
    found = [Route(answer) for answer in _dump(netlink, RTM_GETROUTE, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))]
    wanted = [each for each in found if not _kernel_made_route(each) and (index is None or index in each.indexes)]
    return sorted(wanted, key=lambda route: route.has_gateway)


def _kernel_made_route(route: Route) -> bool:
    return (
        route.protocol in (_RTPROT_KERNEL, _RTPROT_REDIRECT)
        or route.table == _RT_TABLE_LOCAL
        or bool(route.flags & _RTM_F_CLONED)
        or route.family not in (AF_INET, AF_INET6)
    )


def _dump(netlink: Netlink | None, kind: int, payload: bytes) -> list[bytes]:
    if netlink is not None:
        return netlink.dump(kind, payload)
    with Netlink() as own:
        return own.dump(kind, payload)


def _request(netlink: Netlink | None, kind: int, payload: bytes, flags: int = 0) -> None:
    if netlink is not None:
        netlink.request(kind, payload, flags)
        return
    with Netlink() as own:
        own.request(kind, payload, flags)


def move_link(index: int, netns_fd: int, name: str | None = None, netlink: Netlink | None = None) -> None:
    """Move an interface to another network namespace, renaming it on the way. It arrives down and without addresses.

    EEXIST: the name is taken there. EINVAL: it cannot be moved (loopback, a bridge's own port of some kinds). Its
    index changes if it is taken there.
    """
    attributes = [(_IFLA_NET_NS_FD, _U32.pack(netns_fd))]
    if name is not None:
        attributes.append((_IFLA_IFNAME, name.encode() + b"\0"))
    _request(netlink, RTM_NEWLINK, _IFINFO.pack(0, 0, index, 0, 0) + pack_attributes(attributes))


def set_link(
    index: int,
    up: bool | None = None,
    mtu: int | None = None,
    name: str | None = None,
    netlink: Netlink | None = None,
) -> None:
    """Change an interface; None leaves as it is. `mtu` is in bytes."""
    attributes = []
    if mtu is not None:
        attributes.append((_IFLA_MTU, _U32.pack(mtu)))
    if name is not None:
        attributes.append((_IFLA_IFNAME, name.encode() + b"\0"))
    flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    _request(netlink, RTM_NEWLINK, _IFINFO.pack(0, 0, index, flags, change) + pack_attributes(attributes))


def address_request(address: Address, index: int) -> bytes:
    """The RTM_NEWADDR payload that makes this address again on the interface `index`.

    IPv6 duplicate detection is left out: the address was in use on this very link, and until it ended no route could
    name the address as its source.
    """
    flags = address.flags & ~_IFA_F_DADFAILED
    if address.family == AF_INET6:
        flags |= _IFA_F_NODAD
    kept = [
        (kind, value)
        for kind, value in address.attributes
        if attribute_type(kind) not in (_IFA_FLAGS, _IFA_TARGET_NETNSID)
    ]
    header = _IFADDR.pack(address.family, address.prefixlen, flags & 0xFF, address.scope, index)
    return header + pack_attributes([*kept, (_IFA_FLAGS, _U32.pack(flags))])


def add_address(address: Address, index: int | None = None, netlink: Netlink | None = None) -> None:
    """Add an address that addresses() gave, to the interface `index` if that is another now. EEXIST: already there."""
    payload = address_request(address, address.index if index is None else index)
    _request(netlink, RTM_NEWADDR, payload, NLM_F_CREATE | NLM_F_EXCL)


def route_request(route: Route, indexes: Mapping[int, int]) -> bytes:
    """The RTM_NEWROUTE payload that makes this route again; `indexes` maps old interface indexes to new ones.

    A route through a nexthop object becomes one with its next hops spelt out: the objects do not move. A lifetime
    goes on with what is left of it.
    """
    attributes: list[tuple[int, bytes]] = []
    for raw_kind, value in route.attributes:
        kind = attribute_type(raw_kind)
        if kind == _RTA_OIF:
            index = _u32(value)
            attributes.append((kind, _U32.pack(indexes.get(index, index))))
        elif kind == _RTA_MULTIPATH:
            attributes.append((kind, _moved_hops(value, indexes)))
        elif kind == _RTA_CACHEINFO:
            expires = struct.unpack_from("=i", value, 8)[0]  # struct rta_cacheinfo: clntref, lastuse, expires
            if expires > 0 and route.family == AF_INET6:
                attributes.append((_RTA_EXPIRES, _U32.pack(max(1, expires // _USER_HZ))))
        elif kind != _RTA_NH_ID:
            attributes.append((raw_kind, value))
    table = route.table if route.table < 256 else 0
    flags = route.flags & _RTNH_F_SETTABLE
    header = (route.family, route.dst_len, route.src_len, route.tos, table, route.protocol, route.scope, route.type)
    return _RTMSG.pack(*header, flags) + pack_attributes(attributes)


def _moved_hops(data: bytes, indexes: Mapping[int, int]) -> bytes:
    parts = []
    for flags, weight, index, attributes in _hops(data):
        length = _RTNEXTHOP.size + len(attributes)
        parts.append(_RTNEXTHOP.pack(length, flags & _RTNH_F_SETTABLE, weight, indexes.get(index, index)))
        parts.append(attributes + bytes(-length % 4))
    return b"".join(parts)


def add_route(route: Route, indexes: Mapping[int, int] | None = None, netlink: Netlink | None = None) -> None:
    """Add a route that routes() gave. EEXIST: already there; ENETUNREACH: its gateway cannot be reached yet."""
    _request(netlink, RTM_NEWROUTE, route_request(route, indexes or {}), NLM_F_CREATE | NLM_F_EXCL)
