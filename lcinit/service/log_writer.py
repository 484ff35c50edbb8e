"""The logger: one process for the output of all services, because a disk may take its time and PID 1 may not.

It has no event loop of asyncio's and imports nothing once it runs: it is forked from a small process and stays small.
PID 1 tells it by packets of a SEQPACKET socket, in the form of marshal (see service.logger), what to do:

    ("open", number, name, settings) and the pipe's reading end     ("settings", number, settings)
    ("close", number)    take what is there, then close             ("rotate", number)    ("reopen",)
    ("console",) and a descriptor                                   ("flush", number)

and is told ("closed", number), ("flushed", number), and ("again", number) for a pipe that has not arrived. When PID 1
closes the socket the logger takes what is in the pipes, and ends. Nothing wakes it but output, unless lines were
dropped, or a file has a `max_age`.
"""

from __future__ import annotations

import gc
import marshal
import os
import resource
import select
import struct
import time

from lcinit import log
from lcinit.config.service_values import ServiceLog
from lcinit.linux import process
from lcinit.service.log_console import Console
from lcinit.service.log_output import Output
from lcinit.service.log_source import Glance, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any
else:
    import _socket as socket  # without the half that imports enum and selectors

LARGEST = 64 * 1024  # bytes of a packet
LAST_WORDS = 0.5  # seconds that the end waits for the console
_STDOUT = 1


def run(descriptors: list[int]) -> int:
    """Be the logger, until PID 1 closes its end of the socket that is the first descriptor; the exit code. The other is
    a procfs that nobody can mount over.

    Signals are blocked, as in PID 1.
    """
    channel, procfs = descriptors
    process.set_name("lcinit-logger")
    process.set_dumpable(False)  # the console is not the guest's to have
    process.close_all_but((channel, procfs))
    _raise_descriptors()
    gc.freeze()
    gc.disable()
    Writer(channel, procfs).serve()
    return 0


def _raise_descriptors() -> None:
    """As many as may be: a service takes up to four."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.debug(f"the logger has no more descriptors: {error}")


class Writer:
    """All pipes, and the loop that waits for them."""

    def __init__(self, channel: int, procfs: int) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, channel)
        self._epoll = select.epoll()
        self._epoll.register(channel, select.EPOLLIN)
        self._console = Console(_STDOUT, self._epoll, procfs)
        self._glance = Glance()
        self._outputs: dict[int, Output] = {}  # by the number that PID 1 gave
        self._by_fd: dict[int, Output] = {}  # those that epoll watches
        self._paused: dict[int, Output] = {}  # those that wait for the console
        self._closing: dict[int, Output] = {}  # those that do and are to be closed then, by their numbers
        self._next_due = float("inf")
        self._ended = False

    def serve(self) -> None:
        """Until the end."""
        channel = self._channel.fileno()
        while not self._ended:
            for fd, events in self._epoll.poll(self._patience()):
                if fd == channel:
                    self._listen()
                elif fd != self._console.fileno() and (output := self._by_fd.get(fd)) is not None:
                    self._attend(fd, output, events)
            if time.monotonic() >= self._next_due:
                self._tick()
            self._console.flush()
            if self._paused or self._closing:
                self._resume()
        until = time.monotonic() + LAST_WORDS
        for output in (*self._outputs.values(), *self._closing.values()):
            self._console.drain(until - time.monotonic())
            self._finish(output)
        self._console.drain(until - time.monotonic())

    def _patience(self) -> float | None:
        waits = self._paused or self._closing
        due = min(self._next_due, self._console.due) if waits else self._next_due
        return None if due == float("inf") else max(0.0, due - time.monotonic()) + 0.001

    def _tick(self) -> None:
        now = time.monotonic()
        for output in self._outputs.values():
            if output.due is not None and now >= output.due:
                output.tick(now)
        self._next_due = min((o.due for o in self._outputs.values() if o.due is not None), default=float("inf"))

    def _attend(self, fd: int, output: Output, events: int) -> None:
        if not events & select.EPOLLIN:  # all its writers are gone: nothing comes before it is closed
            self._forget(fd)
            return
        if self._has_to_wait(output):
            self._forget(fd)
            self._paused[fd] = output
            return
        try:
            output.take()
        except BlockingIOError:
            pass  # somebody else has read it
        except Exception as error:  # of one service: the others go on
            log.unexpected(f"in the log of {output.name}, which is lost from here on", error)
            self._forget(fd)
        if output.due is not None and output.due < self._next_due:
            self._next_due = output.due

    def _finish(self, output: Output) -> None:
        try:
            output.finish()
        except Exception as error:
            log.unexpected(f"at the end of the log of {output.name}", error)

    def _watch(self, output: Output) -> None:
        fd = output.source.fd
        self._by_fd[fd] = output
        self._epoll.register(fd, select.EPOLLIN)

    def _has_to_wait(self, output: Output) -> bool:
        return output.may_wait and self._console.holds_up(time.monotonic())

    def _resume(self) -> None:
        """Go on with those that wait for the console, as far as it has room."""
        for waiting in (self._closing, self._paused):
            for number, output in list(waiting.items()):
                if self._has_to_wait(output):
                    return
                del waiting[number]
                if waiting is self._paused:
                    self._watch(output)
                else:
                    self._close(number, output)
                    self._console.flush()

    def _forget(self, fd: int) -> None:
        self._paused.pop(fd, None)
        if self._by_fd.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _close_files(self) -> bool:
        """There are no descriptors left: have some again."""
        closed = [output.close_file() for output in self._outputs.values()]
        return any(closed)

    # what PID 1 says

    def _listen(self) -> None:
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            data, control, _, _ = self._channel.recvmsg(LARGEST, socket.CMSG_SPACE(4), flags)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended = True
            return
        descriptors = [fd for _, _, rights in control for (fd,) in struct.iter_unpack("=i", rights[: len(rights) & -4])]
        kind, *facts = marshal.loads(data)
        getattr(self, f"_told_{kind}")(*facts, *descriptors)

    def _answer(self, kind: str, number: int) -> None:
        try:
            self._channel.send(marshal.dumps((kind, number)), socket.MSG_NOSIGNAL)
        except OSError:
            self._ended = True  # there is no PID 1

    def _told_open(self, number: int, name: str, settings: dict[str, Any], fd: int = -1) -> None:
        if fd < 0:  # no descriptor was free for it
            self._close_files()
            self._answer("again", number)
            return
        source = Source(fd, self._glance)
        output = Output(name, ServiceLog(**settings), source, self._console, self._close_files)
        self._outputs[number] = output
        self._watch(output)

    def _told_settings(self, number: int, settings: dict[str, Any]) -> None:
        if number in self._outputs:
            self._outputs[number].set(ServiceLog(**settings))

    def _told_close(self, number: int) -> None:
        output = self._outputs.pop(number, None)
        if output is None:
            self._answer("closed", number)
            return
        self._forget(output.source.fd)
        if self._has_to_wait(output):
            self._closing[number] = output
        else:
            self._close(number, output)

    def _close(self, number: int, output: Output) -> None:
        self._finish(output)
        self._answer("closed", number)

    def _told_rotate(self, number: int) -> None:
        if number in self._outputs:
            self._outputs[number].rotate()

    def _told_reopen(self) -> None:
        self._close_files()

    def _told_console(self, fd: int = -1) -> None:
        self._console.use(fd)
        if fd >= 0:
            os.close(fd)

    def _told_flush(self, number: int) -> None:
        for output in self._outputs.values():
            if not self._has_to_wait(output):
                output.take_waiting()
        self._console.flush()
        self._answer("flushed", number)
