"""Asking an init over its FIFO, as telinit(8) of sysvinit does."""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import time

from lcinit.control.initctl import Request
from lcinit.errors import SystemFailure
from lcinit.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FIFOS = ("/run/initctl", "/dev/initctl")
PATIENCE = 3.0  # seconds for an init that does not empty its FIFO, as in sysvinit's telinit
_OF_A_PROCESS = re.compile(r"(/proc/(?:[1-9][0-9]*|self)/root)/(.*)", re.DOTALL)


def default_fifo(candidates: Sequence[str] = FIFOS) -> str:
    """The first candidate that is a FIFO, links followed. Raises SystemFailure when none is."""
    for path in candidates:
        try:
            if stat.S_ISFIFO(os.stat(path).st_mode):
                return path
        except OSError:
            continue
    raise SystemFailure(
        f"no init takes requests here: neither {' nor '.join(candidates)} is a FIFO",
        hint="name it with --fifo, or set initctl: true in the container's configuration",
    )


def send(requests: Sequence[Request], fifo: str | None = None) -> None:
    """Write the requests to the init behind the FIFO; the default one without `fifo`.

    A path below /proc/PID/root is resolved inside that root: a link in a guest cannot name a FIFO of the outside.
    Never waits for a reader. Raises SystemFailure.
    """
    path = default_fifo() if fifo is None else fifo
    fd = _open(path)
    try:
        for request in requests:
            _write(fd, path, request.pack())
    finally:
        os.close(fd)


def _open(path: str) -> int:
    try:
        handle = _handle(path)
    except OSError as error:
        raise SystemFailure.from_os_error(f"open {path}", error) from error
    try:
        if not stat.S_ISFIFO(os.fstat(handle).st_mode):
            raise SystemFailure(f"{path} is not a FIFO", hint="the init behind it does not speak initctl")
        # through the handle: what was checked is what is opened
        return os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = ""
        if error.errno == errno.ENXIO:
            error = OSError(error.errno, "no init is reading it")
            hint = "the init that made it has ended, or does not run yet"
        cause = OSError(error.errno, error.strerror)
        raise SystemFailure.from_os_error(f"write to {path}", cause, hint=hint) from error
    finally:
        os.close(handle)


def _handle(path: str) -> int:
    inside = _OF_A_PROCESS.fullmatch(path)
    if inside is None:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    root = os.open(inside[1], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS
        return files.openat2(root, inside[2], os.O_PATH | os.O_CLOEXEC, 0, resolve)
    finally:
        os.close(root)


def _write(fd: int, path: str, frame: bytes) -> None:
    """One write: a pipe takes a frame as a whole or not at all (pipe(7))."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            os.write(fd, frame)
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            left = deadline - time.monotonic()
            if left <= 0:
                raise SystemFailure(f"cannot write to {path}: the init behind it does not read") from None
            poll.poll(left * 1000)
        except OSError as error:
            raise SystemFailure.from_os_error(f"write to {path}", error) from error
        else:
            return
