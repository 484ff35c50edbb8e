"""The helper: a fork of the leader made before the unshare, which stays outside and does what needs outer privilege.

Leader and helper are one program: a request is the number of a step of the plan they share, with descriptors where the
step needs them, and the answer is empty or an error. The helper ends with the leader, or turns into the keeper
(`control.keeper`), a small program that relays the console and serves initctl for as long as the guest lives.
"""

from __future__ import annotations

import os
import struct
import sys

from lcinit import log
from lcinit.boot import guard
from lcinit.errors import EX_SOFTWARE, LcinitError, SystemFailure
from lcinit.linux import namespaces, process
from lcinit.linux.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Never

    Perform = Callable[[int, list[int]], None]
else:
    import _socket as socket  # without the half that imports enum and selectors

_LARGEST = 64 * 1024
_MOST_DESCRIPTORS = 8
_OUT_OF_THE_WAY = 50


class Helper:
    """The leader's side."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel

    def ask(self, number: int, descriptors: tuple[int, ...] = ()) -> None:
        """Have the helper perform step `number`; raises what it failed with."""
        self.send(number, descriptors)
        self.answer()

    def send(self, number: int, descriptors: tuple[int, ...] = ()) -> None:
        """The request alone; `answer` must follow."""
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(descriptors)}i", *descriptors))]
            self.channel.sendmsg([str(number).encode()], rights if descriptors else [])
        except OSError as error:
            raise SystemFailure.from_os_error("reach the helper", error) from error

    def answer(self) -> None:
        """Wait for the answer to what was sent."""
        reply = self.channel.recv(_LARGEST)
        if not reply:
            raise SystemFailure("the helper ended before it had answered", hint="see the lines above")
        self._raise(reply)

    def _raise(self, reply: bytes) -> None:
        code, _, rest = reply.decode("utf-8", "replace").partition("\0")
        if code != "0":
            message, _, hint = rest.partition("\0")
            raise LcinitError(message, hint=hint, exit_code=int(code))

    def wait_for_exec(self) -> None:
        """Return once the helper is another program, which closes its end; raises what kept it from that."""
        reply = self.channel.recv(_LARGEST)
        if reply:
            self._raise(reply)

    def close(self) -> None:
        """No more requests: the helper ends by itself."""
        self.channel.close()


def start(perform: Perform, cgroup: int = -1) -> Helper:
    """Fork the helper, into a cgroup where one is given; in it `perform(number, descriptors)` answers every request.

    `cgroup` is closed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    leader = os.getpid()
    pid = _fork_into(cgroup) if cgroup >= 0 else os.fork()
    if pid == 0:
        try:
            ours.close()
            channel = _out_of_the_way(theirs)
            process.set_pdeathsig(SIGKILL)
            if os.getppid() != leader:
                os._exit(0)
            serve(channel, perform)
        finally:
            os._exit(EX_SOFTWARE)
    theirs.close()
    return Helper(pid, ours)


def _fork_into(cgroup: int) -> int:
    """fork(2) into a cgroup, which costs nothing, where a move of a process does; without where that is refused."""
    try:
        return namespaces.clone3(0, cgroup_fd=cgroup)[0]
    except OSError as error:
        log.debug(f"the helper shares the guest's cgroup: {error.strerror}")
        return os.fork()
    finally:
        os.close(cgroup)


def serve(channel: socket.socket, perform: Perform) -> Never:
    """Answer the leader's requests until it closes its end; never returns."""
    try:
        _serve(channel, perform)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the leader has given up, and said why
    except OSError as error:
        log.error(f"the helper cannot go on: {error.strerror or error}")
    except BaseException:
        guard.show_exception(*sys.exc_info())
    finally:
        os._exit(EX_SOFTWARE)


def _out_of_the_way(channel: socket.socket) -> socket.socket:
    """The channel under a number that the keeper's descriptors do not need: it must last until the keeper's exec."""
    number = process.move_up(channel.fileno(), _OUT_OF_THE_WAY)
    channel.close()
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, number)


def _serve(channel: socket.socket, perform: Perform) -> Never:
    while True:
        request, control, flags, _ = channel.recvmsg(_LARGEST, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS))
        descriptors = [fd for _, _, data in control for (fd,) in struct.iter_unpack("=i", data)]
        if not request:
            os._exit(0)
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise SystemFailure("a request to the helper was cut short")
            perform(int(request), descriptors)
            reply = "0"
        except LcinitError as error:
            reply = f"{error.exit_code}\0{error.message}\0{error.hint}"
        except OSError as error:
            failure = SystemFailure.from_os_error("do this outside the guest's namespaces", error)
            reply = f"{failure.exit_code}\0{failure.message}"
        finally:
            for fd in descriptors:
                os.close(fd)
        channel.send(reply.encode("utf-8", "replace"))
