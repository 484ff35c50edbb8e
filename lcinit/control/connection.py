"""One client of the control socket: its calls in their order, its replies, and what may wait for it to read.

Nothing here waits and nothing grows: a client that does not read is not read from either, so that at most one reply
lies in wait; one that follows is given what is new when it has taken what was before; one that waits for a reply that
comes later has nothing in wait; console output beyond a bound is dropped and counted.
"""

from __future__ import annotations

import select

from lcinit import log
from lcinit.control.answers import Follow, Later, Upgrade
from lcinit.control.varlink import BrokenMessage, Call, Framer, MethodError, Reply, parse_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable
    from socket import socket
    from typing import Any

    from lcinit.control.answers import Answer, Closeable

CALLS_A_TURN = 16  # then others have their turn
CONSOLE_WAITING = 256 * 1024  # bytes of console output for a client that does not read
STUCK = 5.0  # seconds after which a client that does not read may have to make room
TYPING_PAUSE, TYPING_PATIENCE = (
    0.05,
    5.0,
)  # seconds between attempts to type what the guest did not take, and for how long


class Connection:
    """A client. `answer` does a call, `internal` is the error of one that failed unexpectedly, `broken` is told why a
    connection is closed that said what is no call, `ended` that it is closed."""

    def __init__(
        self,
        peer: socket,
        loop: AbstractEventLoop,
        answer: Callable[[Call], Answer],
        *,
        internal: Callable[[Call, Exception], MethodError],
        broken: Callable[[str], object],
        ended: Callable[[Connection], object],
    ) -> None:
        self.active = loop.time()
        self.dropped = 0
        self._peer = peer
        self._fd = peer.fileno()
        self._loop = loop
        self._answer = answer
        self._internal = internal
        self._broken = broken
        self._ended = ended
        self._framer = Framer()
        self._output = bytearray()
        self._open = True
        self._reading = self._writing = False
        self._at_end = False
        self._reply: Reply | None = None  # the call that goes on: it follows
        self._follow: Follow | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._woken = False
        self._pending: Reply | None = None  # the call whose reply comes later
        self._cancel: Callable[[], object] | None = None
        self._upgrade: Upgrade | None = None
        self._session: Closeable | None = None
        self._typed = b""
        self._typing: TimerHandle | None = None
        self._typing_until = 0.0
        self._read(True)

    @property
    def lasting(self) -> bool:
        """Whether it follows something, has the console, or waits for a reply."""
        return self._follow is not None or self._upgrade is not None or self._pending is not None

    def may_go(self, now: float) -> bool:
        """Whether it may be closed to make room: it waits for nothing, does not read what it asked for, or is gone."""
        return not self.lasting or (bool(self._output) and now - self.active > STUCK) or self.gone()

    def gone(self) -> bool:
        """Whether it went while it waits for a reply: once its calls have ended nothing is read that would tell."""
        return self._at_end and self._hung_up()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def close(self) -> None:
        """Close it, any number of times; what waits in it is gone."""
        if not self._open:
            return
        self._open = False
        self._read(False)
        self._write(False)
        if self._typing is not None:
            self._typing.cancel()
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._pending = None
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        self._peer.close()
        self._ended(self)
        if self._session is not None:
            self._session.close()

    def _read(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._fd, self._readable)
            else:
                self._loop.remove_reader(self._fd)

    def _write(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._fd, self._flush)
            else:
                self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        try:
            # plain recv(2): it has no room for descriptors, and the kernel closes those that were sent (unix(7))
            data = self._peer.recv(self._framer.room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self.active = self._loop.time()
        if not data:
            self._end_of_input()
        elif self._upgrade is not None:
            self._type(data)
        else:
            self._framer.feed(data)
            if self.lasting and not self._framer.room:
                self._give_up(BrokenMessage("it calls without end while it follows or waits"))
            else:
                self._serve()

    def _end_of_input(self) -> None:
        # who has only shut its own side down still gets the reply to what it called
        if self.lasting and (self._pending is None or self._hung_up()):
            self.close()
            return
        self._at_end = True
        self._read(False)
        self._serve()

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, 0)  # POLLHUP is told in any case: both sides are shut
        return bool(poll.poll(0))

    def _give_up(self, error: BrokenMessage) -> None:
        self._broken(str(error))
        self.close()

    def _serve(self) -> None:
        """Answer what is there, one call after the other, as long as the client takes the replies."""
        for _ in range(CALLS_A_TURN):
            if not self._open or self._output or self.lasting:
                break
            try:
                message = self._framer.next()
                call = None if message is None else parse_call(message)
            except BrokenMessage as error:
                self._give_up(error)
                return
            if call is None:
                if self._at_end:
                    self.close()
                break
            self._do(call)
        else:
            self._loop.call_soon(self._serve)
        self._listen()

    def _do(self, call: Call) -> None:
        reply = Reply(call, self._send)
        self._tell(reply, lambda: self._begin(self._answer(call), reply))

    def _begin(self, answer: Answer, reply: Reply) -> None:
        if isinstance(answer, Follow):
            self._begin_following(answer, reply)
        elif isinstance(answer, Later):
            self._begin_waiting(answer, reply)
        elif isinstance(answer, Upgrade):
            self._become_raw(answer, reply)
        else:
            reply.end(**answer)

    def _tell(self, reply: Reply, do: Callable[[], object]) -> None:
        """Do it, and reply with whatever goes wrong."""
        try:
            do()
        except MethodError as error:
            reply.fail(error)
        except Exception as error:
            if reply.done:
                log.error(f"control: {reply.call.method}: {type(error).__name__}: {error}")
                self.close()
            else:
                reply.fail(self._internal(reply.call, error))

    def _begin_waiting(self, later: Later, reply: Reply) -> None:
        if reply.call.oneway:
            return

        def done(parameters: dict[str, Any]) -> None:
            self._end_waiting(reply, lambda: reply.end(**parameters))

        def fail(error: Exception) -> None:
            def failing() -> None:
                raise error

            self._end_waiting(reply, failing)

        self._pending = reply
        try:
            cancel = later.begin(done, fail)
        except BaseException:
            self._pending = None
            raise
        if self._pending is reply:
            self._cancel = cancel

    def _end_waiting(self, reply: Reply, do: Callable[[], object]) -> None:
        if self._pending is not reply:
            return  # the client is gone
        self._pending = self._cancel = None
        self._tell(reply, do)
        self._loop.call_soon(self._serve)  # what it called meanwhile; not now: somebody else's work calls this

    def _begin_following(self, follow: Follow, reply: Reply) -> None:
        if reply.call.oneway:
            return
        self._follow, self._reply = follow, reply
        self._unsubscribe = follow.subscribe(self._wake)
        self._go_on()

    def _wake(self) -> None:
        """There is more to follow. Many at once are one, and whoever says it (a thread, even) goes on at once."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        self._woken = False
        while self._open and not self._output and self._follow is not None and self._reply is not None:
            try:
                parameters = self._follow.take()
                if parameters is None:
                    return
                self._reply.more(**parameters)
            except Exception as error:
                self._follow = None
                self._reply.fail(self._internal(self._reply.call, error))
                self.close()

    def _become_raw(self, upgrade: Upgrade, reply: Reply) -> None:
        reply.end()
        if reply.call.oneway:
            return
        self._upgrade = upgrade
        self._session = upgrade.open(self._send_raw)
        if rest := self._framer.rest():
            self._type(rest)

    def _send_raw(self, data: bytes) -> None:
        """Console output. A client that does not read loses the newest, and is told how much when it reads again."""
        room = CONSOLE_WAITING - len(self._output)
        if self.dropped or room < len(data):
            self.dropped += len(data)
            return
        self._send(data)

    def _type(self, data: bytes) -> None:
        """Give the guest what the client sent. What it does not take is tried again; nothing more is read meanwhile."""
        if self._upgrade is None:
            return
        taken = self._upgrade.receive(data)
        now = self._loop.time()
        if taken > 0 or not self._typed:
            self._typing_until = now + TYPING_PATIENCE
        self._typed = data[taken:]
        if self._typed and now >= self._typing_until:
            self._typed = b""  # as a terminal does whose program does not read
        if self._typed:
            self._typing = self._loop.call_later(TYPING_PAUSE, self._type_again)
        else:
            self._typing = None
        self._listen()

    def _type_again(self) -> None:
        self._typing = None
        self._type(self._typed)

    def _listen(self) -> None:
        """Read where there is room: not while replies wait, or as many calls as are held, or typing to be taken."""
        if self._open:
            waiting = bool(self._output) and self._upgrade is None
            self._read(self._framer.room > 0 and not (waiting or self._typed or self._at_end))

    def _send(self, data: bytes) -> None:
        if self._open:
            self._output += data
            self._flush()

    def _flush(self) -> None:
        try:
            if self._output:
                sent = self._peer.send(self._output)
                del self._output[:sent]
                self.active = self._loop.time()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        written = self._writing
        if not self._output and self.dropped:
            self._output += b"\r\n[lcinit: %d bytes of console output dropped]\r\n" % self.dropped
            self.dropped = 0
        self._write(bool(self._output))
        self._listen()
        if written and not self._output:
            # it has read everything: what waited for that goes on
            self._loop.call_soon(self._go_on if self._follow is not None else self._serve)
