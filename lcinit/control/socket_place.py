"""Where the control socket stands: a directory of its own, and the socket in it, made and taken away by handles. What
is the same for the notification socket of services has functions of its own.
"""

from __future__ import annotations

import errno
import os
import stat

from lcinit.errors import SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # without the half that imports enum and selectors

_UMASK = 0o177  # bind(2) makes it 0777 without one


class ServedByAnother(SystemFailure):
    """Another lcinit serves the socket."""


class SocketPlace:
    """The socket at `path`: 0600, in a directory that is 0700. `made` is its device and inode, `directory` a handle."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory = -1
        self.made = (0, 0)

    @property
    def name(self) -> str:
        """The socket's, in its directory."""
        return os.path.basename(self.path)

    def bind(self) -> int:
        """Make it, in place of one that nobody serves any more: a socket to listen on. Raises OSError, SystemFailure.

        SystemFailure is for what will not change by itself: somebody else serves there (ServedByAnother), or what
        stands there is no socket of ours.
        """
        directory = _own_directory(os.path.dirname(self.path))
        try:
            # by the handle: nothing of the path is resolved twice, and it may be longer than sun_path
            place = f"/proc/self/fd/{directory}/{self.name}"
            cannot = f"cannot make the control socket {self.path}"
            if not make_room(place, socket.SOCK_STREAM, cannot):
                hint = "one lcinit supervises a boot root"
                raise ServedByAnother(f"{cannot}: another lcinit serves it", hint=hint)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                self.take(directory, bind_at(listener, place, _UMASK))
            except BaseException:
                listener.close()
                raise
        except BaseException:
            os.close(directory)
            raise
        return listener.detach()

    def take(self, directory: int, made: tuple[int, int]) -> None:
        """It is there: in the directory behind a handle, which is this object's from then on."""
        self.close()
        self.directory, self.made = directory, made

    def find(self) -> None:
        """It is the one that stands there now. Raises OSError."""
        directory = os.open(os.path.dirname(self.path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.stat(self.name, dir_fd=directory, follow_symlinks=False)
        except BaseException:
            os.close(directory)
            raise
        self.take(directory, identity(status))

    def remove(self) -> None:
        """Take it away, if it is still this one. Raises OSError."""
        if self.directory < 0:
            return
        try:
            remove_made(self.directory, self.name, self.made)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the directory."""
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1


def identity(status: os.stat_result) -> tuple[int, int]:
    """Device and inode."""
    return status.st_dev, status.st_ino


def bind_at(channel: socket.socket, place: str, umask: int) -> tuple[int, int]:
    """Bind a socket to a path, with this umask: the device and inode of what stands there then. Raises OSError."""
    before = os.umask(umask)
    try:
        channel.bind(place)
    finally:
        os.umask(before)
    return identity(os.lstat(place))


def remove_made(directory: int, name: str, made: tuple[int, int]) -> None:
    """Remove an entry of a directory, if it is still the one that was made. Raises OSError."""
    try:
        if identity(os.stat(name, dir_fd=directory, follow_symlinks=False)) == made:
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def claim(directory: int, mode: int, cannot: str) -> None:
    """A socket's directory has this mode from then on. Raises OSError, and SystemFailure where it is another user's:
    `cannot` and the reason.
    """
    status = os.fstat(directory)
    if status.st_uid != os.geteuid():
        raise SystemFailure(f"{cannot}: the directory belongs to uid {status.st_uid}", hint="remove it")
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(directory, mode)


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
        claim(directory, 0o700, f"cannot make the control socket in {path}")
    except BaseException:
        os.close(directory)
        raise
    return directory


def make_room(place: str, kind: int, cannot: str) -> bool:
    """Remove a socket of a kind (SOCK_*) that nobody serves; false for one that is served.

    Raises OSError, and SystemFailure where there is something else: `cannot` and the reason.
    """
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return True
    if not stat.S_ISSOCK(status.st_mode):
        raise SystemFailure(f"{cannot}: there is something else", hint="remove it")
    probe = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        probe.connect(place)
    except ConnectionRefusedError:
        os.unlink(place)
        return True
    except OSError as error:
        # its queue is full, or it is of another kind: it is served, or was until now
        if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
            raise
    finally:
        probe.close()
    return False
