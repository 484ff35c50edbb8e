"""Looking at the machine: everything that a plan depends on, read without changing anything."""

from __future__ import annotations

import errno
import os
import stat

from lcinit.boot import cgroups, console
from lcinit.boot.guest import identify
from lcinit.config.values import Config
from lcinit.errors import LcinitError
from lcinit.linux import capabilities, files, namespaces, process, seccomp
from lcinit.plan.facts import Console, Guest, Interface, Machine
from lcinit.plan.guest import root_of
from lcinit.plan.managers import MANAGERS, recognise

# What a kernel without the thing, or a manager that forbids to look at it, answers.
_NOT_TOLD = frozenset((errno.EPERM, errno.EACCES, errno.ENODEV, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT))
_DELEGATE = "/sys/kernel/cgroup/delegate"
# Namespaces that a file system shows: the plan's word, the file's name in /proc/PID/ns.
_OWNED = (("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("cgroup", "cgroup"))
# What the first process of a machine may have to mount itself.
_MOUNTED = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"))


def probe(children: frozenset[int] = frozenset()) -> Machine:
    """The facts of this machine and container, but for the guest. Raises OSError where they cannot be told.

    `children` are PID 1's own that will have ended before the plan runs.
    """
    procfs = _open_procfs()
    try:
        return _probe(procfs, children)
    finally:
        os.close(procfs)


def _open_procfs() -> int:
    """A procfs that needs none at /proc, where the kernel's first process finds nothing; /proc without the right."""
    try:
        return namespaces.open_procfs()
    except OSError as error:
        if error.errno not in _NOT_TOLD:
            raise
    return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _probe(procfs: int, children: frozenset[int]) -> Machine:
    environ = dict(os.environ)
    container = environ.get("container") or None
    manager = recognise(container)
    held = _capabilities()
    first = os.getpid() == 1 and namespaces.in_initial_pidns(procfs)
    return Machine(
        kernel=_kernel(),
        pid=os.getpid(),
        first=first,
        missing=tuple(fstype for fstype, place in _MOUNTED if not _is_mounted(place)),
        manager=manager,
        container=container,
        container_uuid=environ.get("container_uuid") or environ.get("LIBVIRT_LXC_UUID") or None,
        capabilities=held,
        initial_network=namespaces.in_initial_netns(procfs),
        interfaces=_interfaces(),
        console=_console(manager),
        cgroup=cgroups.look_at_own(procfs, children, first=first) if "sys_admin" in held else None,
        initramfs=_initramfs(procfs),
        no_listener=_no_listener(procfs),
        foreign=frozenset(kind for kind, name in _OWNED if not namespaces.is_owned_here(procfs, name)),
        environment=tuple(sorted(environ.items())),
        resolv_conf=_is_filled_file("/etc/resolv.conf"),
        kernel_cgroup_delegate=_delegation(),
    )


def _is_mounted(place: str) -> bool:
    """Whether anything is: what lies there in the root's own files, as device nodes of an image do, is not it."""
    try:
        return os.stat(place).st_dev != os.stat("/").st_dev
    except FileNotFoundError:
        return False


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    digits = "".join(c for c in minor if c.isdigit())
    return int(major), int(digits or 0)


def _capabilities() -> frozenset[str]:
    effective, _, _ = capabilities.get_capabilities()
    return frozenset(name for name, number in capabilities.CAPABILITIES.items() if effective >> number & 1)


def _no_listener(procfs: int) -> str:
    """Why no seccomp listener can be had here; empty where it can, which is tried only where it is not certain.

    A process without any filter can have one wherever the kernel knows of them. A filter above, as managers put on, may
    have the one listener that there can be, or refuse the call: that shows in a child, which ends with what it got.
    """
    try:
        if not seccomp.can_notify():
            return "this kernel has no seccomp user notification"
    except OSError as error:
        if error.errno not in _NOT_TOLD:
            raise
        return f"the manager does not permit seccomp(2): {os.strerror(error.errno or 0)}"
    for line in os.fsdecode(namespaces.read_own_proc_file(procfs, "status")).splitlines():
        if line.startswith("Seccomp_filters:") and int(line.partition(":")[2]) == 0:
            return ""
    pid = os.fork()
    if pid == 0:
        number = errno.EIO
        try:
            process.set_no_new_privs()
            seccomp.listen(seccomp.notify_program(seccomp.REBOOT_CALLS))
            number = 0
        except OSError as error:
            number = error.errno or number
        finally:
            os._exit(number)
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number == errno.EBUSY:
        return "the manager has a seccomp listener already, and there can be but one"
    refused = os.strerror(number) if number > 0 else "the process that tried was killed"
    return f"the manager's seccomp filter does not let it be answered: {refused}" if number else ""


def _interfaces() -> tuple[Interface, ...]:
    """All but the loopback, by sysfs where it shows this namespace and by netlink in any case.

    None where the kernel has no network or a filter refuses to tell. Raises OSError for any other failure: a guest
    that lacks its interfaces without a word is worse than one that does not start.
    """
    from lcinit.linux import netlink

    try:
        links = netlink.links()
    except OSError as error:
        if error.errno not in _NOT_TOLD:
            raise
        return ()
    return tuple(
        Interface(name=link.name, hardware=os.path.exists(f"/sys/class/net/{link.name}/device"))
        for link in links
        if not link.loopback
    )


def _console(manager: str) -> Console:
    stream = console.terminal()
    if stream is None:
        return Console(terminal=False, own=False)
    try:
        name = os.ttyname(stream)
    except OSError:
        return Console(terminal=True, own=False)
    try:
        of_this_devpts = os.stat("/dev/pts/ptmx").st_dev == os.fstat(stream).st_dev
    except OSError:
        of_this_devpts = False
    return Console(terminal=True, own=of_this_devpts and MANAGERS[manager].private_terminal, name=name)


def _initramfs(procfs: int) -> bool:
    """Whether "/" is the kernel's own rootfs, which cannot be pivoted away (Documentation: ramfs-rootfs-initramfs)."""
    handle = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        if files.statfs_type(handle) not in (files.RAMFS_MAGIC, files.TMPFS_MAGIC):
            return False
    finally:
        os.close(handle)
    for line in os.fsdecode(namespaces.read_own_proc_file(procfs, "mountinfo")).splitlines():
        fields = line.split()
        if fields[4] == "/":
            return fields[fields.index("-") + 1] == "rootfs"
    return False


def look_at_guest(config: Config, command: str) -> Guest | None:
    """What stands at the guest root now; None when there is nothing, or `setup.before` has yet to bring it."""
    if config.setup.before:
        return None
    try:
        root = os.open(root_of(config), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        resolved, kind = identify(root, command)
    except LcinitError:
        return None
    finally:
        os.close(root)
    return Guest(init=kind, resolved=resolved)


def _is_filled_file(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _delegation() -> tuple[str, ...]:
    """The files that go to the new owner with a cgroup (cgroup v2, "Delegation")."""
    try:
        with open(_DELEGATE, encoding="utf-8") as file:
            return tuple(file.read().split())
    except OSError:
        return Machine.kernel_cgroup_delegate
