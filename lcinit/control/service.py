"""The control socket of a supervising lcinit: where it stands, who made it, and that it is there when it can be."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat

from lcinit import log
from lcinit.control.answers import Interfaces, internal, read_texts
from lcinit.control.manager import Manager, access_denied
from lcinit.control.server import Server
from lcinit.control.services import Services
from lcinit.errors import SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle

    from lcinit.control.manager import Served
    from lcinit.control.services import ServicesOffered

PATH = "/run/lcinit/control"
_TEXTS = read_texts()  # with the program: a server that shares the guest's root is made there
_BACKLOG = 128
_FIRST_RETRY, _LAST_RETRY = 5.0, 600.0  # seconds until a socket that cannot be made is tried again: doubled each time
_PASSING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    *(errno.EROFS, errno.ENOENT),  # what is mounted there may come later
)


class ServedByAnother(SystemFailure):
    """Another lcinit serves the socket."""


class ControlServer:
    """Serves io.lcinit.Manager on a socket at `path`: 0600, in a directory of its own that is 0700. Where lcinit
    supervises `services`, io.lcinit.Services is served beside it.

    `adopt` is a listening socket of an lcinit that was here before (`reexec`), to be served on; without it the socket
    is made anew, in place of one that nobody serves any more.
    """

    def __init__(
        self, served: Served, *, path: str = PATH, adopt: int = -1, services: ServicesOffered | None = None
    ) -> None:
        self.path = path
        self._adopt = adopt
        self._interfaces = Interfaces(_TEXTS)
        Manager(served, self._room_to_follow).serve_in(self._interfaces)
        if services is not None:
            Services(services, self._room_to_follow).serve_in(self._interfaces)
        self._server: Server | None = None
        self._made: tuple[int, int] | None = None  # device and inode of the socket
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
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._server is not None:
            self._server.close()
            self._server = None
            self._remove()

    def listening_fd(self) -> int:
        """The listening socket, for `adopt` of the lcinit that replaces this one; -1 while there is none."""
        return -1 if self._server is None else self._server.listener.fileno()

    def _room_to_follow(self) -> bool:
        return self._server is not None and self._server.room_to_follow()

    def _try(self) -> None:
        self._retry = None
        listener: socket.socket | None = None
        try:
            listener = self._listener()
            self._server = Server(
                listener,
                asyncio.get_running_loop(),
                self._interfaces.answer,
                refused=access_denied(),
                internal=internal,
            )
        except OSError as error:
            if listener is not None:
                listener.close()
            failure = SystemFailure.from_os_error(f"make the control socket {self.path}", error)
            if error.errno not in _PASSING:
                raise failure from error
            log.warning(f"{failure}; trying again in {self._pause:.0f} s")
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._try_again)
            self._pause = min(self._pause * 2, _LAST_RETRY)
        else:
            self._pause = _FIRST_RETRY

    def _try_again(self) -> None:
        try:
            self._try()
        except SystemFailure as error:
            log.error(f"{error}")

    def _listener(self) -> socket.socket:
        """The listening socket. Raises OSError, SystemFailure."""
        if self._adopt >= 0:
            descriptor, self._adopt = self._adopt, -1
            listener = socket.socket(fileno=descriptor)
            listener.setblocking(False)
            listener.set_inheritable(False)
            status = os.lstat(self.path)
            self._made = status.st_dev, status.st_ino
            return listener
        directory = _own_directory(os.path.dirname(self.path))
        try:
            # by the handle: nothing of the path is resolved twice, and it may be longer than sun_path
            place = f"/proc/self/fd/{directory}/{os.path.basename(self.path)}"
            _remove_stale(place, self.path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                before = os.umask(0o177)
                try:
                    listener.bind(place)
                finally:
                    os.umask(before)
                status = os.lstat(place)
                self._made = status.st_dev, status.st_ino
                listener.listen(_BACKLOG)
            except BaseException:
                listener.close()
                raise
        finally:
            os.close(directory)
        return listener

    def _remove(self) -> None:
        try:
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self._made:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning(f"{SystemFailure.from_os_error(f'remove the control socket {self.path}', error)}")


def _own_directory(path: str) -> int:
    """A handle of the socket's directory, made where it is missing, 0700. Raises OSError, SystemFailure."""
    parent = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = os.path.basename(path)
    try:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        try:
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise SystemFailure(
                    f"cannot make the control socket in {path}: it is no directory", hint="remove it"
                ) from error
            raise
    finally:
        os.close(parent)
    try:
        status = os.fstat(directory)
        if status.st_uid != os.geteuid():
            raise SystemFailure(
                f"cannot make the control socket in {path}: the directory belongs to uid {status.st_uid}",
                hint="remove it",
            )
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(directory, 0o700)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _remove_stale(place: str, path: str) -> None:
    """Make room for the socket: one that nobody serves is removed. Raises SystemFailure for anything else, OSError."""
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise SystemFailure(f"cannot make the control socket {path}: there is something else", hint="remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(place)
        except ConnectionRefusedError:
            os.unlink(place)
            return
        except BlockingIOError:
            pass  # its queue is full: it is served, or was until now
    raise ServedByAnother(
        f"cannot make the control socket {path}: another lcinit serves it", hint="one lcinit supervises a boot root"
    )
