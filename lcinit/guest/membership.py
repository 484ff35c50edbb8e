"""Joining the control groups of a process, so that its guest's limits and its guest's end hold for who enters it.

cgroups(7); the kernel's cgroup-v2, "Organizing Processes and Threads".
"""

from __future__ import annotations

import errno
import os

from lcinit import log
from lcinit.boot import cgroup_control as cgroup
from lcinit.boot.cgroups import open_hierarchy
from lcinit.errors import SystemFailure
from lcinit.linux import files
from lcinit.linux.mountinfo import MountInfo

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_UNREACHABLE = "/.."  # how the kernel shows what lies outside of the reader's cgroup namespace


class Memberships:
    """The `cgroup.procs` of each cgroup that a process is in and the caller is not.

    Opened by the caller, because the kernel judges a move by the credentials with which the file was opened.
    """

    def __init__(self, cgroups: str, *, running: bool = True) -> None:
        """`cgroups` is the process' /proc/PID/cgroup. Raises SystemFailure if it cannot be joined.

        `running`: and if it is frozen.
        """
        self._running = running
        self._procs: list[tuple[int, str]] = []
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            own = set(file.read().splitlines())
        try:
            for line in cgroups.splitlines():
                if line in own:
                    continue
                number, _, rest = line.partition(":")
                controllers, _, path = rest.partition(":")
                if number == "0":
                    self._open_v2(path)
                else:
                    self._open_v1(controllers, path)
        except BaseException:
            self.close()
            raise

    def _open_v2(self, path: str) -> None:
        try:
            directory = open_cgroup(path)
        except OSError as error:
            raise SystemFailure.from_os_error(f"open the guest's cgroup {path}", error) from error
        try:
            if self._running and cgroup.events(directory).get("frozen"):
                raise frozen()
            self._procs.append((_open_procs(directory), path))
        finally:
            os.close(directory)

    def _open_v1(self, controllers: str, path: str) -> None:
        """A v1 hierarchy can be reached only where it is mounted; where it is not, its limits do not come along."""
        for mounted in _mounts_of(controllers):
            relative = os.path.relpath(path, mounted.root)
            if relative.startswith("..") or _UNREACHABLE in path:
                continue
            try:
                directory = os.open(os.path.join(mounted.mount_point, relative), _DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                self._procs.append((_open_procs(directory), f"{controllers}:{path}"))
            finally:
                os.close(directory)
            return
        log.warning(f"the limits of the guest's cgroup {controllers}:{path} do not hold: its hierarchy is not mounted")

    def join(self, pid: int = 0) -> None:
        """Move a process there; 0 is this one."""
        for procs, path in self._procs:
            try:
                os.write(procs, str(pid).encode("ascii"))
            except OSError as error:
                raise SystemFailure.from_os_error(f"enter the guest's cgroup {path}", error) from error

    def close(self) -> None:
        """Close what was opened."""
        while self._procs:
            os.close(self._procs.pop()[0])

    def descriptors(self) -> list[int]:
        """What has to stay open until the move."""
        return [procs for procs, _ in self._procs]


def open_cgroup(path: str) -> int:
    """A handle of a cgroup2 directory by its path in the caller's cgroup namespace. OSError; ENOENT outside of it."""
    if path.startswith(_UNREACHABLE):
        raise FileNotFoundError(errno.ENOENT, "it lies outside of this cgroup namespace", path)
    hierarchy = open_hierarchy()
    try:
        return files.open_in_root(hierarchy, path, _DIRECTORY)
    finally:
        os.close(hierarchy)


def frozen() -> SystemFailure:
    """The error for a guest that somebody has stopped."""
    return SystemFailure("the guest is frozen: what enters it would not run", hint="thaw it first")


def _open_procs(directory: int) -> int:
    try:
        return os.open("cgroup.procs", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise SystemFailure.from_os_error("open the guest's cgroup.procs", error) from error


def _mounts_of(controllers: str) -> list[MountInfo]:
    wanted = set(controllers.split(","))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [MountInfo(line.rstrip("\n")) for line in file]
    return [each for each in mounts if each.fstype == "cgroup" and wanted <= set(each.super_options.split(","))]
