"""The control socket of a supervising lcinit: where it stands, who made it, and that it is there when it can be."""

from __future__ import annotations

import asyncio
import errno
import os

from lcinit import log
from lcinit.control.socket_place import ServedByAnother as ServedByAnother
from lcinit.control.socket_place import SocketPlace
from lcinit.errors import LcinitError, SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop, Task, TimerHandle
    from collections.abc import Awaitable, Callable
    from typing import Protocol

    class Serving(Protocol):
        """Serves clients on a listening socket."""

        def close(self) -> None:
            """End it: the socket, and all clients."""

    Bind = Callable[[SocketPlace], Awaitable[int]]
    Serve = Callable[[int], Serving]
    """Serves on the listening socket behind a descriptor, which it owns from then on. Raises OSError."""
else:
    import _socket as socket  # without the half that imports enum and selectors

PATH = "/run/lcinit/control"
_BACKLOG = 128
_FIRST_RETRY, _LAST_RETRY = 5.0, 600.0  # seconds until a socket that cannot be made is tried again: doubled each time
_PASSING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    *(errno.EROFS, errno.ENOENT),  # what is mounted there may come later
)


class ControlServer:
    """The socket at `path`: 0600, in a directory of its own that is 0700. `serve` serves it.

    `adopt` is a listening socket of an lcinit that was here before (`reexec`), to be served on; without it the socket
    is made anew, in place of one that nobody serves any more. With `later` it is served when the first client comes.

    `bind_later` makes the socket where that has to be tried again: for who shares its root with others that may have
    mounted something there by then, which never answers.
    """

    def __init__(
        self,
        serve: Serve,
        *,
        path: str = PATH,
        adopt: int = -1,
        later: bool = False,
        bind_later: Bind | None = None,
    ) -> None:
        self.path = path
        self._serve = serve
        self._adopt = adopt
        self._later = later
        self._bind_later = bind_later
        self._binding: Task[None] | None = None
        self._listening = -1
        self._loop: AbstractEventLoop | None = None  # where the first client is waited for
        self._served: Serving | None = None
        self._place = SocketPlace(path)
        self._pause = _FIRST_RETRY
        self._retry: TimerHandle | None = None

    async def start(self) -> None:
        """Serve from now on. Where descriptors, memory or room on the disk are wanting it says so and tries later.

        Raises SystemFailure for what will not change by itself: somebody else serves there (ServedByAnother), or what
        stands there is no socket of ours.
        """
        self._try()

    def close(self) -> None:
        """End it: every client is closed, and the socket removed if it is still this one."""
        place = self.stop()
        try:
            place.remove()
        except OSError as error:
            log.warning(f"{SystemFailure.from_os_error(f'remove the control socket {self.path}', error)}")

    def stop(self) -> SocketPlace:
        """Serve nothing more: where the socket is left, to be removed or closed."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._binding is not None:
            self._binding.cancel()
            self._binding = None
        if self._served is not None:
            self._served.close()
            self._served = None
        elif self._loop is not None:
            self._loop.remove_reader(self._listening)
            self._loop = None
            os.close(self._listening)
        self._listening = -1
        return self._place

    def listening_fd(self) -> int:
        """The listening socket, for `adopt` of the lcinit that replaces this one; -1 while there is none."""
        return self._listening

    def _try(self) -> None:
        self._retry = None
        try:
            self._listen(self._adopted() if self._adopt >= 0 else self._place.bind())
        except OSError as error:
            self._failed(error)

    def _adopted(self) -> int:
        descriptor, self._adopt = self._adopt, -1
        try:
            self._place.find()
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _listen(self, descriptor: int) -> None:
        """Serve on a bound socket, which this object owns from then on. Raises OSError."""
        listener = socket.socket(fileno=descriptor)
        try:
            listener.setblocking(False)
            os.set_inheritable(descriptor, False)
            listener.listen(_BACKLOG)  # here: clients find lcinit by who has listened (SO_PEERCRED)
            if self._later:
                self._await_client(asyncio.get_running_loop(), descriptor)
            else:
                self._served = self._serve(descriptor)
        except BaseException:
            listener.close()
            raise
        self._listening = listener.detach()
        self._pause = _FIRST_RETRY

    def _await_client(self, loop: AbstractEventLoop, descriptor: int) -> None:
        loop.add_reader(descriptor, self._first_client, loop)
        self._loop = loop

    def _first_client(self, loop: AbstractEventLoop) -> None:
        loop.remove_reader(self._listening)
        try:
            self._served = self._serve(self._listening)
        except Exception as error:
            if isinstance(error, OSError):
                log.warning(f"the control socket {self.path} is not served now: {error.strerror}")
            else:
                log.unexpected(f"when the control socket {self.path} was to be served", error)
            self._retry_later(self._await_client, loop, self._listening)
        else:
            self._loop = None

    def _failed(self, error: OSError) -> None:
        """Try again later, where that may help. Raises SystemFailure where not."""
        failure = SystemFailure.from_os_error(f"make the control socket {self.path}", error)
        if error.errno not in _PASSING:
            raise failure from error
        log.warning(f"{failure}; trying again in {self._pause:.0f} s")
        self._retry_later(self._try_again)

    def _retry_later(self, again: Callable[..., None], *arguments: object) -> None:
        self._retry = asyncio.get_running_loop().call_later(self._pause, again, *arguments)
        self._pause = min(self._pause * 2, _LAST_RETRY)

    def _try_again(self) -> None:
        if self._bind_later is not None:
            self._retry = None
            self._binding = asyncio.get_running_loop().create_task(self._bind(self._bind_later))
            return
        try:
            self._try()
        except SystemFailure as error:
            log.error(f"{error}")

    async def _bind(self, bind: Bind) -> None:
        try:
            self._listen(await bind(self._place))
        except OSError as error:
            log.warning(f"the control socket {self.path} is not served: {error.strerror}")
            self._retry_later(self._try_again)
        except LcinitError as error:
            log.warning(f"{error}; trying again in {self._pause:.0f} s")
            self._retry_later(self._try_again)
        finally:
            self._binding = None
