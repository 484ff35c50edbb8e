"""The process that becomes a container manager: `python3 starter.py SPECIFICATION` (a JSON file).

It works before the manager does: dies with its parent, joins its own cgroup, takes its terminal, and gives the
manager mount, PID, cgroup and network namespaces of its own, so that nothing a manager makes or forgets (mounts,
daemons, cgroups, bridges, firewall rules, state in /run) reaches the machine or survives it. It runs alone, with the
standard library only, so that the same file serves as the inner half of a container started by unshare(1), where no
manager makes /proc, /sys and /dev.

Keys for the outer half: `cgroup` (cgroup2 directory to join: the root of all that the manager sees of cgroups),
`cgroups_v1` (controller to directory: join these too and show them instead of cgroup2), `terminal` (0: standard input
becomes the controlling terminal), `tmpfs` (directories to hide), `overlay` {lower, upper, work, root}, `targets` ([path
to make, path of the same type]). For the inner half: `container` {root, binds, tmpfs, read_only, cgroup, hostname}. For
both: `environment` (the whole one) and `argv`.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import stat
import sys
import termios
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 8192, 16384, 1 << 18, 1 << 19
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x02000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, doing: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    encoded = (source.encode(), target.encode(), kind.encode() if kind else None)
    check(libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() or None), f"mount {source} at {target}")


def bind(source: str, target: str, read_only: bool) -> None:
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def make_target(path: str, source: str) -> None:
    """A directory or an empty file at `path`, as `source` is one or the other."""
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    elif not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def make_dev(dev: str) -> None:
    """The devices of a container: nodes of its own, a devpts of its own, the caller's terminal as console."""
    mount("dev", dev, "tmpfs", MS_NOSUID, "mode=755")
    mask = os.umask(0)
    for name, major, minor in (
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    ):  # fmt: skip
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.umask(mask)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{dev}/{name}")
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("shm", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("mqueue", f"{dev}/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")):
        os.symlink(target, f"{dev}/{name}")
    os.symlink("/proc/self/fd/1", f"{dev}/stdout")
    os.symlink("/proc/self/fd/2", f"{dev}/stderr")
    if os.isatty(0):
        make_target(f"{dev}/console", "/dev/null")
        mount(os.ttyname(0), f"{dev}/console", None, MS_BIND)


def enter_container(container: dict[str, Any]) -> None:
    """What a minimal manager does between its namespaces and /sbin/init. The caller made all but the cgroup one."""
    root = container["root"]
    if container.get("cgroup"):
        os.makedirs(container["cgroup"], exist_ok=True)
        with open(f"{container['cgroup']}/cgroup.procs", "w") as procs:
            procs.write("0")  # whoever writes: no process id of this PID namespace means anything outside
        check(libc.unshare(CLONE_NEWCGROUP), "unshare the cgroup namespace")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND | MS_REC)
    for source, target, read_only in container.get("binds", ()):
        bind(source, root + target, read_only)
    for target in container.get("tmpfs", ()):
        mount("tmpfs", root + target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", f"{root}/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if container.get("cgroup"):
        mount("cgroup2", f"{root}/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    make_dev(f"{root}/dev")
    if container.get("hostname"):
        name = container["hostname"].encode()
        check(libc.sethostname(name, ctypes.c_size_t(len(name))), "set the host name")
    if container.get("read_only"):
        mount("none", root, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    os.chdir(root)
    check(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "detach the old root")
    os.chdir("/")


def die_with_parent() -> None:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")


def exit_as(status: int) -> None:
    """End as a shell tells of a child: its status, or 128 + the signal."""
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def stage(spec: dict[str, Any]) -> None:
    """Everything outside the container: see the module's text. Returns in the process that becomes the manager."""
    die_with_parent()
    hierarchies = spec.get("cgroups_v1", {})
    for directory in (spec["cgroup"], *hierarchies.values()):
        with open(f"{directory}/cgroup.procs", "w") as procs:
            procs.write("0")
    if "terminal" in spec:
        fcntl.ioctl(spec["terminal"], termios.TIOCSCTTY, 0)
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWPID | CLONE_NEWNET), "unshare")
    first = os.fork()
    if first:
        exit_as(os.waitpid(first, 0)[1])
    # PID 1 of the stage. Managers read /proc/1/cgroup to learn the root of the hierarchy: it must be inside too.
    die_with_parent()
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    check(libc.umount2(b"/sys/fs/cgroup", MNT_DETACH), "unmount /sys/fs/cgroup")
    if hierarchies:
        mount("tmpfs", "/sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        for name in hierarchies:
            os.mkdir(f"/sys/fs/cgroup/{name}")
            mount("cgroup", f"/sys/fs/cgroup/{name}", "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, name)
    else:
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for target in spec.get("tmpfs", ()):
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    overlay = spec.get("overlay")
    if overlay:
        options = f"lowerdir={overlay['lower']},upperdir={overlay['upper']},workdir={overlay['work']}"
        mount("overlay", overlay["root"], "overlay", 0, options)
    for path, like in spec.get("targets", ()):
        make_target(path, like)
    manager = os.fork()
    while manager:
        pid, status = os.wait()
        if pid == manager:
            exit_as(status)  # and whatever is left in this PID namespace dies


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    if "container" in spec:
        enter_container(spec["container"])
    else:
        stage(spec)
    # Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so across exec: no manager starts init that way.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(spec["argv"][0], spec["argv"], spec["environment"])


if __name__ == "__main__":
    main()
