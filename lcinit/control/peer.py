"""Who is at the other end of a unix socket, and whether it is root of lcinit's own user namespace.

The kernel tells uid and pid as lcinit's own namespaces number them (SO_PEERCRED, unix(7)). Uid 0 alone is no proof: a
user namespace whose map covers lcinit's uid 0 makes such a process with one `unshare`. So the peer's user namespace is
compared with lcinit's own, and by a pidfd it is made sure that the number did not pass to another process meanwhile.
"""

from __future__ import annotations

import errno
import os
import select
import struct

from lcinit.linux.process import pidfd_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

_SOL_SOCKET = 1
_SO_PEERCRED = 17
_SO_PEERPIDFD = 77  # since Linux 6.5
_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid


def own_namespace() -> tuple[int, int]:
    """Device and inode of this process' user namespace. Raises OSError where there is no procfs of its PID namespace:
    in another one the numbers that the kernel tells of peers are those of other processes."""
    if os.readlink("/proc/self") != str(os.getpid()):
        raise OSError(errno.ENOENT, "it shows another PID namespace", "/proc")
    return _namespace("self")


def refusal(peer: socket, own: tuple[int, int]) -> str:
    """Why the peer is not served, for the log; empty if it is served. `own` is what `own_namespace` said.

    A process of an outer PID namespace has no number here (pid 0): nobody below lcinit can be one, and its uid decides.
    """
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size))
    if uid != 0:
        return f"process {pid} has uid {uid}"
    if pid == 0:
        return ""
    try:
        pidfd = _pidfd(peer, pid)
    except OSError as error:
        return f"process {pid} cannot be held: {error.strerror}"
    try:
        if _namespace(str(pid)) != own:
            return f"process {pid} is root of another user namespace"
        if _has_ended(pidfd):
            return f"process {pid} has ended"
    except OSError as error:
        return f"the user namespace of process {pid} cannot be seen: {error.strerror}"
    finally:
        os.close(pidfd)
    return ""


def _pidfd(peer: socket, pid: int) -> int:
    """A handle of the process that connected; before Linux 6.5, of the one that has its number now."""
    try:
        return peer.getsockopt(_SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
    return pidfd_open(pid)


def _namespace(process: str) -> tuple[int, int]:
    status = os.stat(f"/proc/{process}/ns/user")
    return status.st_dev, status.st_ino


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
