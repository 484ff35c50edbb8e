"""Files that tell the guest about its container, and its resolver configuration."""

from __future__ import annotations

import os
import stat

from lcinit.boot import mounts, targets
from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.linux import mount
from lcinit.plan import steps as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from lcinit.boot.report import Report
else:
    import _socket as socket

LARGEST_RESOLV_CONF = 64 * 1024


def host_info(world: World, step: s.HostInfo) -> None:
    """/run/host where lcinit mounted the guest's /run (systemd.io/CONTAINER_INTERFACE); a read-only view of it."""
    try:
        run = targets.directory(world, "run", make=False)
    except FileNotFoundError:
        return
    try:
        if world.mounted.get("run") != os.fstat(run).st_dev:
            return
        texts = {"container-manager": step.manager}
        if step.uuid:
            texts["container-uuid"] = step.uuid
        os.mkdir("host", 0o755, dir_fd=run)
        host = os.open("host", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=run)
        try:
            for name, text in texts.items():
                _write_new(host, name, text.encode() + b"\n", world.owner)
            if step.notify and world.report is not None:
                _make_notify_socket(host, world.report)
            os.fchown(host, *world.owner)
        finally:
            os.close(host)
    finally:
        os.close(run)
    _fill_machine_id(world, step.uuid)


def _write_new(directory: int, name: str, data: bytes, owner: tuple[int, int]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(name, flags, 0o444, dir_fd=directory)
    try:
        os.write(file, data)
        os.fchown(file, *owner)
    finally:
        os.close(file)


def _make_notify_socket(host: int, report: Report) -> None:
    """The guest's $NOTIFY_SOCKET, as nspawn has it; what comes there is PID 1's to hear (sd_notify(3)).

    Anybody in the guest may write to it: the kernel tells who it was, and only the init is believed.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.bind(f"/proc/self/fd/{host}/notify")
        os.chmod("notify", 0o666, dir_fd=host)
        report.say("notify", descriptors=(listener.fileno(),))
    finally:
        listener.close()


def _fill_machine_id(world: World, uuid: str | None) -> None:
    """The container's uuid becomes the machine id of a guest that has none yet (machine-id(5))."""
    if not uuid:
        return
    try:
        with targets.AsGuestRoot(world):
            file = world.open_guest("etc/machine-id", os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return  # absent, read-only or a link: the guest's own business
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            os.write(file, uuid.replace("-", "").lower().encode() + b"\n")
    finally:
        os.close(file)


def resolv_conf(world: World, step: s.ResolvConf) -> None:
    """A copy on a small file system of its own, bound over the guest's file, so that neither side sees the other."""
    data = _read_regular(step.source)
    if data is None:
        if step.source == "/etc/resolv.conf":
            return
        raise SystemFailure(f"network.resolv_conf: {step.source} is not a readable regular file")
    try:
        target = world.open_guest("etc/resolv.conf")
    except OSError:
        return  # absent, or a link such as systemd-resolved's: the guest makes its own
    try:
        if not stat.S_ISREG(os.fstat(target).st_mode):
            return
        fd = mount.new_mount("tmpfs", {"mode": "755", "size": "64k"}, mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID)
        try:
            _write_new(fd, "resolv.conf", data, world.owner)
            clone = mounts.clone_from_new(fd, "resolv.conf")
            try:
                mounts.attach(clone, target)
            finally:
                os.close(clone)
        finally:
            os.close(fd)
    finally:
        os.close(target)


def _read_regular(path: str) -> bytes | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        return os.read(file, LARGEST_RESOLV_CONF)
    finally:
        os.close(file)
