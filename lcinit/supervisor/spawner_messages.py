"""What PID 1 says to the spawner: a SEQPACKET socket, and values by marshal, since both ends are the same program.

A message is one packet or several: descriptors that are more than one packet takes come in packets before it, and a
body that is too large comes in a memory file, as the last of its descriptors.
"""

from __future__ import annotations

import errno
import marshal
import os
import struct

from lcinit.supervisor.program import Account, Identity, Program
from lcinit.supervisor.spawn import is_late

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any
else:
    import _socket as socket  # without the half that imports enum and selectors

NO_SLOT = -1
ROOM = 8 << 20  # bytes for a message: more than the kernel takes of arguments and variables
_PART, _INLINE, _IN_FILE = b"+", b"=", b"@"
_HEAD = struct.Struct("=cxxxiII")  # which of these, the slot, how much of the body is not marshal's, all descriptors
_MOST_INLINE = 16 * 1024
_MOST_DESCRIPTORS = 200  # in one packet; the kernel takes 253 (SCM_MAX_FD)
_SPACE = socket.CMSG_SPACE(4 * (_MOST_DESCRIPTORS + 1))
_FLAGS = socket.MSG_CMSG_CLOEXEC


class Packet:
    """One packet to be sent; `owned` is a descriptor that is closed afterwards."""

    def __init__(self, data: tuple[bytes, ...], descriptors: list[int], owned: int = -1) -> None:
        self.data = data
        self.descriptors = descriptors
        self.owned = owned

    def send(self, channel: socket.socket, flags: int = 0) -> None:
        """Send it. Raises OSError, BlockingIOError where there is no room now."""
        count = len(self.descriptors)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={count}i", *self.descriptors))]
        channel.sendmsg(self.data, rights if count else [], flags | socket.MSG_NOSIGNAL)
        self.close()

    def close(self) -> None:
        """It is not needed any more."""
        if self.owned >= 0:
            os.close(self.owned)
            self.owned = -1


def packets(slot: int, values: tuple[Any, ...], descriptors: list[int], laid_out: bytes = b"") -> list[Packet]:
    """A message as packets; `laid_out` is what is to stand at `body_address` of the other end.

    Raises OSError where there is no memory file to be had for a large one.
    """
    body = laid_out, marshal.dumps(values)
    count = len(descriptors)
    found = []
    while len(descriptors) > _MOST_DESCRIPTORS:
        found.append(Packet((_HEAD.pack(_PART, slot, 0, 0),), descriptors[:_MOST_DESCRIPTORS]))
        descriptors = descriptors[_MOST_DESCRIPTORS:]
    size = len(body[0]) + len(body[1])
    if size <= _MOST_INLINE:
        found.append(Packet((_HEAD.pack(_INLINE, slot, len(laid_out), count), *body), descriptors))
        return found
    if size > ROOM - _HEAD.size:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    file = os.memfd_create("message", os.MFD_CLOEXEC)
    found.append(Packet((_HEAD.pack(_IN_FILE, slot, len(laid_out), count + 1),), [*descriptors, file], file))
    try:
        for part in body:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(file, rest) :]
    except BaseException:
        os.close(file)
        raise
    return found


def body_address(room: int) -> int:
    """Where the body of a message will stand that is received into memory at the address `room`."""
    return room + _HEAD.size


class Message:
    """One that has come: `values` None for one whose descriptors had no room here. Its descriptors are the caller's."""

    def __init__(self, slot: int, values: tuple[Any, ...] | None, descriptors: list[int]) -> None:
        self.slot = slot
        self.values = values
        self.descriptors = descriptors

    def close(self) -> None:
        """Close its descriptors."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = []


def receive(channel: socket.socket, room: memoryview) -> Message | None:
    """Wait for a message, whose body is in `room` until the next one; None once the other end is closed."""
    descriptors: list[int] = []
    cut = False
    while True:
        size, control, flags, _ = channel.recvmsg_into((room[: _HEAD.size + _MOST_INLINE],), _SPACE, _FLAGS)
        if not size:
            return None
        for _, _, rights in control:
            descriptors += struct.unpack(f"={len(rights) // 4}i", rights)
        cut = cut or bool(flags & socket.MSG_CTRUNC)
        kind, slot, laid_out, count = _HEAD.unpack_from(room)
        if kind == _PART:
            continue
        while len(descriptors) > count:
            os.close(descriptors.pop(0))  # of a message whose rest could not be sent
        if cut:
            return Message(slot, None, descriptors)
        if kind == _IN_FILE:
            size = _HEAD.size + _read(descriptors.pop(), room[_HEAD.size :])
        return Message(slot, marshal.loads(room[_HEAD.size + laid_out : size]), descriptors)


def _read(file: int, room: memoryview) -> int:
    """All of a memory file, which is closed: its size."""
    try:
        size = os.fstat(file).st_size
        done = 0
        while done < size:
            done += os.preadv(file, [room[done:size]], done)
        return size
    finally:
        os.close(file)


def flat(program: Program) -> tuple[tuple[Any, ...], list[int]]:
    """A program as marshal takes it, with places in the list of descriptors instead of their numbers.

    `argv` and `environment` are left out unless the child will need them.
    """
    numbers: list[int] = []

    def place(fd: int | None) -> int | None:
        if fd is None:
            return None
        if fd not in numbers:
            numbers.append(fd)
        return numbers.index(fd)

    identity, account = program.identity, program.account
    values = {
        **program.values(),
        "function": None,
        "stdin": place(program.stdin),
        "stdout": place(program.stdout),
        "stderr": place(program.stderr),
        "cgroup": place(program.cgroup),
        "descriptors": tuple([(place(fd), number) for fd, number in program.descriptors]),
        "identity": None if identity is None else (identity.uid, identity.gid, identity.groups),
        "account": None if account is None else (account.user, account.group, account.groups),
    }
    if not is_late(program):
        values["argv"] = values["environment"] = ()
    return tuple(values.values()), numbers


def program_of(values: tuple[Any, ...], numbers: list[int]) -> Program:
    """The program, with the numbers of its descriptors here."""
    found = dict(zip(Program._fields, values, strict=True))
    for name in ("stdin", "stdout", "stderr", "cgroup"):
        if found[name] is not None:
            found[name] = numbers[found[name]]
    found["descriptors"] = tuple([(numbers[place], number) for place, number in found["descriptors"]])
    if found["identity"] is not None:
        uid, gid, groups = found["identity"]
        found["identity"] = Identity(uid=uid, gid=gid, groups=groups)
    if found["account"] is not None:
        user, group, groups = found["account"]
        found["account"] = Account(user=user, group=group, groups=groups)
    return Program(**found)
