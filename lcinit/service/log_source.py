"""The reading end of a service's pipe. What is in it leaves it only for where it belongs: a logger that is killed has
nothing in its hands that would be lost with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from lcinit.linux.pipes import SPLICE_F_NONBLOCK, tee

CHUNK = 64 * 1024  # bytes that are looked at at once; what a pipe holds
_NEVER = (errno.EINVAL, errno.ENOSYS, errno.EPERM)

_INT = struct.Struct("=i")
_FIONREAD = 0x541B  # ioctl_tty(2); the module that names it is a library of its own

_scratch = bytearray(CHUNK)


class Glance:
    """A pipe of one's own, for looking at what another holds. Empty but while that is done."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def close(self) -> None:
        """Close it."""
        os.close(self.reader)
        os.close(self.writer)


class Source:
    """A pipe's reading end, O_NONBLOCK. Methods raise BlockingIOError where there is nothing for now."""

    __slots__ = ("_glance", "_held", "_splices", "fd")

    def __init__(self, fd: int, glance: Glance) -> None:
        self.fd = fd
        self._glance = glance
        self._splices = True
        self._held = b""  # only where tee(2) is refused

    def waiting(self) -> int:
        """How many bytes are there now."""
        (count,) = _INT.unpack(fcntl.ioctl(self.fd, _FIONREAD, bytes(_INT.size)))
        return len(self._held) + int(count)

    def look(self) -> bytes:
        """What comes next, and stays; b"" once nothing more will."""
        if not self._held:
            try:
                count = tee(self.fd, self._glance.writer, CHUNK)
                return os.read(self._glance.reader, count) if count else b""
            except OSError as error:
                if error.errno not in _NEVER:
                    raise
            self._held = os.read(self.fd, CHUNK)
        return self._held

    def take(self) -> bytes:
        """What comes next."""
        if self._held:
            held, self._held = self._held, b""
            return held
        return os.read(self.fd, CHUNK)

    def move(self, target: int, most: int) -> int:
        """To a file at its position: how many bytes, 0 once nothing more comes."""
        if self._splices and not self._held:
            try:
                return os.splice(self.fd, target, most, flags=SPLICE_F_NONBLOCK)
            except OSError as error:
                if error.errno not in _NEVER:
                    raise
                self._splices = False  # this file system cannot
        written = os.write(target, self.look()[:most])
        return self.skip(written)[0] if written else 0

    def skip(self, most: int) -> tuple[int, int]:
        """Throw bytes away: how many, and how many lines end in them."""
        if self._held:
            skipped, self._held = self._held[:most], self._held[most:]
            return len(skipped), skipped.count(b"\n")
        count = os.readv(self.fd, [memoryview(_scratch)[:most]])
        return count, _scratch.count(b"\n", 0, count)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)
