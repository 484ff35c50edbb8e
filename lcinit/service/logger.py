"""PID 1's handle of the logger process: a pipe for each service, and what the logger is told of it.

PID 1 keeps the reading ends, too. A service never gets SIGPIPE because the logger is gone, and what is in the pipes is
taken by the next one. PID 1 never waits: the socket is non-blocking, and what does not go out now is told later.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import stat
import struct
import time
from collections import deque

from lcinit import log
from lcinit.errors import LcinitError
from lcinit.supervisor.backoff import BackOff

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from lcinit.config.service_values import ServiceLog
else:
    import _socket as socket  # without the half that imports enum and selectors

LAST_WORDS = 1.0  # seconds that the end waits for the logger
MOST_CLOSING = 1000  # pipes that PID 1 keeps for a logger that does not get on
_AGAIN = 0.1  # seconds between attempts where the socket takes nothing for another reason than being full
_NULL = os.makedev(1, 3)


class _Pipe:
    """The reading end of one; `told`: the logger knows it."""

    __slots__ = ("closing", "name", "reader", "settings", "told")

    def __init__(self, name: str, settings: ServiceLog, reader: int) -> None:
        self.name = name
        self.settings = settings
        self.reader = reader
        self.closing = False
        self.told = False


class Logger:
    """The logger process, started with the first service that has something to log. Needs the loop.

    `start` is given the descriptor of a socket, starts a process that calls `log_writer.run` with it, and returns its
    PID, or 0 where that is not known yet; the descriptor stays the caller's. PID 1 calls `ended` when it has reaped the
    process, or when there has never been one. One that is `held` starts the process when it is released: what is
    written until then stays in the pipes.
    """

    def __init__(self, start: Callable[[int], int], *, held: bool = False) -> None:
        self.pid: int | None = None
        self.starts = 0
        self.lost = 0  # pipes whose last bytes nobody took
        self._start = start
        self._held = held
        self._channel: socket.socket | None = None
        self._pipes: dict[int, _Pipe] = {}  # by the number that the logger knows them by
        self._numbers: dict[str, int] = {}  # of those that are open
        self._unsent: deque[tuple[str, int]] = deque()
        self._last_number = 0
        self._back_off = BackOff()
        self._started_at = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._waits_to_write = False
        self._console = -1
        self._null = _open_null()  # before there are services, which may mount something over it
        self._flushes: dict[int, asyncio.Future[None]] = {}
        self._gone: asyncio.Future[None] | None = None  # set once it is to end

    # services

    def open(self, name: str, settings: ServiceLog) -> int:
        """The writing end of a new pipe, close-on-exec, for the service's stdout and stderr. Raises OSError.

        The caller closes it. With `to: none` it is /dev/null, which needs no logger.
        """
        if settings.to == "none" and self._null >= 0:
            return os.dup(self._null)
        self.close(name)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._last_number += 1
        self._pipes[self._last_number] = _Pipe(name, settings, reader)
        self._numbers[name] = self._last_number
        self._tell("open", self._last_number)
        return writer

    def settings(self, name: str, settings: ServiceLog) -> None:
        """Another policy for a service that is open. One that was opened with `to: none` has it from its next start."""
        number = self._numbers.get(name)
        if number is not None:
            self._pipes[number].settings = settings
            self._tell("settings", number)

    def close(self, name: str) -> None:
        """The service is down: what it has written is taken, and then the pipe is closed."""
        number = self._numbers.pop(name, None)
        if number is None:
            return
        self._pipes[number].closing = True
        self._tell("close", number)
        closing = [each for each, pipe in self._pipes.items() if pipe.closing]
        if len(closing) > MOST_CLOSING:
            self._forget(closing[0])
            self.lost += 1

    def rotate(self, name: str) -> None:
        """Begin a new file now."""
        number = self._numbers.get(name)
        if number is not None:
            self._tell("rotate", number)

    def reopen(self) -> None:
        """Open all files anew, with what comes next."""
        self._tell("reopen", 0)

    def console(self, fd: int) -> None:
        """Where lines for the console go: a descriptor that stays the caller's, and open. It is descriptor 1 before."""
        self._console = fd
        self._tell("console", 0)

    async def flush(self, seconds: float = LAST_WORDS) -> bool:
        """Wait until all that services have written by now is taken, but for what has to wait for the console; false
        when that takes longer."""
        self.release()
        if self._channel is None:
            return False
        self._last_number += 1
        number = self._last_number
        self._flushes[number] = asyncio.get_running_loop().create_future()
        self._tell("flush", number)
        try:
            async with asyncio.timeout(seconds):
                await self._flushes[number]
        except TimeoutError:
            return False
        finally:
            del self._flushes[number]
        return True

    @property
    def statistics(self) -> dict[str, int]:
        """How many services are open, starts of the process, messages that wait, pipes lost."""
        return {
            "open": len(self._numbers),
            "starts": self.starts,
            "unsent": len(self._unsent),
            "lost": self.lost,
        }

    # the process

    def release(self) -> None:
        """It is not held any longer. Any number of times."""
        held, self._held = self._held, False
        if held and self._pipes:
            self._connect()

    def ended(self) -> None:
        """It was reaped. Another one is started, at once or after a while, and gets all pipes."""
        self._disconnect()
        if self._gone is not None:
            self._set_gone()
            return
        self.pid = None
        wait = self._back_off.next(time.monotonic() - self._started_at)
        if self._back_off.failures == 1:
            wait = 0.0
        log.info(f"another logger is started {f'in {wait:.0f} s' if wait else 'now'}")
        self._run_later(wait, self._connect)

    async def stop(self, seconds: float = LAST_WORDS) -> None:
        """Have it take what is in the pipes, and end; wait for that, so long at most. Nothing can be opened then."""
        self.release()
        self._gone = asyncio.get_running_loop().create_future()
        if self._channel is None:
            self._set_gone()
        self._send()
        try:
            async with asyncio.timeout(seconds):
                await self._gone
        except TimeoutError:
            log.warning(f"the logger has not taken all that services wrote within {seconds:g} s")
        self._disconnect()
        for number in list(self._pipes):
            self._forget(number)
        if self._null >= 0:
            os.close(self._null)
            self._null = -1

    def _set_gone(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _run_later(self, seconds: float, what: Callable[[], None]) -> None:
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(seconds, what)

    def _connect(self) -> None:
        """Start it, and tell it all there is to know."""
        self._later = None
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own.setblocking(False)
        self._started_at = time.monotonic()
        try:
            self.pid = self._start(other.fileno())
        except (OSError, LcinitError) as error:
            own.close()
            log.error(f"the logger cannot be started, services wait for it: {error}")
            self._run_later(self._back_off.next(0.0), self._connect)
            return
        finally:
            other.close()
        self.starts += 1
        self._channel = own
        asyncio.get_running_loop().add_reader(own.fileno(), self._hear)
        flushes = [("flush", number) for number in self._flushes]
        self._unsent.clear()
        if self._console >= 0:
            self._unsent.append(("console", 0))
        for number, pipe in self._pipes.items():
            pipe.told = False
            self._unsent.append(("open", number))
            if pipe.closing:
                self._unsent.append(("close", number))
        self._unsent.extend(flushes)
        self._send()

    def _disconnect(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._channel.fileno())
            loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._channel = None
        self._waits_to_write = False

    # what it is told, and tells

    def _tell(self, kind: str, number: int) -> None:
        if (kind, number) in (("console", 0), ("reopen", 0)) and (kind, number) in self._unsent:
            return
        if kind == "settings" and not self._pipes[number].told:
            return  # they are in what is still to be told
        if self._channel is None:
            if kind == "open" and self._later is None and self.pid is None and not self._held:
                self._connect()
            return  # all there is to know is told when it has been started
        self._unsent.append((kind, number))
        self._send()

    def _send(self) -> None:
        """Tell what can be told now."""
        channel = self._channel
        if channel is None:
            return
        while self._unsent:
            message, fd = self._message(*self._unsent[0])
            try:
                if message:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", fd))] if fd >= 0 else []
                    channel.sendmsg([message], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._wait_to_write(channel, True)
                return
            except (BrokenPipeError, ConnectionResetError):
                self._wait_to_write(channel, False)
                return  # it is gone: `ended` will be called
            except OSError as error:  # too many descriptors on their way (unix(7), ETOOMANYREFS), or no memory
                log.debug(f"the logger is told later: {error.strerror}")
                self._wait_to_write(channel, False)
                self._run_later(_AGAIN, self._send)
                return
            self._unsent.popleft()
        self._wait_to_write(channel, False)
        if self._gone is not None:
            try:
                channel.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has ended

    def _message(self, kind: str, number: int) -> tuple[bytes, int]:
        """The packet, and the descriptor that goes with it; empty for a pipe that there is no more."""
        if kind == "console":
            return marshal.dumps((kind,)), self._console
        if kind == "reopen":
            return marshal.dumps((kind,)), -1
        if kind == "flush":
            return marshal.dumps((kind, number)), -1
        pipe = self._pipes.get(number)
        if pipe is None:
            return b"", -1
        if kind == "open":
            pipe.told = True
            return marshal.dumps((kind, number, pipe.name, pipe.settings.values())), pipe.reader
        if kind == "settings":
            return marshal.dumps((kind, number, pipe.settings.values())), -1
        return marshal.dumps((kind, number)), -1

    def _wait_to_write(self, channel: socket.socket, wanted: bool) -> None:
        if wanted == self._waits_to_write:
            return
        self._waits_to_write = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_writer(channel.fileno(), self._send)
        else:
            loop.remove_writer(channel.fileno())

    def _hear(self) -> None:
        channel = self._channel
        while channel is not None:
            try:
                data = channel.recv(256)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(channel.fileno())
                self._wait_to_write(channel, False)
                self._set_gone()
                return  # `ended` will be called
            self._take_answer(*marshal.loads(data))

    def _take_answer(self, kind: str, number: int) -> None:
        if kind == "closed":
            self._forget(number)
        elif kind == "again" and number in self._pipes:
            self._unsent.append(("open", number))
            self._run_later(_AGAIN, self._send)  # not at once: descriptors may stay scarce
        elif kind == "flushed" and number in self._flushes and not self._flushes[number].done():
            self._flushes[number].set_result(None)

    def _forget(self, number: int) -> None:
        pipe = self._pipes.pop(number, None)
        if pipe is not None:
            os.close(pipe.reader)


def _open_null() -> int:
    """/dev/null; -1 where there is another thing of that name."""
    try:
        fd = os.open("/dev/null", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    found = os.fstat(fd)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL:
        return fd
    os.close(fd)
    return -1
