"""Holding a guest still while it could look into what enters it.

A process that is not dumpable can be looked into by nobody without CAP_SYS_PTRACE in the user namespace that it was
started in (ptrace(2)). With an id map the guest has that in its own user namespace alone. Without one the guest's root
has it there, and for as long as the inner process runs lcinit's code the guest's cgroup is frozen.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from lcinit import log
from lcinit.boot.cgroups import own_path
from lcinit.errors import SystemFailure
from lcinit.guest.membership import frozen, open_cgroup
from lcinit.linux.capabilities import CAPABILITIES
from lcinit.linux.mountinfo import MountInfo
from lcinit.linux.namespaces import CLONE_NEWPID, CLONE_NEWUSER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.guest.target import Target

PATIENCE = 5.0  # seconds for the guest to stand still, for another one who enters it, and for the exec


class Stillness:
    """A guest that can be held still: `hold`, then `release` at once. Each entering has one of its own.

    Its files are opened here: who holds the guest may by then be a user who could not open them.
    """

    def __init__(self, directory: int) -> None:
        """`directory` is a handle of the guest's cgroup. OSError where it cannot be frozen."""
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        self.freeze = os.open("cgroup.freeze", os.O_RDWR | flags, dir_fd=directory)
        self.events = os.open("cgroup.events", os.O_RDONLY | flags, dir_fd=directory)

    def descriptors(self) -> tuple[int, int]:
        """What has to stay open."""
        return self.freeze, self.events

    def hold(self) -> None:
        """Return when every process of the guest is stopped. Raises SystemFailure if that takes too long.

        And if somebody stopped it before, for other reasons: who enters must not make it go on.
        """
        self._lock()
        if os.pread(self.freeze, 16, 0).strip() == b"1":
            fcntl.flock(self.freeze, fcntl.LOCK_UN)
            raise frozen()
        os.write(self.freeze, b"1")
        poll = select.poll()
        poll.register(self.events, select.POLLPRI)
        deadline = time.monotonic() + PATIENCE
        while b"frozen 1" not in os.pread(self.events, 4096, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                self.release()
                raise SystemFailure(f"the guest does not stand still within {PATIENCE:.0f} s", hint="try again")
            poll.poll(left * 1000)

    def _lock(self) -> None:
        """One at a time: who has finished would let the guest go while another one needs it held."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self.freeze, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise SystemFailure("somebody else holds the guest's cgroup", hint="try again") from error
                time.sleep(0.005)
            else:
                return

    def release(self) -> None:
        """Let the guest go on, unless somebody else holds it by now. May be called again."""
        try:
            fcntl.flock(self.freeze, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        os.write(self.freeze, b"0")
        fcntl.flock(self.freeze, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        for fd in self.descriptors():
            os.close(fd)


def stillness(target: Target) -> Stillness | None:
    """How to hold the guest of this process still; None where there is no need, or (with a warning) no way."""
    can_trace = target.bounding >> CAPABILITIES["sys_ptrace"] & 1
    if target.flags & CLONE_NEWUSER or not target.flags & CLONE_NEWPID or not can_trace:
        return None
    still = _open_scope(target)
    if still is None:
        log.warning("the guest has no id map and no cgroup of its own: it may look into this process as it enters")
    return still


def _open_scope(target: Target) -> Stillness | None:
    """The cgroup that holds all of the guest, if it can be frozen and does not hold the caller."""
    line = next((line for line in target.cgroups.splitlines() if line.startswith("0::")), None)
    if line is None:
        return None
    path = _scope(line[3:], target.read("mountinfo"))
    own = own_path() or "/"
    if f"{own}/".startswith(f"{path.rstrip('/')}/"):
        return None
    try:
        directory = open_cgroup(path)
        try:
            return Stillness(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EPERM, errno.ENODEV, errno.ELOOP):
            raise
        return None


def _scope(path: str, mountinfo: str) -> str:
    """What of the hierarchy the guest has mounted, as the caller sees it; else the cgroup of its init.

    systemd moves itself from the cgroup that it was given to a child named init.scope.
    """
    for line in mountinfo.splitlines():
        mounted = MountInfo(line)
        if mounted.fstype == "cgroup2" and mounted.root != "/" and f"{path}/".startswith(f"{mounted.root}/"):
            return mounted.root
    return path.removesuffix("/init.scope") or "/"
