"""A rtnetlink socket and the encoding of its messages: netlink(7), rtnetlink(7), linux/netlink.h.

A socket belongs to the network namespace in which it was made, whatever namespace its process enters later.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .calls import check, failure, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    Attributes = tuple[tuple[int, bytes], ...]

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_ROOT = 0x100
NLM_F_MATCH = 0x200
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26

_NAMES = {
    RTM_NEWLINK: "RTM_NEWLINK",
    RTM_DELLINK: "RTM_DELLINK",
    RTM_GETLINK: "RTM_GETLINK",
    RTM_NEWADDR: "RTM_NEWADDR",
    RTM_GETADDR: "RTM_GETADDR",
    RTM_NEWROUTE: "RTM_NEWROUTE",
    RTM_GETROUTE: "RTM_GETROUTE",
}

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF

_AF_NETLINK = 16
_SOCK_RAW = 3
_NETLINK_ROUTE = 0
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_MSG_TRUNC = 0x20

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ADDRESS = struct.Struct("=HHII")  # struct sockaddr_nl: family, padding, port, groups
_ERROR = struct.Struct("=i")
_BUFFER_SIZE = 128 * 1024  # the kernel fills at most 32 KiB unless one message alone needs more
_DUMP_ATTEMPTS = 16

_socket = libc.socket
_socket.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
_setsockopt = libc.setsockopt
_setsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
_sendto = libc.sendto
_sendto.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_sendto.restype = ctypes.c_ssize_t
_recvfrom = libc.recvfrom
_recvfrom.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint32),
)
_recvfrom.restype = ctypes.c_ssize_t


def _malformed(what: str) -> OSError:
    """The lengths in a netlink message contradict each other."""
    return failure("netlink", errno.EBADMSG, None, what)


def pack_attributes(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """Attributes as a message carries them: each a length, a type, the value, and padding to four bytes."""
    parts = []
    for kind, value in attributes:
        length = _ATTRIBUTE.size + len(value)
        if length > 0xFFFF:
            raise failure("netlink", errno.EMSGSIZE, None, f"attribute {kind} of {len(value)} bytes")
        parts.append(_ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4))
    return b"".join(parts)


def unpack_attributes(data: bytes) -> Attributes:
    """The (type, value) pairs of a message's end, in order, as the kernel wrote them: types keep their flag bits."""
    attributes: list[tuple[int, bytes]] = []
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise _malformed(f"attribute of {length} bytes at {offset} of {len(data)}")
        attributes.append((kind, data[offset + _ATTRIBUTE.size : offset + length]))
        offset += length + -length % 4
    return tuple(attributes)


def attribute_type(kind: int) -> int:
    """A type without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
    return kind & _NLA_TYPE_MASK


def attribute_values(data: bytes | Attributes) -> dict[int, bytes]:
    """Attributes, or their encoding, by type."""
    attributes = unpack_attributes(data) if isinstance(data, bytes) else data
    return {attribute_type(kind): value for kind, value in attributes}


def pack_message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message, as it is sent to the kernel."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def unpack_messages(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """The messages of one datagram: type, flags, sequence number, payload."""
    messages: list[tuple[int, int, int, bytes]] = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            raise _malformed(f"message of {length} bytes at {offset} of {len(data)}")
        messages.append((kind, flags, sequence, data[offset + _HEADER.size : offset + length]))
        offset += length + -length % 4
    return messages


def extended_error(flags: int, payload: bytes) -> str:
    """What the kernel says in an NLMSG_ERROR beside the number; empty if nothing."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    echoed = _HEADER.unpack_from(payload, _ERROR.size)[0]
    start = _ERROR.size + (_HEADER.size if flags & _NLM_F_CAPPED else echoed + -echoed % 4)
    return attribute_values(payload[start:]).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")


class Netlink:
    """A rtnetlink socket of the current network namespace. A context manager.

    An OSError's strerror begins with the message's type (`RTM_NEWADDR: `) and ends with the kernel's reason.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._buffer = ctypes.create_string_buffer(_BUFFER_SIZE)
        self._fd = check("socket AF_NETLINK", _socket(_AF_NETLINK, _SOCK_RAW | os.O_CLOEXEC, _NETLINK_ROUTE))
        try:
            for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK):
                value = ctypes.c_int(1)
                check("setsockopt", _setsockopt(self._fd, _SOL_NETLINK, option, ctypes.byref(value), 4))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Close the socket."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def request(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Send one request and wait for the kernel's answer; an error is raised."""
        sequence = self._send(kind, flags | NLM_F_REQUEST | NLM_F_ACK, payload)
        while True:
            for answer, answer_flags, answer_sequence, body in self._receive():
                if answer_sequence == sequence and answer == _NLMSG_ERROR:
                    self._raise_error(kind, answer_flags, body)
                    return

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """Send one dump request: the payloads of all answers. A list that changed meanwhile is asked for again."""
        for _ in range(_DUMP_ATTEMPTS):
            answers = self._dump_once(kind, payload)
            if answers is not None:
                return answers
        raise failure(_NAMES.get(kind, str(kind)), errno.EINTR, None, "the list kept changing while it was read")

    def _dump_once(self, kind: int, payload: bytes) -> list[bytes] | None:
        sequence = self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)
        answers: list[bytes] = []
        interrupted = False
        while True:
            for answer, flags, answer_sequence, body in self._receive():
                if answer_sequence != sequence:
                    continue  # left over from a request that was given up
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if answer == _NLMSG_ERROR:
                    self._raise_error(kind, flags, body)
                elif answer == _NLMSG_DONE:
                    if len(body) >= _ERROR.size:
                        self._raise_error(kind, 0, body)
                    return None if interrupted else answers
                else:
                    answers.append(body)

    def _raise_error(self, kind: int, flags: int, body: bytes) -> None:
        number = -_ERROR.unpack_from(body)[0]
        if number:
            raise failure(_NAMES.get(kind, str(kind)), number, None, extended_error(flags, body))

    def _send(self, kind: int, flags: int, payload: bytes) -> int:
        self._sequence += 1
        message = pack_message(kind, flags, self._sequence, payload)
        address = _ADDRESS.pack(_AF_NETLINK, 0, 0, 0)
        check("sendto", _sendto(self._fd, message, len(message), 0, address, len(address)))
        return self._sequence

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """One datagram of the kernel. What others send to this port is passed over."""
        address = ctypes.create_string_buffer(_ADDRESS.size)
        while True:
            size = ctypes.c_uint32(_ADDRESS.size)
            length = _recvfrom(self._fd, self._buffer, _BUFFER_SIZE, _MSG_TRUNC, address, ctypes.byref(size))
            if length == -1 and ctypes.get_errno() == errno.EINTR:
                continue
            check("recvfrom", length)
            if length > _BUFFER_SIZE:
                raise failure("recvfrom", errno.EMSGSIZE, None, f"netlink datagram of {length} bytes")
            if _ADDRESS.unpack(address.raw)[2] == 0:
                return unpack_messages(ctypes.string_at(self._buffer, length))
