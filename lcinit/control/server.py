"""The listening side of the control socket: who is let in, how many, and who goes when there is no room.

Nothing is polled and no timer runs: what makes room is the next client that comes.
"""

from __future__ import annotations

import errno
import os
import resource

from lcinit import log
from lcinit.control.connection import Connection
from lcinit.control.peer import own_namespace, refusal
from lcinit.control.ratelimit import RateLimit
from lcinit.control.varlink import MethodError, message

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from lcinit.control.answers import Answer
    from lcinit.control.varlink import Call
else:
    import _socket as socket  # without the half that imports enum and selectors

CLIENTS = 64  # or a quarter of the descriptors that the process may have: PID 1 needs the others
FOLLOWERS = 0.75  # of them at most follow something or wait: the others can always make room
ACCEPTS_A_TURN = 16
PAUSE = 1.0  # seconds without accepting after the kernel had no memory or descriptor for a client
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """Serves `answer` to root of this user namespace on a listening socket, which it owns from then on.

    `refused` makes the error that a peer gets who is not served, `internal` that of a call that failed unexpectedly.
    `procfs` is a handle of the procfs in which it is looked who that is, None for /proc; it stays the caller's.
    Raises OSError where there is no procfs.
    """

    def __init__(
        self,
        listener: socket.socket,
        loop: AbstractEventLoop,
        answer: Callable[[Call], Answer],
        *,
        refused: MethodError,
        internal: Callable[[Call, Exception], MethodError],
        procfs: int | None = None,
    ) -> None:
        self.listener = listener
        self._loop = loop
        self._answer = answer
        self._refused = message({"error": refused.name, "parameters": refused.parameters})
        self._internal = internal
        self._own = own_namespace(procfs)
        self._reserve = _spare()
        self._room = min(CLIENTS, max(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._clients: list[Connection] = []
        self._limits: dict[str, RateLimit] = {}
        self._accepting = False
        try:
            self._accept(True)
        except OSError:
            self._free_reserve()
            raise

    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    def room_to_follow(self) -> bool:
        """Whether one more client may follow something, or wait for a reply."""
        return sum(client.lasting and not client.gone() for client in self._clients) < self._room * FOLLOWERS

    def close(self) -> None:
        """Close the listening socket and every client."""
        self._accept(False)
        for client in list(self._clients):
            client.close()
        self.listener.close()
        self._free_reserve()

    def _accept(self, wanted: bool) -> None:
        if wanted != self._accepting:
            self._accepting = wanted
            if wanted:
                self._loop.add_reader(self.listener.fileno(), self._acceptable)
            else:
                self._loop.remove_reader(self.listener.fileno())

    def _accept_again(self) -> None:
        if self.listener.fileno() >= 0:
            self._accept(True)

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                peer = _accepted(self.listener)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            self._let_in(peer)

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno not in _EXHAUSTED:
            raise error  # the loop logs it
        self._say("accept", f"a client cannot be let in: {error.strerror}")
        if not self._close_oldest() and not self._turn_away():
            self._accept(False)
            self._loop.call_later(PAUSE, self._accept_again)

    def _turn_away(self) -> bool:
        """Close one waiting client with the descriptor in reserve: else the loop would be woken for it without end."""
        self._free_reserve()
        try:
            _accepted(self.listener).close()
        except OSError:
            return False
        finally:
            self._reserve = _spare()
        return True

    def _let_in(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if reason := self._judge(peer):
            self._say("refused", f"a client is refused: {reason}")
            try:
                peer.send(self._refused)
            except OSError:
                pass  # it is gone, which is what follows anyhow
            peer.close()
            return
        if len(self._clients) >= self._room and self._close_oldest():
            self._say("room", f"{self._room} clients are connected: the one that was silent longest is closed")
        self._clients.append(
            Connection(
                peer,
                self._loop,
                self._answer,
                internal=self._internal,
                broken=self._broken,
                ended=self._clients.remove,
            )
        )

    def _judge(self, peer: socket.socket) -> str:
        """Why the peer is not served. Its namespace is looked at through a descriptor: this client may have had the
        last, so the reserve makes room for it."""
        self._free_reserve()
        try:
            return refusal(peer, self._own)
        except OSError as error:
            return f"it cannot be told who it is: {error.strerror}"
        finally:
            self._reserve = _spare()

    def _free_reserve(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def _close_oldest(self) -> bool:
        """Make room: of those that wait for nothing the one that was silent longest goes. False if there is none."""
        now = self._loop.time()
        idle = [client for client in self._clients if client.may_go(now)]
        if not idle:
            return False
        min(idle, key=lambda client: client.active).close()
        return True

    def _broken(self, reason: str) -> None:
        self._say("broken", f"a client is closed, which did not speak varlink: {reason}")

    def _say(self, kind: str, text: str) -> None:
        """Log it, unless the same kind was logged just before; what was left out is counted in the next line."""
        limit = self._limits.setdefault(kind, RateLimit(burst=2))
        if limit.take(self._loop.time()):
            left_out = limit.left_out()
            log.warning(f"control: {text}" + (f" ({left_out} more like this)" if left_out else ""))


def _accepted(listener: socket.socket) -> socket.socket:
    """The next client. Raises OSError."""
    descriptor, _ = listener._accept()  # type: ignore[attr-defined] # what that of socket.py calls
    return socket.socket(fileno=descriptor)


def _spare() -> int:
    """A descriptor to be closed when one is needed; -1 when there is none."""
    try:
        return os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _EXHAUSTED:
            raise
        return -1
