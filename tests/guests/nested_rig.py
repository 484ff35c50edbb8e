"""A guest's init as PID 1 of nested user and PID namespaces, without lcinit: what it does by itself is seen here first.

To be used in the body of `run_isolated(pid=True)`: every mount is in that body's namespace, every process ends with
it. A cgroup for the guest is made by the test, outside (`cgroup_leaf`), so that it is removed whatever happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import stat
import struct
import termios
import threading
import time
from collections.abc import Iterator

from lcinit.boot.guest import identify
from lcinit.linux import calls, mount, namespaces, process
from lcinit.linux.signals import reset_signals
from lcinit.tools.mount_idmapped import Maps, mount_idmapped
from tests.lab import guests
from tests.lab.container import cgroup2_mount, kill_cgroup, remove_cgroup

FIRST, COUNT = 1_000_000, 65_536
_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_PLACE = "/mnt"
_NEW = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_PIDFD
)


class Nested:
    """A running guest: what the supervisor knows of one, and its console."""

    def __init__(self, pid: int, pidfd: int, kind: str, master: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.owner = (FIRST, FIRST)
        self.init_kind = kind
        self.root_fd = -1
        self._master = master
        self._text = bytearray()
        self._changed = threading.Condition()
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            with self._changed:
                self._text += chunk
                self._changed.notify_all()

    def console(self) -> str:
        """What the guest has printed."""
        with self._changed:
            return self._text.decode(errors="backslashreplace").replace("\r\n", "\n")

    def expect(self, text: str, timeout: float = 20) -> None:
        """Wait until the console shows `text`."""
        deadline = time.monotonic() + timeout
        while text not in (shown := self.console()):
            with self._changed:
                self._changed.wait(0.1)
            assert time.monotonic() < deadline, f"no {text!r} within {timeout} s on the console:\n{shown}"

    def entered(self, timeout: float = 10) -> None:
        """Wait until PID 1 has executed its init, and hold the guest's root from then on."""
        deadline = time.monotonic() + timeout
        own = os.stat("/proc/self/exe")
        while os.path.samestat(own, os.stat(f"/proc/{self.pid}/exe")):
            assert time.monotonic() < deadline, f"the guest does not start:\n{self.console()}"
            time.sleep(0.001)
        self.root_fd = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def ended(self, timeout: float) -> int | None:
        """How PID 1 ended within `timeout` seconds: its exit code, or minus the signal; None if it lives."""
        if not select.select([self.pidfd], [], [], timeout)[0]:
            return None
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextlib.contextmanager
def cgroup_leaf() -> Iterator[str]:
    """A cgroup that the guest owns; killed and removed at the end."""
    directory = os.path.join(cgroup2_mount(), f"lcinit-rig-{os.getpid()}")
    os.mkdir(directory)
    try:
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(os.path.join(directory, name), FIRST, FIRST)
        yield directory
    finally:
        kill_cgroup(directory)
        remove_cgroup(directory)


def start(name: str, cgroup: str, command: tuple[str, ...] | None = None) -> Nested:
    """Start guest `name` (its recipe's command, if none is given) on an overlay that is thrown away."""
    words = command or guests.RECIPES[name].command
    mount_idmapped(guests.guest(name), _PLACE, Maps(users=((0, FIRST, COUNT),), groups=((0, FIRST, COUNT),)))
    master, slave = os.openpty()
    os.fchown(slave, FIRST, FIRST)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    _overlay()
    _outer_mounts(slave)
    root = os.open(_PLACE, os.O_PATH | os.O_DIRECTORY)
    kind = identify(root, words[0])[1]
    ready, go = os.pipe2(os.O_CLOEXEC)
    leaf = os.open(cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    procfs = namespaces.open_procfs()
    pid, pidfd = namespaces.clone3(_NEW, cgroup_fd=leaf)
    if pid == 0:
        try:
            os.read(ready, 1)
            _lead(root, slave, words)
        except BaseException as error:
            os.write(2, f"rig: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(125)
    for table in ("uid_map", "gid_map"):
        namespaces.write_proc_file(procfs, pid, table, namespaces.format_id_map([(0, FIRST, COUNT)]))
    os.close(procfs)
    # the slave stays open: without any the master reads EIO, and sysvinit has none between two messages
    nested = Nested(pid, pidfd, kind, master)
    os.write(go, b"x")
    for fd in (root, leaf, ready, go):
        os.close(fd)
    nested.entered()
    return nested


def _attach(fstype: str, target: str, options: dict[str, str] | None = None, attributes: int = 0) -> None:
    made = mount.new_mount(fstype, options or {}, attributes)
    os.makedirs(target, exist_ok=True)
    mount.move_mount(made, "", calls.AT_FDCWD, target, 0)
    os.close(made)


def _overlay() -> None:
    scratch = "/run"
    _attach("tmpfs", scratch)
    for part in ("upper", "work"):
        os.mkdir(f"{scratch}/{part}", 0o755)
        os.chown(f"{scratch}/{part}", FIRST, FIRST)
    _attach("overlay", _PLACE, {"lowerdir": _PLACE, "upperdir": f"{scratch}/upper", "workdir": f"{scratch}/work"})


def _outer_mounts(slave: int) -> None:
    """A /dev with nodes, made outside: a user namespace can make none."""
    dev = f"{_PLACE}/dev"
    _attach("tmpfs", dev, {"mode": "755", "uid": str(FIRST), "gid": str(FIRST)})
    for name, major, minor in _NODES:
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"{dev}/{name}", 0o666)
        os.chown(f"{dev}/{name}", FIRST, FIRST)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{dev}/{name}")
        os.chown(f"{dev}/{name}", FIRST, FIRST)
    os.symlink("pts/ptmx", f"{dev}/ptmx")
    os.symlink("/proc/self/fd", f"{dev}/fd")
    os.close(os.open(f"{dev}/console", os.O_CREAT | os.O_WRONLY, 0o600))
    terminal = mount.open_tree(calls.AT_FDCWD, os.ttyname(slave), mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
    mount.move_mount(terminal, "", calls.AT_FDCWD, f"{dev}/console", 0)
    os.close(terminal)


def _lead(root: int, slave: int, words: tuple[str, ...]) -> None:
    """PID 1 of the guest, up to its exec."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    os.chdir(_PLACE)
    _attach("proc", "proc")
    _attach("sysfs", "sys", {}, mount.MOUNT_ATTR_RDONLY)
    _attach("cgroup2", "sys/fs/cgroup")
    _attach("tmpfs", "run", {"mode": "755"})
    _attach("mqueue", "dev/mqueue")
    _attach("devpts", "dev/pts", {"mode": "620", "ptmxmode": "666"})
    clone = mount.open_tree(
        calls.AT_FDCWD, _PLACE, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | calls.AT_RECURSIVE
    )
    mount.move_mount(clone, "", calls.AT_FDCWD, _PLACE, 0)
    os.fchdir(clone)
    mount.pivot_root(".", ".")
    mount.umount2(".", mount.MNT_DETACH)
    os.chdir("/")
    os.setsid()
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)
    process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)
    reset_signals()
    os.umask(0o022)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "container": "lab", "TERM": "dumb"}
    os.execve(words[0], words, environment)


def kill(nested: Nested) -> None:
    """End the guest, whatever it does."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(nested.pidfd, signal.SIGKILL)
