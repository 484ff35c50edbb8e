"""What the builder and the leader of a nested guest tell PID 1: short messages, some with a descriptor.

Each is one packet of a SEQPACKET socket pair: a kind and facts, in the form of marshal. Both ends are lcinit; the
writing ends are close-on-exec, so that the last one closes when the guest's init is executed.
"""

from __future__ import annotations

import marshal
import os
import select
import struct

from lcinit.errors import LcinitError, SystemFailure
from lcinit.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any
else:
    import _socket as socket  # without the half that imports enum and selectors

_LARGEST = 64 * 1024
_MOST_DESCRIPTORS = 4
_OUT_OF_THE_WAY = 60


class Message:
    """One thing that was told. `descriptors` belong to whoever takes the message."""

    __slots__ = ("descriptors", "facts", "kind")

    def __init__(self, kind: str, facts: dict[str, Any], descriptors: list[int]) -> None:
        self.kind = kind
        self.facts = facts
        self.descriptors = descriptors

    def error(self) -> LcinitError:
        """The failure that a message of kind "error" tells."""
        return LcinitError(self.facts["message"], hint=self.facts["hint"], exit_code=self.facts["exit_code"])


class Report:
    """The telling side, shared by the builder and the leader."""

    def __init__(self, channel: socket.socket) -> None:
        # a number that neither a command's streams nor the keeper's descriptors use
        number = process.move_up(channel.fileno(), _OUT_OF_THE_WAY)
        channel.close()
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, number)

    def fileno(self) -> int:
        """The descriptor."""
        return self._channel.fileno()

    def say(self, kind: str, descriptors: tuple[int, ...] = (), **facts: Any) -> None:
        """Tell it. Raises SystemFailure where PID 1 cannot be reached."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(descriptors)}i", *descriptors))]
        try:
            self._channel.sendmsg([marshal.dumps((kind, facts))], rights if descriptors else [])
        except OSError as error:
            raise SystemFailure.from_os_error("tell PID 1 of the guest's start", error) from error

    def check(self) -> None:
        """Raise SystemFailure where PID 1 has ended."""
        poll = select.poll()
        poll.register(self._channel, 0)
        if poll.poll(0):
            raise SystemFailure("PID 1 ended while the guest was started")

    def fail(self, error: LcinitError) -> None:
        """Tell that it ends here, and why."""
        self.say("error", message=error.message, hint=error.hint, exit_code=int(error.exit_code))


class Reports:
    """The hearing side. Non-blocking."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait for; -1 once closed."""
        return self._channel.fileno()

    def read(self) -> tuple[list[Message], bool]:
        """What was told by now, and whether nobody is left to tell more."""
        messages: list[Message] = []
        while True:
            try:
                data, control, _, _ = self._channel.recvmsg(
                    _LARGEST, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return messages, False
            except ConnectionResetError:
                return messages, True
            if not data:
                return messages, True
            kind, facts = marshal.loads(data)
            descriptors = [fd for _, _, rights in control for (fd,) in struct.iter_unpack("=i", rights)]
            messages.append(Message(kind, facts, descriptors))

    def close(self) -> None:
        """Hear nothing more. Descriptors on their way are closed by the kernel."""
        self._channel.close()


def channel() -> tuple[socket.socket, socket.socket]:
    """A new pair: the hearing side's and the telling side's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, theirs):
        os.set_inheritable(each.fileno(), False)
    return ours, theirs
