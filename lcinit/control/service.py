"""The control socket of a supervising lcinit: where it stands, who made it, and that it is there when it can be."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from lcinit import log
from lcinit.control.answers import Interfaces, internal, read_texts
from lcinit.control.manager import Manager, access_denied
from lcinit.control.server import Server
from lcinit.control.services import Services
from lcinit.control.socket_place import ServedByAnother as ServedByAnother
from lcinit.control.socket_place import SocketPlace
from lcinit.errors import LcinitError, SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task, TimerHandle
    from collections.abc import Awaitable, Callable

    from lcinit.control.manager import Served
    from lcinit.control.services import ServicesOffered

    Bind = Callable[[SocketPlace], Awaitable[int]]

PATH = "/run/lcinit/control"
_TEXTS = read_texts()  # with the program: a server that shares the guest's root is made there
_BACKLOG = 128
_FIRST_RETRY, _LAST_RETRY = 5.0, 600.0  # seconds until a socket that cannot be made is tried again: doubled each time
_PASSING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    *(errno.EROFS, errno.ENOENT),  # what is mounted there may come later
)


class ControlServer:
    """Serves io.lcinit.Manager on a socket at `path`: 0600, in a directory of its own that is 0700. Where lcinit
    supervises `services`, io.lcinit.Services is served beside it.

    `adopt` is a listening socket of an lcinit that was here before (`reexec`), to be served on; without it the socket
    is made anew, in place of one that nobody serves any more. `procfs` is for `Server`.

    `bind_later` makes the socket where that has to be tried again: for who shares its root with others that may have
    mounted something there by then, which never answers.
    """

    def __init__(
        self,
        served: Served,
        *,
        path: str = PATH,
        adopt: int = -1,
        services: ServicesOffered | None = None,
        procfs: int | None = None,
        bind_later: Bind | None = None,
    ) -> None:
        self.path = path
        self._adopt = adopt
        self._procfs = procfs
        self._bind_later = bind_later
        self._binding: Task[None] | None = None
        self._interfaces = Interfaces(_TEXTS)
        Manager(served, self._room_to_follow).serve_in(self._interfaces)
        if services is not None:
            Services(services, self._room_to_follow).serve_in(self._interfaces)
        self._server: Server | None = None
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
        if self._server is not None:
            self._server.close()
            self._server = None
        return self._place

    def listening_fd(self) -> int:
        """The listening socket, for `adopt` of the lcinit that replaces this one; -1 while there is none."""
        return -1 if self._server is None else self._server.listener.fileno()

    def _room_to_follow(self) -> bool:
        return self._server is not None and self._server.room_to_follow()

    def _try(self) -> None:
        self._retry = None
        try:
            self._serve(self._adopted() if self._adopt >= 0 else self._place.bind())
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

    def _serve(self, descriptor: int) -> None:
        """Serve on a bound socket, which this object owns from then on. Raises OSError."""
        listener = socket.socket(fileno=descriptor)
        try:
            listener.setblocking(False)
            listener.set_inheritable(False)
            listener.listen(_BACKLOG)  # here: clients find lcinit by who has listened (SO_PEERCRED)
            self._server = Server(
                listener,
                asyncio.get_running_loop(),
                self._interfaces.answer,
                refused=access_denied(),
                internal=internal,
                procfs=self._procfs,
            )
        except BaseException:
            listener.close()
            raise
        self._pause = _FIRST_RETRY

    def _failed(self, error: OSError) -> None:
        """Try again later, where that may help. Raises SystemFailure where not."""
        failure = SystemFailure.from_os_error(f"make the control socket {self.path}", error)
        if error.errno not in _PASSING:
            raise failure from error
        log.warning(f"{failure}; trying again in {self._pause:.0f} s")
        self._retry_later()

    def _retry_later(self) -> None:
        self._retry = asyncio.get_running_loop().call_later(self._pause, self._try_again)
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
            self._serve(await bind(self._place))
        except OSError as error:
            log.warning(f"the control socket {self.path} is not served: {error.strerror}")
            self._retry_later()
        except LcinitError as error:
            log.warning(f"{error}; trying again in {self._pause:.0f} s")
            self._retry_later()
        finally:
            self._binding = None
