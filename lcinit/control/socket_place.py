"""Where the control socket stands: a directory of its own, and the socket in it, made and taken away by handles."""

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
            _remove_stale(place, self.path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                before = os.umask(_UMASK)
                try:
                    listener.bind(place)
                finally:
                    os.umask(before)
                status = os.lstat(place)
                self.take(directory, (status.st_dev, status.st_ino))
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
        self.take(directory, (status.st_dev, status.st_ino))

    def remove(self) -> None:
        """Take it away, if it is still this one. Raises OSError."""
        if self.directory < 0:
            return
        try:
            status = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == self.made:
                os.unlink(self.name, dir_fd=self.directory)
        except FileNotFoundError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the directory."""
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1


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
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        probe.connect(place)
    except ConnectionRefusedError:
        os.unlink(place)
        return
    except BlockingIOError:
        pass  # its queue is full: it is served, or was until now
    finally:
        probe.close()
    raise ServedByAnother(
        f"cannot make the control socket {path}: another lcinit serves it", hint="one lcinit supervises a boot root"
    )
