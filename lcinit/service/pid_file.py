"""The PID file of a service that forks: which of its processes it names, as far as that can be believed.

The file is in the guest and may be anything: a FIFO, a link out of where it should be, a file that somebody holds a
lease on, another service's number.
"""

from __future__ import annotations

import os
import stat

from lcinit.errors import LcinitError
from lcinit.linux import files
from lcinit.service.notifications import LARGEST_PID, number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_RESOLVE = files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS
_OF_INTEREST = 64  # bytes; some write more lines after the first

# Seconds between two looks of whoever waits for it, doubled from the first to the last. Without such looks every
# directory that leads to the file would have to be watched, any of which may not be there yet; and they take no longer
# than the start.
FIRST_LOOK, LAST_LOOK = 0.01, 0.25


class NoPid(LcinitError):
    """The file names no process of the service; the message says why."""


def read_pid(root: int, path: str, *, uid: int = 0, belongs: Callable[[int], bool]) -> int:
    """The number in the first line of the file at `path` in the root of a handle.

    Waits for no FIFO, lease or device; a file system that does not answer can hold it up (FUSE, NFS).

    The file is root's or that of `uid`, whom the service runs as; `belongs` says whether a process is the service's.
    Raises NoPid.
    """
    try:
        file = files.openat2(root, path, _FLAGS, 0, _RESOLVE)
    except FileNotFoundError:
        raise NoPid(f"there is no {path}") from None
    except BlockingIOError as error:
        raise NoPid(f"{path} is held by somebody, or moved about all the time") from error
    except OSError as error:
        raise NoPid(f"{path} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise NoPid(f"{path} is no regular file")
        if status.st_uid not in (0, uid):
            raise NoPid(f"{path} belongs to uid {status.st_uid}, who is neither root nor the service's user")
        content = os.read(file, _OF_INTEREST)
    except OSError as error:
        raise NoPid(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)
    line = content.decode("utf-8", "replace").partition("\n")[0]
    pid = number(line, LARGEST_PID, 1)
    if pid is None:
        raise NoPid(f'{path} holds no number but "{text(line, 40)}"' if line else f"{path} is empty")
    if not belongs(pid):
        raise NoPid(f"process {pid}, which {path} names, is not one of the service's")
    return pid
