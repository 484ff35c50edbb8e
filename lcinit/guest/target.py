"""The process whose namespaces are entered: held so that it cannot become another one, and what is known of it.

A number alone may be given to another process at any moment. The pidfd is opened first, then the process' directory
of a procfs; if the pidfd's process has not ended by then, the directory is the same process' (a number is not used
again before its process is reaped). From there on everything is read through the directory, which answers ESRCH once
the process has gone, and the namespaces are entered through the pidfd (pidfd_open(2), setns(2), proc(5)).
"""

from __future__ import annotations

import errno
import os
import resource
import select

from lcinit.errors import EX_NOPERM, SystemFailure, UsageError
from lcinit.linux import namespaces, process
from lcinit.linux.files import PROC_SUPER_MAGIC, check_statfs_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Names below /proc/PID/ns and what enters them. The user namespace comes first in every call's own order (setns(2)).
NAMESPACES = {
    "user": namespaces.CLONE_NEWUSER,
    "mnt": namespaces.CLONE_NEWNS,
    "pid": namespaces.CLONE_NEWPID,
    "net": namespaces.CLONE_NEWNET,
    "ipc": namespaces.CLONE_NEWIPC,
    "uts": namespaces.CLONE_NEWUTS,
    "cgroup": namespaces.CLONE_NEWCGROUP,
    "time": namespaces.CLONE_NEWTIME,
}
_LARGEST = 1 << 20
_LIMITS = tuple(sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}))


class Target:
    """A live process and what an entering process takes over from it.

    `flags` are the CLONE_NEW* of those of its namespaces that are not the caller's own. `root` is a handle of its
    root directory, `directory` of its directory in procfs, `status` what /proc/PID/status says.
    """

    def __init__(self, pid: int, verify: Callable[[Target], None] | None = None) -> None:
        """Hold process `pid`. `verify` may refuse it (by raising) once it can no longer be exchanged.

        Raises SystemFailure when there is no such process, or when it may not be looked into (exit code 77).
        """
        self.pid = pid
        self.pidfd = self.directory = self.root = -1
        try:
            self._open()
            if verify is not None:
                verify(self)
            self._look()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            self.pidfd = process.pidfd_open(self.pid)
            procfs = _procfs()
            try:
                self.directory = os.open(str(self.pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=procfs)
            finally:
                os.close(procfs)
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.ENOENT):
                raise self._gone() from error
            if error.errno == errno.EINVAL:
                raise SystemFailure(
                    f"{self.pid} is a thread and not a process", hint="give its process' PID"
                ) from error
            raise SystemFailure.from_os_error(f"hold process {self.pid}", error) from error
        if self.has_ended():
            raise self._gone()

    def _look(self) -> None:
        try:
            self.status = self._read_status()
            self.cgroups = self.read("cgroup")
            self.flags = self._foreign_namespaces()
            self.root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.directory)
            self.limits = {number: resource.prlimit(self.pid, number) for number in _LIMITS}
            self.oom_score_adj = int(self.read("oom_score_adj"))
        except OSError as error:
            if self.has_ended() or error.errno in (errno.ESRCH, errno.ENOENT):
                raise self._gone() from error
            hint = "it takes root with CAP_SYS_ADMIN and CAP_SYS_PTRACE over it"
            raise SystemFailure.from_os_error(f"look into process {self.pid}", error, hint=hint) from error
        if self.has_ended():  # the limits were asked for by number
            raise self._gone()
        if not self.flags:
            raise UsageError(
                f"process {self.pid} is in no other namespaces than this one", hint="run the command as it is"
            )

    def read(self, name: str) -> str:
        """A file of the process' own directory. Raises SystemFailure once it has gone, OSError for what else fails."""
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
            try:
                return os.read(file, _LARGEST).decode("utf-8", "surrogateescape")
            finally:
                os.close(file)
        except OSError as error:
            # EINVAL: it is ending, and its namespaces have gone before it
            if error.errno in (errno.ESRCH, errno.EINVAL) or self.has_ended():
                raise self._gone() from error
            raise

    def _read_status(self) -> dict[str, str]:
        lines = (line.partition(":") for line in self.read("status").splitlines())
        return {name: value.strip() for name, _, value in lines}

    def _foreign_namespaces(self) -> int:
        """A namespace that the kernel does not have is nobody's. What is compared is the handles' inode and device."""
        flags = 0
        for name, flag in NAMESPACES.items():
            try:
                own = os.stat(f"/proc/self/ns/{name}")
            except FileNotFoundError:
                continue
            flags |= 0 if os.path.samestat(own, os.stat(f"ns/{name}", dir_fd=self.directory)) else flag
        return flags

    @property
    def bounding(self) -> int:
        """The capabilities that the process and its children can ever have, as a mask."""
        return int(self.status["CapBnd"], 16)

    @property
    def no_new_privileges(self) -> bool:
        """Whether no exec of the process can gain privilege (prctl(2))."""
        return self.status.get("NoNewPrivs") == "1"

    @property
    def parent(self) -> int:
        """The PID of its parent, as the caller numbers it."""
        return int(self.status["PPid"])

    def is_filtered(self) -> bool:
        """Whether it runs under more seccomp(2) filters than the caller."""
        with open("/proc/self/status", encoding="utf-8", errors="surrogateescape") as file:
            own = dict(line.split(":", 1) for line in file if line.startswith("Seccomp"))
        theirs = self.status.get("Seccomp_filters", self.status.get("Seccomp", "0"))
        return int(theirs) > int(own.get("Seccomp_filters", own.get("Seccomp", "0")))

    def has_ended(self, within: float = 0) -> bool:
        """Whether it has ended, or does so in as many seconds."""
        return bool(select.select([self.pidfd], [], [], within)[0])

    def _gone(self) -> SystemFailure:
        return SystemFailure(f"there is no process {self.pid}, or it has ended")

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        for name in ("pidfd", "directory", "root"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)


def _procfs() -> int:
    """The procfs at /proc, if it is one and shows the caller's own PID namespace."""
    try:
        procfs = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _no_procfs() from error
    try:
        check_statfs_type(procfs, PROC_SUPER_MAGIC, "/proc")
        if os.readlink("self", dir_fd=procfs) != str(os.getpid()):
            raise _no_procfs()
    except OSError as error:
        os.close(procfs)
        raise _no_procfs() from error
    except BaseException:
        os.close(procfs)
        raise
    return procfs


def _no_procfs() -> SystemFailure:
    return SystemFailure("/proc is not a procfs of this PID namespace", hint="mount one there", exit_code=EX_NOPERM)
