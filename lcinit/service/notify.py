"""The socket on which services say that they are ready, alive or about to end: $NOTIFY_SOCKET (sd_notify(3)); and the
watchdog of those that have to go on saying it (sd_watchdog_enabled(3)).

Services run as any user, so anybody in the guest may write to it. Who it was the kernel tells; whose service that is,
and whether it may speak for it, is decided by whoever takes the notification.
"""

from __future__ import annotations

import asyncio
import os

from lcinit import log
from lcinit.control.notify import LARGEST, Datagrams
from lcinit.control.ratelimit import RateLimit
from lcinit.control.socket_place import bind_at, claim, make_room, remove_made
from lcinit.errors import SystemFailure
from lcinit.linux import files
from lcinit.service.notifications import Notification, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable
else:
    import _socket as socket  # without the half that imports enum and selectors

PATH = "/run/lcinit-notify/socket"  # not beside the control socket, whose directory is root's alone
_DIRECTORY_MODE = 0o755  # every user's service has to pass it
_SOCKET_UMASK = 0o111  # bind(2) makes it 0777 without one
_HANDLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_LONGEST = 86400.0  # seconds a timer is set for at most; it is set again then
# A timer that comes later than this part of the interval, and these seconds, was held up together with the service.
_HELD_UP, _AT_LEAST = 0.5, 0.25


class NotifySocket:
    """A socket of mode 0666 at `path`, in a directory of its own that is root's and 0755.

    `take` is called with PID, uid and content of each message, as this process numbers them. Senders of an outer PID
    namespace, who have no number here, are not heard.
    """

    def __init__(self, take: Callable[[int, int, Notification], object], *, path: str = PATH) -> None:
        """Make it, in place of one that nobody serves any more. No link on the way is followed.

        Raises SystemFailure: the kernel's refusal, or what stands in the way, which is left alone.
        """
        self.path = path
        self._take = take
        self._complaints = RateLimit()
        self._loop: AbstractEventLoop | None = None
        self._directory = -1
        self._made = (0, 0)  # device and inode
        try:
            self._directory = _own_directory(os.path.dirname(path))
            self._datagrams = Datagrams(self._bound(), self._received, self._cut)
        except OSError as error:
            raise SystemFailure.from_os_error(f"make the notification socket {path}", error) from error
        finally:
            if self._made == (0, 0):
                self._close_directory()

    def start(self, loop: AbstractEventLoop) -> None:
        """Take messages from now on; those that came before, too."""
        self._loop = loop
        self._datagrams.start(loop)

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return self._datagrams.fileno()

    def close(self) -> None:
        """Take nothing more; the socket goes, if it is still this one that stands there. Any number of times."""
        self.stop()
        if self._directory < 0:
            return
        try:
            remove_made(self._directory, os.path.basename(self.path), self._made)
        except OSError as error:
            log.warning(f"{SystemFailure.from_os_error(f'remove the notification socket {self.path}', error)}")
        self._close_directory()

    def stop(self) -> tuple[int, str, tuple[int, int]]:
        """Take nothing more: a handle of the directory, and what stands in it: its name, and its device and inode."""
        self._datagrams.close()
        return self._directory, os.path.basename(self.path), self._made

    def _received(self, pid: int, uid: int, data: bytes) -> None:
        if pid > 0:
            self._take(pid, uid, parse(data))

    def _cut(self, pid: int, uid: int) -> None:
        if self._loop is not None and self._complaints.take(self._loop.time()):
            left_out = self._complaints.left_out()
            more = f" ({left_out} more like this)" if left_out else ""
            log.warning(
                f"a notification of process {pid} (uid {uid}) has more than {LARGEST} bytes and is ignored{more}"
            )

    def _bound(self) -> socket.socket:
        """The socket at its name. Raises OSError, SystemFailure."""
        name = os.path.basename(self.path)
        # by the handle: nothing of the path is resolved twice, and it may be longer than sun_path
        place = f"/proc/self/fd/{self._directory}/{name}"
        cannot = f"cannot make the notification socket {self.path}"
        if not make_room(place, socket.SOCK_DGRAM, cannot):
            raise SystemFailure(f"{cannot}: another process receives there", hint="end it and remove the socket")
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._made = bind_at(channel, place, _SOCKET_UMASK)
        except BaseException:
            channel.close()
            raise
        return channel

    def _close_directory(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def _own_directory(path: str) -> int:
    """A handle of the socket's directory, made where it is missing. Raises OSError, SystemFailure."""
    cannot = f"cannot make the notification socket in {path}"
    root = os.open("/", _HANDLE)
    try:
        parent = files.open_in_root(root, os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    finally:
        os.close(root)
    name = os.path.basename(path)
    try:
        try:
            os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
        except FileExistsError:
            pass
        try:
            directory = os.open(name, _HANDLE | os.O_NOFOLLOW, dir_fd=parent)
        except NotADirectoryError as error:  # a link, too
            raise SystemFailure(f"{cannot}: it is no directory", hint="remove it") from error
    finally:
        os.close(parent)
    try:
        claim(directory, _DIRECTORY_MODE, cannot)
    except BaseException:
        os.close(directory)
        raise
    return directory


class Watchdog:
    """Calls `on_expired` once when `seconds` have passed without a ping. One timer, set again only when it fires.

    When the loop itself comes late, as after the container was frozen, the service gets one more interval: it had no
    time to say anything either.
    """

    def __init__(self, seconds: float, on_expired: Callable[[], object]) -> None:
        self._seconds = seconds
        self._on_expired = on_expired
        self._loop: AbstractEventLoop | None = None  # while it runs
        self._timer: TimerHandle | None = None
        self._deadline = self._due = 0.0

    def start(self) -> None:
        """It runs from now on; needs the running loop."""
        self._loop = asyncio.get_running_loop()
        self.interval = self._seconds

    def ping(self) -> None:
        """The service is alive. Costs nothing but this."""
        if self._loop is not None:
            self._deadline = self._loop.time() + self._seconds

    @property
    def interval(self) -> float:
        """Seconds. Another one begins when it is set; 0 is the end (WATCHDOG_USEC=). What was stopped stays so."""
        return self._seconds

    @interval.setter
    def interval(self, seconds: float) -> None:
        self._seconds = seconds
        if self._loop is not None and seconds <= 0:
            self.stop()
        elif self._loop is not None:
            self.ping()
            self._arm(self._loop)

    def stop(self) -> None:
        """It will not expire any more."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = min(self._deadline, loop.time() + _LONGEST)
        self._timer = loop.call_at(self._due, self._look)

    def _look(self) -> None:
        loop, self._timer = self._loop, None
        if loop is None:
            return
        now = loop.time()
        if now - self._due > max(self._seconds * _HELD_UP, _AT_LEAST):
            self.ping()
        if now < self._deadline:
            self._arm(loop)
        else:
            self.stop()
            self._on_expired()
