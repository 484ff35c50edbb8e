"""Who is at the other end of a unix socket, and whether lcinit may do what it asks.

The kernel tells uid and pid as lcinit's own namespaces number them (SO_PEERCRED, unix(7)). Two kinds are served:

- Root of lcinit's own user namespace. Uid 0 alone is no proof: a user namespace whose map covers lcinit's uid 0 makes
  such a process with one `unshare`. So the peer's user namespace is compared with lcinit's own, and by a pidfd it is
  made sure that the number did not pass to another process meanwhile.
- Who looks into lcinit's user namespace from above it. Where that one has an id map (PID 1 is in the guest's with
  exec.pid: shared, or the container has one), the machine's root or the container's has no uid in it and is shown with
  the overflow uid, 65534. A process at or below lcinit's user namespace that was given its ids there has a uid that is
  mapped: the kernel takes no map with ids that the map above it has not. And the socket is 0600 in a directory that is
  0700, both of lcinit's uid 0: connect(2) takes that uid or CAP_DAC_OVERRIDE over its files, which without a mapped uid
  is a privilege of a user namespace above. If root of lcinit's user namespace opens the socket to others, that is its
  own power which it shares out.

The overflow uid alone is no proof either: most maps have a uid 65534, which is `nobody`. So the process must be one
that cannot be at or below lcinit's user namespace. One without a number here (pid 0) is of an outer PID namespace,
which nobody enters from below. Of one that has a number, by `podman exec` say, the kernel tells the id map of its user
namespace: as lcinit reads it, every range of a map below its own begins outside with an id that has a number, and one
of a map above may begin with an id that lcinit's own map has not: 4294967295. The process can neither forge that nor
hide it. Where the own map has the ids that the ranges above begin with, root from there is not known, and refused.
"""

from __future__ import annotations

import errno
import os
import select
import struct

from lcinit import log
from lcinit.linux.process import pidfd_open
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

_SOL_SOCKET = 1
_SO_PEERCRED = 17
_SO_PEERPIDFD = 77  # since Linux 6.5
_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_NO_ID = 0xFFFFFFFF  # (uid_t) -1: all but this one can be mapped
_OVERFLOW_UID = "sys/kernel/overflowuid"
_AT_ONCE = 1 << 14  # bytes of a file that are read at once


class Own(Record):
    """This process' user namespace, by device and inode, and the uid that who has none in it is shown with: None where
    every uid is mapped. `procfs` is where that was read: a handle, None for /proc."""

    namespace: tuple[int, int]
    overflow: int | None = None
    procfs: int | None = None


def own_namespace(procfs: int | None = None) -> Own:
    """This process' own. `procfs` is a handle of a procfs, for who shares /proc with those that may mount over it.

    Raises OSError where it is not one of this PID namespace: in another one the numbers that the kernel tells of peers
    are those of other processes."""
    if os.readlink(_name("self", procfs), dir_fd=procfs) != str(os.getpid()):
        raise OSError(errno.ENOENT, "it shows another PID namespace", "/proc")
    whole = _id_map("self", procfs) == [(0, 0, _NO_ID)]
    overflow = None if whole else _overflow_uid(procfs)
    return Own(namespace=_namespace("self", procfs), overflow=overflow, procfs=procfs)


def refusal(peer: socket, own: Own) -> str:
    """Why the peer is not served, for the log; empty if it is served. `own` is what `own_namespace` said."""
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size))
    if uid not in (0, own.overflow):
        return f"process {pid} has uid {uid}"
    if pid == 0:
        return ""
    try:
        pidfd = _pidfd(peer, pid)
    except OSError as error:
        return f"process {pid} cannot be held: {error.strerror}"
    try:
        if uid != 0 and not _is_above(_id_map(str(pid), own.procfs)):
            return f"process {pid} has uid {uid}"
        if uid == 0 and _namespace(str(pid), own.procfs) != own.namespace:
            return f"process {pid} is root of another user namespace"
        if _has_ended(pidfd):
            return f"process {pid} has ended"
    except OSError as error:
        return f"the user namespace of process {pid} cannot be seen: {error.strerror}"
    finally:
        os.close(pidfd)
    return ""


def _name(name: str, procfs: int | None) -> str:
    return f"/proc/{name}" if procfs is None else name


def _read(name: str, procfs: int | None) -> bytes:
    file = os.open(_name(name, procfs), os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)
    try:
        return b"".join(iter(lambda: os.read(file, _AT_ONCE), b""))  # an id map may take more than one read
    finally:
        os.close(file)


def _overflow_uid(procfs: int | None) -> int | None:
    try:
        return int(_read(_OVERFLOW_UID, procfs))
    except (OSError, ValueError) as error:
        log.debug(f"control: root from outside is not known by {_OVERFLOW_UID}, and not served: {error}")
        return None


def _id_map(process: str, procfs: int | None) -> list[tuple[int, ...]]:
    """Ranges (first inside, first outside, how many) of a process' user namespace; outside is as lcinit's own numbers
    it, or for that itself, as the one above does (user_namespaces(7)). Raises OSError."""
    lines = _read(f"{process}/uid_map", procfs).splitlines()
    return [tuple(int(number) for number in line.split()) for line in lines]


def _is_above(id_map: list[tuple[int, ...]]) -> bool:
    """Whether it has an id outside that lcinit's own user namespace cannot name: no map at or below that has."""
    return any(outside == _NO_ID for _, outside, _ in id_map)


def _pidfd(peer: socket, pid: int) -> int:
    """A handle of the process that connected; before Linux 6.5, of the one that has its number now."""
    try:
        return peer.getsockopt(_SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
    return pidfd_open(pid)


def _namespace(process: str, procfs: int | None) -> tuple[int, int]:
    status = os.stat(_name(f"{process}/ns/user", procfs), dir_fd=procfs)
    return status.st_dev, status.st_ino


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
