"""What has to be tried to be known: each trial is a forked child that does one thing in namespaces of its own and ends.

Nothing is attached anywhere but in such a child's private mount namespace, which ends with it.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat

from lcinit.errors import LcinitError
from lcinit.linux import calls, files, mount, namespaces, process, seccomp
from lcinit.record import Record
from lcinit.supervisor.userns import user_namespace_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    Action = Callable[[], object]

PATIENCE = 10.0  # seconds for one trial
_PIDFD_GETFD = 438
_GUEST = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWCGROUP
)


class Trial(Record):
    """What came of one trial: `number` is errno (0: it works, or failed without one), `error` the cause in words."""

    name: str
    number: int = 0
    error: str = ""

    @property
    def works(self) -> bool:
        """Whether it did."""
        return not self.error


class Ids(Record):
    """Outer ids that a guest could get: `size` of them from `users` and `groups` on."""

    users: int
    groups: int
    size: int

    def namespace(self) -> int:
        """A descriptor of a user namespace with them. Raises SystemFailure."""
        return user_namespace_with([(0, self.users, self.size)], [(0, self.groups, self.size)])


def attempt(name: str, action: Action) -> Trial:
    """Run `action` in a forked child that is killed after PATIENCE seconds; an exception of its is the outcome."""
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _perform(action, writer, parent)
    os.close(writer)
    said = b""
    try:
        while select.select([reader], [], [], PATIENCE)[0]:
            received = os.read(reader, 4096)
            if not received:
                break
            said += received
        else:
            os.kill(pid, signal.SIGKILL)
            said = f"{errno.ETIMEDOUT}\0no answer within {PATIENCE:.0f} s".encode()
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and not said:
        return Trial(name=name, error=f"ended by signal {os.WTERMSIG(status)} (a seccomp filter does that)")
    number, _, text = said.decode(errors="replace").partition("\0")
    return Trial(name=name, number=int(number or 0), error=text if said else "the trial ended without an answer")


def _perform(action: Action, writer: int, parent: int) -> Never:
    try:
        process.set_pdeathsig(signal.SIGKILL)
        if os.getppid() in (parent, 0):  # 0: the first process of a new PID namespace does not see it
            try:
                action()
                answer = "0\0"
            except OSError as error:
                answer = f"{error.errno or 0}\0{error.strerror or error}"
            except LcinitError as error:
                cause = error.__cause__
                answer = f"{cause.errno or 0 if isinstance(cause, OSError) else 0}\0{error.message}"
            os.write(writer, answer.encode(errors="replace"))
    finally:
        os._exit(0)


def try_all(ids: Ids | None, guest_root: str | None) -> tuple[Trial, ...]:
    """Every trial, in the order of the report. Without `ids` those of a guest's id map are left out."""
    trials = [
        attempt("mount-namespace", _private),
        attempt("user-namespace", lambda: namespaces.unshare(namespaces.CLONE_NEWUSER)),
        attempt("namespaces", lambda: namespaces.unshare(_GUEST)),
        attempt("setns", _return_to_namespace),
        attempt("clone3", _clone),
        attempt("openat2", _open_beneath),
        attempt("close_range", lambda: process.close_range(1000)),
        attempt("pivot_root", _pivot),
        attempt("mknod", _make_node),
    ]
    trials += [attempt(f"{fstype}-outside", _mounting(fstype)) for fstype in ("proc", "tmpfs")]
    trials.append(attempt("overlay", _overlay))
    if ids is not None:
        known = ids
        trials.append(attempt("id-map", known.namespace))
        for fstype in ("sysfs", "devpts", "mqueue", "cgroup2"):
            trials.append(attempt(f"{fstype}-inside", lambda fstype=fstype: _inside(known, _mounting(fstype))))  # type: ignore[misc]
        trials.append(attempt("proc-inside", lambda: _inside(known, _nested_proc)))
        trials.append(attempt("idmap-boot-root", lambda: _shift(known, "/")))
        if guest_root is not None:
            trials.append(attempt("idmap-guest-root", lambda: _shift(known, guest_root)))
    trials += [
        attempt("seccomp-notify", _listen),
        attempt("keyctl", process.join_session_keyring),
        attempt("pidfd_getfd", _take_descriptor),
    ]
    return tuple(trials)


def _private() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.make_slave("/")
    mount.make_private("/")


def _mounting(fstype: str) -> Action:
    def create() -> None:
        os.close(mount.new_mount(fstype, {}, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC))

    return create


def _return_to_namespace() -> None:
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    namespaces.setns(home, namespaces.CLONE_NEWNET)


def _clone() -> None:
    pid, _ = namespaces.clone3(namespaces.CLONE_NEWPID | namespaces.CLONE_PIDFD)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _open_beneath() -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(files.open_in_root(root, "proc"))


def _pivot() -> None:
    """As boot.root does it: a copy of the tree is put on top of it and becomes the root."""
    _private()
    flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | calls.AT_RECURSIVE
    clone = mount.open_tree(calls.AT_FDCWD, "/", flags)
    mount.move_mount(clone, "", calls.AT_FDCWD, "/", 0)
    os.fchdir(clone)
    mount.pivot_root(".", ".")
    mount.umount2(".", mount.MNT_DETACH)


def _make_node() -> None:
    """On a tmpfs that is attached nowhere; the device cgroup may refuse to make it, or to open it."""
    directory = mount.new_mount("tmpfs")
    os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(1, 3), dir_fd=directory)
    os.close(os.open("null", os.O_RDWR | os.O_CLOEXEC, dir_fd=directory))


def _overlay() -> None:
    """An empty overlay whose layers lie on a tmpfs. It needs paths, so the tmpfs covers / in a private namespace."""
    _private()
    layers = mount.new_mount("tmpfs")
    mount.move_mount(layers, "", calls.AT_FDCWD, "/proc", 0)
    for name in ("lower", "upper", "work"):
        os.mkdir(f"/proc/{name}")
    options = {"lowerdir": "/proc/lower", "upperdir": "/proc/upper", "workdir": "/proc/work"}
    os.close(mount.new_mount("overlay", options))


def _inside(ids: Ids, action: Action) -> None:
    """What a guest's init may do: as root of a new user namespace, with namespaces of its own."""
    _private()
    aside = mount.new_mount("sysfs")
    if os.path.isdir("/sys"):
        mount.move_mount(aside, "", calls.AT_FDCWD, "/sys", 0)
    namespaces.setns(ids.namespace(), namespaces.CLONE_NEWUSER)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    namespaces.unshare(_GUEST)
    action()


def _nested_proc() -> None:
    """proc of a new PID namespace: it is its first process that mounts it."""
    namespaces.unshare(namespaces.CLONE_NEWPID)
    trial = attempt("proc", _mounting("proc"))
    if not trial.works:
        raise OSError(trial.number, trial.error)


def _shift(ids: Ids, path: str) -> None:
    clone = mount.open_tree(calls.AT_FDCWD, path, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
    mount.mount_setattr(clone, "", 0, userns_fd=ids.namespace())


def _listen() -> None:
    """As the guest's PID 1 does, but without the capability that it has in its user namespace."""
    process.set_no_new_privs()
    os.close(seccomp.listen(seccomp.notify_program(seccomp.REBOOT_CALLS)))


def _take_descriptor() -> None:
    reader, _ = os.pipe()
    own = process.pidfd_open(os.getpid())
    calls.syscall("pidfd_getfd", _PIDFD_GETFD, own, reader, 0)
