"""Namespaces: making, entering and asking about them, and the proc files that hold a user namespace's id maps.

unshare(2), setns(2), clone(2), user_namespaces(7), ioctl_ns(2). Constants from linux/sched.h and linux/nsfs.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .calls import check, failure, ioctl, libc
from .files import (
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    check_statfs_type,
    openat2,
)
from .mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, new_mount
from .process import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_CHILD_SETTID = 0x01000000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

PROC_PID_INIT_INO = 0xEFFFFFFC
"""The inode number of the PID namespace that the machine started with (linux/proc_ns.h)."""

_SIGCHLD = 17
_CLONE3 = 435
_CLONE_ARGS = struct.Struct("=11Q")  # struct clone_args, CLONE_ARGS_SIZE_VER2 (Linux 5.7)
_PR_GET_TID_ADDRESS = 40

_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702
_NS_GET_NSTYPE = 0xB703
_NS_GET_OWNER_UID = 0xB704

_AF_UNIX = 1
_SOCK_DGRAM = 2
_SOL_SOCKET = 1
_SO_NETNS_COOKIE = 71

_unshare = libc.unshare
_unshare.argtypes = (ctypes.c_int,)
_setns = libc.setns
_setns.argtypes = (ctypes.c_int, ctypes.c_int)
_socket = libc.socket
_socket.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
_getsockopt = libc.getsockopt
_getsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def unshare(flags: int) -> None:
    """Leave the namespaces that CLONE_NEW* name for new ones.

    EINVAL for CLONE_NEWUSER with more than one thread; EPERM for it in a chroot.
    """
    check("unshare", _unshare(flags))


def setns(fd: int, flags: int) -> None:
    """Enter the namespace of an nsfs descriptor, or all that `flags` name of a pidfd's process."""
    check("setns", _setns(fd, flags))


def clone3(flags: int, *, cgroup_fd: int | None = None, exit_signal: int = _SIGCHLD) -> tuple[int, int]:
    """Fork into new namespaces and, with `cgroup_fd`, into a cgroup2 directory: `(pid, pidfd)`, pid 0 in the child.

    The pidfd (close-on-exec) is -1 without CLONE_PIDFD, and in the child. The interpreter's own fork hooks run as
    they do for os.fork(); what other threads hold stays held in the child, so there must be no other thread.
    """
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    tid = tid_address()
    if tid:
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    pidfd = ctypes.c_int(-1)
    arguments = ctypes.create_string_buffer(
        _CLONE_ARGS.pack(
            flags,
            ctypes.addressof(pidfd) if flags & CLONE_PIDFD else 0,
            tid,
            0,  # parent_tid
            exit_signal,
            0,  # stack: the child goes on with a copy of this one
            0,  # stack_size
            0,  # tls
            0,  # set_tid
            0,  # set_tid_size
            0 if cgroup_fd is None else cgroup_fd,
        ),
        _CLONE_ARGS.size,
    )
    before_fork, in_child, in_parent = fork_hooks()
    # Through PyDLL, which keeps the interpreter's lock: a child that had to take it back could wait for ever.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    before_fork()
    pid = call(ctypes.c_long(_CLONE3), arguments, ctypes.c_long(_CLONE_ARGS.size))
    if pid == 0:
        in_child()
        return 0, -1
    number = ctypes.get_errno()
    in_parent()
    if pid == -1:
        raise failure("clone3", number)
    return pid, pidfd.value


def tid_address() -> int:
    """Where libc keeps this thread's id, which its own fork() renews in the child; 0 where the kernel won't say."""
    address = ctypes.c_void_p()
    try:
        prctl("PR_GET_TID_ADDRESS", _PR_GET_TID_ADDRESS, ctypes.addressof(address))
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel built without CONFIG_CHECKPOINT_RESTORE
            raise
    return address.value or 0


def fork_hooks() -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer, ctypes._NamedFuncPointer]:
    """What the interpreter does before a fork, and afterwards in the child and in the parent."""
    hooks = ctypes.pythonapi
    functions = hooks.PyOS_BeforeFork, hooks.PyOS_AfterFork_Child, hooks.PyOS_AfterFork_Parent
    for function in functions:
        function.argtypes = ()
        function.restype = None
    return functions


def format_id_map(ranges: Iterable[tuple[int, int, int]]) -> bytes:
    """The text of uid_map or gid_map for `(inside, outside, size)` ranges (user_namespaces(7))."""
    return b"".join(b"%d %d %d\n" % each for each in ranges)


def open_procfs() -> int:
    """A procfs of this process' own PID namespace, mounted nowhere, so that nobody can have put a fake in its place.

    Needs CAP_SYS_ADMIN in the user namespace that owns the PID namespace. The caller closes the descriptor.
    """
    fd = new_mount("proc", {}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    try:
        check_statfs_type(fd, PROC_SUPER_MAGIC, "proc")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_proc_file(proc_dirfd: int, pid: int, name: str, flags: int) -> int:
    path = f"{pid}/{name}"
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    fd = openat2(proc_dirfd, path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0, resolve)
    try:
        check_statfs_type(fd, PROC_SUPER_MAGIC, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def write_proc_file(proc_dirfd: int, pid: int, name: str, data: bytes) -> None:
    """Write `data` with one write(2), as uid_map and its like demand. EXDEV if this is no procfs."""
    fd = _open_proc_file(proc_dirfd, pid, name, os.O_WRONLY)
    path = f"{pid}/{name}"
    try:
        written = os.write(fd, data)
    except OSError as error:
        raise failure("write", error.errno or errno.EIO, path) from error
    finally:
        os.close(fd)
    if written != len(data):
        raise failure("write", errno.EIO, path, f"{written} of {len(data)} bytes")


def read_proc_file(proc_dirfd: int, pid: int, name: str) -> bytes:
    """All of a file below a process' directory. EXDEV if this is no procfs."""
    return _read_all(_open_proc_file(proc_dirfd, pid, name, os.O_RDONLY), f"{pid}/{name}")


def read_own_proc_file(proc_dirfd: int, name: str) -> bytes:
    """All of a file of the caller's own directory, also in a procfs of another PID namespace."""
    path = f"self/{name}"
    resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    return _read_all(openat2(proc_dirfd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0, resolve), path)


def _read_all(fd: int, path: str) -> bytes:
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError as error:
        raise failure("read", error.errno or errno.EIO, path) from error
    finally:
        os.close(fd)
    return b"".join(chunks)


def in_initial_pidns(proc_dirfd: int) -> bool:
    """Whether this is the PID namespace that the machine started with. `proc_dirfd` is a procfs."""
    check_statfs_type(proc_dirfd, PROC_SUPER_MAGIC, "proc")
    return os.stat("self/ns/pid", dir_fd=proc_dirfd).st_ino == PROC_PID_INIT_INO


def ns_get_userns(fd: int) -> int:
    """A descriptor of the user namespace that owns this namespace. EPERM if it lies outside the caller's own."""
    return ioctl("NS_GET_USERNS", fd, _NS_GET_USERNS)


def ns_get_parent(fd: int) -> int:
    """A descriptor of a PID or user namespace's parent. EPERM if there is none that the caller may see."""
    return ioctl("NS_GET_PARENT", fd, _NS_GET_PARENT)


def ns_get_nstype(fd: int) -> int:
    """The CLONE_NEW* constant of a namespace."""
    return ioctl("NS_GET_NSTYPE", fd, _NS_GET_NSTYPE)


def ns_owner_uid(fd: int) -> int:
    """The uid, as the caller's user namespace sees it, of who made this user namespace."""
    uid = ctypes.c_uint32()
    ioctl("NS_GET_OWNER_UID", fd, _NS_GET_OWNER_UID, ctypes.byref(uid))
    return uid.value


def is_owned_here(proc_dirfd: int, name: str) -> bool:
    """Whether the caller's own user namespace owns its namespace `name` (a file of /proc/PID/ns), and none above does.

    `proc_dirfd` is a procfs. A kind of namespace that this kernel does not have is everybody's.
    """
    try:
        fd = os.open(f"self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_dirfd)
    except FileNotFoundError:
        return True
    try:
        owner = ns_get_userns(fd)
    except PermissionError:
        return False
    finally:
        os.close(fd)
    try:
        return os.path.samestat(os.fstat(owner), os.stat("self/ns/user", dir_fd=proc_dirfd))
    finally:
        os.close(owner)


def netns_cookie() -> int:
    """A number of this network namespace that no other one has had since the machine's boot (Linux 5.14).

    It needs no procfs and cannot be forged by a mount. It does not tell the initial namespace: that one has 1 before
    Linux 6.18, and later the number of init_ns_id or of its place in the order of boot.
    """
    fd = check("socket", _socket(_AF_UNIX, _SOCK_DGRAM | os.O_CLOEXEC, 0))
    try:
        cookie, size = ctypes.c_uint64(), ctypes.c_uint32(8)
        result = _getsockopt(fd, _SOL_SOCKET, _SO_NETNS_COOKIE, ctypes.byref(cookie), ctypes.byref(size))
        check("getsockopt SO_NETNS_COOKIE", result)
    finally:
        os.close(fd)
    return cookie.value


def in_initial_netns(proc_dirfd: int) -> bool:
    """Whether this may be the machine's first network namespace. False only where the kernel shows that it is not.

    net/core/sysctl_net_core.c registers `netdev_max_backlog` in the initial namespace alone. `proc_dirfd` is a procfs,
    as of open_procfs(), and shows the sysctls of the caller's own network namespace.
    """
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    try:
        check_statfs_type(proc_dirfd, PROC_SUPER_MAGIC, "proc")
        directory = openat2(proc_dirfd, "sys/net/core", os.O_PATH | os.O_CLOEXEC, 0, resolve)
    except OSError:
        return True  # a fake or masked procfs, or a kernel without sysctls, tells nothing
    try:
        os.close(openat2(directory, "netdev_max_backlog", os.O_PATH | os.O_CLOEXEC, 0, resolve))
    except OSError as error:
        return error.errno != errno.ENOENT
    finally:
        os.close(directory)
    return True
