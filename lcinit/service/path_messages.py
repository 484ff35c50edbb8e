"""What PID 1 and the process that works at paths for it say to each other: values of marshal, and descriptors."""

from __future__ import annotations

import marshal
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any
else:
    import _socket as socket  # without the half that imports enum and selectors

MOST = 1 << 17  # bytes of an order or an answer
MOST_DESCRIPTORS = 16
_FLAGS = socket.MSG_CMSG_CLOEXEC


def send(channel: socket.socket, value: Any, descriptors: list[int]) -> None:
    """One message. Raises OSError."""
    handed = struct.pack(f"={len(descriptors)}i", *descriptors)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)] if descriptors else []
    channel.sendmsg([marshal.dumps(value)], rights, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[Any, list[int]]:
    """The next message; None where the other end is gone. Raises OSError."""
    data, control, _, _ = channel.recvmsg(MOST, socket.CMSG_SPACE(4 * MOST_DESCRIPTORS), _FLAGS)
    numbers = [number for _, _, rights in control for number in struct.unpack(f"={len(rights) // 4}i", rights)]
    return (marshal.loads(data) if data else None), numbers
