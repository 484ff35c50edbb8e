"""The cgroup of each service, below the one that lcinit has for its guest (cgroup v2); and doing without.

Where there is no hierarchy that may be written to, a service has none: its processes are then known by their session
and by whose children they are, see `tracking`.
"""

from __future__ import annotations

import os

from lcinit import log
from lcinit.boot import cgroup_control
from lcinit.boot.cgroup_tree import DIRECTORY, read, removal, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.service_values import CgroupLimits

LEAF = "init.scope"
SUFFIX = ".service"
PERIOD = 100_000  # microseconds of cpu.max
_FILES = {
    "memory_max": ("memory", "memory.max"),
    "memory_high": ("memory", "memory.high"),
    "cpu_max": ("cpu", "cpu.max"),
    "cpu_weight": ("cpu", "cpu.weight"),
    "pids_max": ("pids", "pids.max"),
}


class Cgroups:
    """The services' cgroups below `top`, a directory of which this object is the owner from then on; -1 for none."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._controllers: frozenset[str] | None = None  # that were enabled; None before the first limit
        self._directories: dict[str, int] = {}
        self._entries: dict[str, str] = {}  # of each service, and of those before it that could not be removed
        self._killed: set[str] = set()
        self._new: set[str] = set()  # whose cgroup was made since `take_new`
        self._number = 0
        self._limited: dict[str, CgroupLimits] = {}
        self._told: set[str] = set()

    @property
    def there(self) -> bool:
        """Whether services have cgroups of their own."""
        return self._top >= 0

    def prepare(self) -> None:
        """See that cgroups can be made. Without success there are none, and the log says so."""
        if self._top < 0:
            return
        try:
            os.close(self._open(LEAF)[0])
        except OSError as error:
            log.warning(f"services have no cgroups of their own: {error.strerror}")
            self.close()

    def _make_room(self) -> None:
        """Put lcinit's own processes into a leaf: beside enabled controllers no process may stay. Only then, for the
        kernel takes some ten milliseconds for it.
        """
        leaf, _ = self._open(LEAF)
        try:
            while pids := read(self._top, "cgroup.procs").split():
                for pid in pids:
                    _move(leaf, pid)
                if pids == [b"0"] * len(pids):
                    break  # of an outer PID namespace: not ours to move
        finally:
            os.close(leaf)

    def _enable(self) -> frozenset[str]:
        """The controllers that are there, for the services' cgroups."""
        enabled = set()
        try:
            self._make_room()
        except OSError as error:
            log.warning(f"services have no cgroup controllers: {error.strerror}")
            return frozenset()
        for name in read(self._top, "cgroup.controllers").decode("ascii").split():
            try:
                write(self._top, "cgroup.subtree_control", f"+{name}".encode())
                enabled.add(name)
            except OSError as error:
                log.warning(f"services have no cgroup controller {name}: {error.strerror}")
        return frozenset(enabled)

    def make(self, name: str, limits: CgroupLimits) -> int:
        """The directory of a service's cgroup, made where it is missing, with its limits; -1 for none."""
        if self._top < 0:
            self._tell_limits(name, limits)
            return -1
        if name in self._killed:
            self._replace(name)
        directory = self._directories.get(name, -1)
        if directory < 0:
            entry = name + SUFFIX
            if entry in self._entries:  # that one has not become empty yet
                self._number += 1
                entry = f"{name}.{self._number}{SUFFIX}"
            try:
                directory, new = self._open(entry)
            except OSError as error:
                log.warning(f"{name} has no cgroup of its own: {error.strerror}")
                return -1
            self._directories[name] = directory
            if new:
                self._new.add(name)
            self._entries[entry] = name
        self.limit(name, limits)
        return directory

    def _replace(self, name: str) -> None:
        """Have another one for it the next time. Linux 6.14 and later kill whom clone3(2) puts into a cgroup that was
        killed once: the sequence number that they compare is that of the parent's cgroup.
        """
        self._killed.discard(name)
        self._new.discard(name)
        if not self.remove(name):
            os.close(self._directories.pop(name))
            self._limited.pop(name, None)

    def _open(self, entry: str) -> tuple[int, bool]:
        """A handle of a cgroup below, and whether it was made for that."""
        try:
            os.mkdir(entry, 0o755, dir_fd=self._top)
            new = True
        except FileExistsError:
            new = False
        return os.open(entry, DIRECTORY, dir_fd=self._top), new

    def limit(self, name: str, limits: CgroupLimits) -> None:
        """Set a service's limits; one that cannot be had is said once, and does not keep it from running."""
        directory = self._directories.get(name, -1)
        if directory < 0:
            self._tell_limits(name, limits)
            return
        given, before = limits.values(), self._limited.get(name)
        if self._controllers is None:
            if all(value is None for value in given.values()):
                return
            self._controllers = self._enable()
        for key, (controller, file) in _FILES.items():
            if given[key] == (None if before is None else getattr(before, key)):
                continue
            if controller not in self._controllers:
                if given[key] is not None:
                    self._tell(name, key, f"this container has no cgroup controller {controller}")
                continue
            try:
                write(directory, file, _text(key, given[key]))
            except OSError as error:
                self._tell(name, key, error.strerror or str(error))
        self._limited[name] = limits

    def _tell_limits(self, name: str, limits: CgroupLimits) -> None:
        for key, value in limits.values().items():
            if value is not None:
                self._tell(name, key, "it has no cgroup of its own here")

    def _tell(self, name: str, key: str, why: str) -> None:
        if f"{name}.{key}" not in self._told:
            self._told.add(f"{name}.{key}")
            log.warning(f"{name} runs without cgroup.{key}: {why}")

    def take_new(self, name: str) -> bool:
        """Whether its cgroup was made since this was asked last."""
        new = name in self._new
        self._new.discard(name)
        return new

    def directory(self, name: str) -> int:
        """The directory of a service's cgroup, -1 for none."""
        return self._directories.get(name, -1)

    def service_of(self, path: str) -> str | None:
        """Which service a path of /proc/PID/cgroup belongs to, by its components."""
        for part in path.split("/"):
            if part in self._entries:
                return self._entries[part]
        return None

    def populated(self, name: str) -> bool:
        """Whether anybody lives there."""
        return bool(cgroup_control.events(self._directories.get(name, -1)).get("populated", 0))

    def was_killed(self, name: str) -> bool:
        """Whether nobody can be born there any more: `make` has another one."""
        return name in self._killed

    def emptying(self, name: str) -> bool:
        """Whether those that were killed there have not all ended yet. What cannot be read is not waited for."""
        try:
            return name in self._killed and self.populated(name)
        except OSError as error:
            log.debug(f"nobody knows whether the cgroup of {name} is empty: {error.strerror}")
            return False

    def killed(self) -> frozenset[str]:
        """The services whose cgroup was killed, and is theirs still."""
        return frozenset(self._killed)

    def kill(self, name: str) -> bool:
        """SIGKILL to all who live there; false where that cannot be."""
        directory = self._directories.get(name, -1)
        if directory < 0:
            return False
        try:
            if not self.populated(name):
                return True
            self._killed.add(name)
            return cgroup_control.kill(directory)
        except OSError as error:
            log.warning(f"the cgroup of {name} cannot be killed: {error.strerror}")
            return False

    def remove(self, name: str) -> bool:
        """Remove all that it had, and those below, as far as nobody lives there; returns whether all are gone."""
        gone = True
        for entry in [entry for entry, owner in self._entries.items() if owner == name]:
            if self._remove_entry(entry):
                del self._entries[entry]
            else:
                gone = False
        if gone and name in self._directories:
            os.close(self._directories.pop(name))
            self._limited.pop(name, None)
            self._killed.discard(name)
            self._new.discard(name)
        return gone

    def _remove_entry(self, entry: str) -> bool:
        try:
            directory = os.open(entry, DIRECTORY, dir_fd=self._top)
            try:
                for _ in removal(directory):
                    pass
            finally:
                os.close(directory)
            os.rmdir(entry, dir_fd=self._top)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of all, and leave nothing behind that is empty by now: who was killed has not ended at once."""
        for name in set(self._entries.values()):
            self.remove(name)
        if self._top >= 0:
            self._remove_entry(LEAF)
        for directory in (*self._directories.values(), self._top):
            if directory >= 0:
                os.close(directory)
        self._directories.clear()
        self._top = -1


def _move(leaf: int, pid: bytes) -> None:
    try:
        write(leaf, "cgroup.procs", pid)
    except ProcessLookupError:
        pass  # it has ended meanwhile


def _text(key: str, value: int | None) -> bytes:
    if key == "cpu_max":
        return b"max %d" % PERIOD if value is None else b"%d %d" % (value * PERIOD // 100, PERIOD)
    if key == "cpu_weight":
        return b"%d" % (100 if value is None else value)
    return b"max" if value is None else b"%d" % value
