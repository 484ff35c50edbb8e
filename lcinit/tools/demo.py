"""`lcinit demo`: a rootless guest of this machine's own /usr, shown from inside, gone without a trace afterwards.

The guest is PID 1 of namespaces made by one clone3(2); `lcinit init` runs there with a configuration like any other.
All that is mounted is mounted in those namespaces, on tmpfs. Two things outlive a demo that is killed, and a warden
process takes care of both: the guest, which after the handoff is nobody's child, and its cgroup.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

from lcinit.boot import cgroups
from lcinit.control.initctl import runlevel_request
from lcinit.errors import EX_NOPERM, LcinitError, SystemFailure
from lcinit.linux import calls, files, mount, process, signals
from lcinit.tools import demo_guest, demo_report
from lcinit.tools.demo_container import DEADLINE, Guest
from lcinit.tools.demo_guest import Shape
from lcinit.tools.demo_terminal import relay
from lcinit.tools.id_ranges import guest_range
from lcinit.tools.initctl_client import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Never

PLACES = ("/mnt", "/media", "/srv", "/opt", "/run", "/tmp")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A signal asked the demo to end."""

    def __init__(self, signo: int) -> None:
        super().__init__(signo)
        self.signo = signo


def run(*, shell: bool = False, steps: bool = False) -> int:
    """Boot, show, power off: 0. With `shell` an interactive shell instead of the report. Raises LcinitError."""
    _open_streams()
    shape, links = _look(shell=shell)
    config = demo_guest.configuration(shape, steps=steps)
    terminal = os.openpty() if shell else None
    for number in _ENDING:
        signal.signal(number, _stop)
    # until the warden has the guest there is nobody to clean up after a signal
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    warden = Warden()
    guest: Guest | None = None
    try:
        guest = Guest(shape, links, config, warden, terminal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        if terminal is not None:
            os.close(terminal[1])
            relay(terminal[0], guest.pidfd)
            return guest.ended()
        _show(guest, shape, steps=steps)
        booted = guest.begun
        config = demo_guest.configuration(shape, stays=True)
        guest = Guest(shape, links, config, warden, command=("run",))
        _show_staying(guest)
        print(demo_report.outlook(time.monotonic() - booted))
        return 0
    except Stopped as stopped:
        print(f"\nlcinit demo: ended by {signals.signal_name(stopped.signo)}; the guest is gone", file=sys.stderr)
        return 128 + stopped.signo
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SystemFailure.from_os_error("go on with the demonstration", error) from error
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        warden.close()
        if guest is not None:
            guest.ended()


def shown_configuration(*, shell: bool = False, steps: bool = False) -> str:
    """The init.yml that `run` would use here. Raises LcinitError where it would."""
    return demo_guest.configuration(_look(shell=shell)[0], steps=steps)


def _open_streams() -> None:
    """Have 0, 1 and 2 open, so that no handle takes a number that is redirected later."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _stop(signo: int, _frame: FrameType | None) -> Never:
    raise Stopped(signo)


def _look(*, shell: bool) -> tuple[Shape, tuple[tuple[str, str], ...]]:
    """What the guest will be like on this machine."""
    if os.geteuid() != 0:
        raise SystemFailure(
            "the demonstration needs root: it makes namespaces and an id map",
            hint="run `sudo lcinit demo`; the guest itself will be rootless",
            exit_code=EX_NOPERM,
        )
    links = demo_guest.links_of_merged_usr()
    if links is None:
        raise SystemFailure(
            "this machine's /bin, /sbin or /lib is no link into /usr, so /usr alone is no guest",
            hint="run the demonstration on a distribution with a merged /usr",
        )
    users, groups = (_ids(name) for name in ("uid_map", "gid_map"))
    if users is None or groups is None:
        raise SystemFailure("this user namespace has no id beside 0 that a guest could get", hint="see lcinit doctor")
    place = _place()
    size = min(users[1], groups[1])
    disk = os.stat("/").st_dev
    shape = Shape(users=users[0], groups=groups[0], size=size, place=place, shell=shell)
    return shape.replace(shifted=_can_shift(shape), disk=(os.major(disk), os.minor(disk))), links


def _ids(name: str) -> tuple[int, int] | None:
    with open(f"/proc/self/{name}", encoding="utf-8") as file:
        return guest_range(file.read())


def _place() -> str:
    """A directory to cover with a tmpfs in the guest's mount namespace: none that lcinit itself lies in."""
    own = [os.path.realpath(path) for path in (*sys.path, sys.executable, sys.prefix, sys.base_prefix) if path]
    for place in PLACES:
        if os.path.isdir(place) and not os.path.islink(place) and not any(f"{p}/".startswith(f"{place}/") for p in own):
            return place
    raise SystemFailure(f"none of {', '.join(PLACES)} can be covered: lcinit itself lies there, or they are missing")


def _can_shift(shape: Shape) -> bool:
    """Whether /usr can be idmapped: tried on a detached copy that is closed at once."""
    from lcinit.supervisor.userns import user_namespace_with

    try:
        fd = mount.open_tree(calls.AT_FDCWD, "/usr", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
    except OSError:
        return False
    try:
        userns = user_namespace_with([(0, shape.users, shape.size)], [(0, shape.groups, shape.size)])
        try:
            mount.mount_setattr(fd, "", 0, userns_fd=userns)
        finally:
            os.close(userns)
    except (OSError, LcinitError):
        return False
    finally:
        os.close(fd)
    return True


class Warden:
    """A process in a session of its own that, once the demo has ended in whatever way, ends guest and cgroup.

    `cgroup` is a handle of the cgroup made for the guest, -1 where none can be made (no cgroup2, or read-only).
    """

    def __init__(self) -> None:
        # a PID alone is not unique: demonstrations in several PID namespaces may share a cgroup
        self.cgroup, self._parent, self._name = -1, -1, f"lcinit-demo-{os.getpid()}-{os.urandom(4).hex()}"
        path = cgroups.own_path()
        try:
            hierarchy = cgroups.open_hierarchy()
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                self._parent = files.open_in_root(hierarchy, path or "/", flags)
            finally:
                os.close(hierarchy)
        except PermissionError as error:
            hint = "see lcinit doctor"
            raise SystemFailure.from_os_error("mount anything here", error, hint=hint) from error
        except OSError:
            pass  # no cgroup2 in this kernel or container: the guest goes without
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._channel.close()
                self._watch(theirs)
            finally:
                os._exit(70)
        theirs.close()
        if self._parent >= 0:
            # only now: from the first moment on there is somebody to remove it
            try:
                os.mkdir(self._name, 0o755, dir_fd=self._parent)
                self.cgroup = os.open(self._name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._parent)
            except OSError:
                self.cgroup = -1

    def guard(self, pidfd: int) -> None:
        """Hand over the guest: it is killed when the demo ends."""
        socket.send_fds(self._channel, [b"guest"], [pidfd])

    def leave(self) -> None:
        """In the guest's process: keep nothing that would look like a living demo."""
        self._channel.close()

    def close(self) -> None:
        """End the guest if it still runs, remove the cgroup, and wait until that is done."""
        self._channel.close()
        if self.cgroup >= 0:
            os.close(self.cgroup)
        _, status = os.waitpid(self._pid, 0)
        if status:
            print(f"lcinit demo: the cgroup {self._name} could not be removed", file=sys.stderr)

    def _watch(self, channel: socket.socket) -> Never:
        os.setsid()  # the ending signals are blocked
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)  # whoever reads the demo's output must not wait for this process
        low = 3
        for fd in sorted(fd for fd in (channel.fileno(), self._parent) if fd >= low):
            os.closerange(low, fd)  # among others both ends of the shell's pty
            low = fd + 1
        process.close_range(low)
        pidfd = -1
        while True:
            data, descriptors, _, _ = socket.recv_fds(channel, 16, 1)
            if not data:
                break
            pidfd = descriptors[0]
        if pidfd >= 0:
            try:
                process.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            select.select([pidfd], [], [], DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while self._parent >= 0 and not _remove_cgroup(self._parent, self._name):
            if time.monotonic() > deadline:
                os._exit(1)
            time.sleep(0.01)  # the last process is dead, and the kernel still counts it
        os._exit(0)


def _remove_cgroup(parent: int, name: str) -> bool:
    """Remove a cgroup and those below it; false while somebody is in one of them."""
    try:
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return True
    try:
        with os.scandir(directory) as entries:
            children = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for child in children:
            _remove_cgroup(directory, child)
    finally:
        os.close(directory)
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    return True


def _show(guest: Guest, shape: Shape, *, steps: bool) -> None:
    """What happens to a guest that is handed over to, in the order in which it happens."""
    print(demo_report.introduction(shape), flush=True)
    output, errors = guest.read_until("ready\t")
    booted = time.monotonic() - guest.begun
    report = demo_report.parse(output)
    if "ready" not in report:
        said = errors[-1].removeprefix("lcinit: ").removeprefix("error: ") if errors else "it said nothing"
        raise SystemFailure(f"the guest ended before it was ready: {said}", hint="see lcinit doctor")
    print(demo_report.boot(errors, booted, steps=steps), flush=True)
    print(demo_report.seen(report), flush=True)
    print(demo_report.refused(report), flush=True)
    asked = time.monotonic()
    send([runlevel_request("0")], f"/proc/{guest.pid}/root/dev/initctl")
    _, late = guest.read_until("no line is this one")
    status = guest.ended()
    print(demo_report.ending(status, time.monotonic() - asked), flush=True)
    if status != 0:
        raise SystemFailure(f"the guest ended with status {status}", hint="; ".join(late))
    broken = demo_report.broken(report)
    if broken:
        raise SystemFailure(f"the guest could do what it must not: {', '.join(broken)}", hint="please report this")


def _show_staying(guest: Guest) -> None:
    """The same guest with a lcinit that stays outside of it: started, started again, powered off."""
    report, up = _await_ready(guest, guest.begun)
    asked = time.monotonic()
    process.pidfd_send_signal(guest.pidfd, signals.SIGRTMIN + 5)
    _, again = _await_ready(guest, asked)
    asked = time.monotonic()
    process.pidfd_send_signal(guest.pidfd, signal.SIGTERM)
    _, late = guest.read_until("no line is this one")
    status = guest.ended()
    print(demo_report.staying(report, up, again, time.monotonic() - asked, status), flush=True)
    if status != 0 or report.fact("pid") != "1" or "lcinit" in report.fact("processes"):
        raise SystemFailure(f"the guest that is stayed with ended with status {status}", hint="; ".join(late))


def _await_ready(guest: Guest, since: float) -> tuple[demo_report.Report, float]:
    output, errors = guest.read_until("ready\t")
    report = demo_report.parse(output)
    if "ready" not in report:
        said = errors[-1].removeprefix("lcinit: ") if errors else "it said nothing"
        raise SystemFailure(f"the guest ended before it was ready: {said}", hint="see lcinit doctor")
    return report, time.monotonic() - since
