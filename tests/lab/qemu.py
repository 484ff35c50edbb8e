"""Machines of their own: QEMU with Debian's kernel, which is older than a development machine's, and no manager.

The kernel comes from its Debian package, unpacked in the lab's cache. What it boots is an initramfs (initramfs buffer
format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux) and, if asked for, disks. Nothing of this
machine is used but memory and processor time: no network, no device, no mount.
"""

from __future__ import annotations

import os
import platform
import pty
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, Self

from tests.lab.cache import cached, stamp_of
from tests.lab.container import Container

PACKAGE = "linux-image-cloud-amd64"
PROGRAM = "qemu-system-x86_64"
RECIPE_VERSION = 1

# What Debian builds as modules and a machine with a disk, or a guest with an overlay, needs: in the order of loading.
MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "fs/overlayfs/overlay",
)

# Of a boot root: most of its size, and nothing that lcinit or a test runs.
UNPACKED_NOT = ("usr/share", "usr/src", "usr/games", "usr/include", "usr/lib/x86_64-linux-gnu/gconv", "var/lib/dpkg")


def usable() -> str:
    """Empty where these tests can run, else what is missing."""
    if platform.machine() != "x86_64":
        return "the kernel and the machine are x86-64's"
    return "" if shutil.which(PROGRAM) else f"{PROGRAM} is not installed; tests/lab/install installs it"


def kernel() -> str:
    """A directory with `vmlinuz`, its `release` and the MODULES, from Debian's package of today."""
    return cached("kernel", stamp_of(RECIPE_VERSION, PACKAGE, MODULES), _unpack_kernel)


def release() -> str:
    """The kernel's version, as uname(2) has it."""
    with open(os.path.join(kernel(), "release"), encoding="utf-8") as file:
        return file.read().strip()


def _unpack_kernel(directory: str) -> None:
    depends = _run(["apt-cache", "depends", "--important", PACKAGE])
    package = next(line.split()[-1] for line in depends.splitlines() if "linux-image-" in line.partition(":")[2])
    with tempfile.TemporaryDirectory(prefix="lcinit-kernel-") as work:
        os.chmod(work, 0o777)  # apt downloads as a user of its own
        _run(["apt-get", "download", "--quiet", package], cwd=work)
        (archive,) = os.listdir(work)
        unpacked = os.path.join(work, "unpacked")
        _run(["dpkg-deb", "--extract", archive, unpacked], cwd=work)
        version = package.removeprefix("linux-image-")
        shutil.copy(os.path.join(unpacked, "boot", f"vmlinuz-{version}"), os.path.join(directory, "vmlinuz"))
        for module in MODULES:
            source = os.path.join(unpacked, "lib/modules", version, "kernel", f"{module}.ko")
            shutil.copy(source, os.path.join(directory, f"{os.path.basename(module)}.ko"))
        with open(os.path.join(directory, "release"), "w", encoding="utf-8") as file:
            file.write(f"{version}\n")


def _run(command: list[str], cwd: str | None = None) -> str:
    """What a command printed; RuntimeError with all of it when it failed."""
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


class Archive:
    """An initramfs that is being written: cpio entries of the "newc" form, owned by root but for those of a tree."""

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - open until close()
        self._inode = 0
        self._names: set[str] = set()
        self.path = path

    def add(self, name: str, mode: int, data: bytes = b"", *, owner: tuple[int, int] = (0, 0), device: int = 0) -> None:
        """One entry with its parents. A name that is there already is replaced by the kernel when it unpacks."""
        parent = os.path.dirname(name)
        if parent and parent not in self._names:
            self.add(parent, stat.S_IFDIR | 0o755)
        self._names.add(name)
        self._inode += 1
        numbers = (os.major(device), os.minor(device))
        fields = (self._inode, mode, *owner, 1, 0, len(data), 0, 0, *numbers, len(name.encode()) + 1, 0)
        head = "070701" + "".join(f"{field:08x}" for field in fields)
        self._put(head.encode() + name.encode() + b"\0")
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._file.write(data + b"\0" * (-len(data) % 4))

    def file(self, name: str, text: str, mode: int = 0o644) -> None:
        """A regular file."""
        self.add(name, stat.S_IFREG | mode, text.encode())

    def link(self, name: str, to: str) -> None:
        """A symbolic link."""
        self.add(name, stat.S_IFLNK | 0o777, to.encode())

    def tree(self, source: str, place: str = "", *, without: Iterable[str] = ()) -> None:
        """All below the directory `source` at `place`, with owners and modes; hard links become files of their own."""
        omitted = set(without)
        for parent, directories, files in os.walk(source):
            directories[:] = sorted(d for d in directories if _below(source, parent, d) not in omitted)
            for name in [*directories, *sorted(files)]:
                path = os.path.join(parent, name)
                entry = os.lstat(path)
                if stat.S_ISLNK(entry.st_mode):
                    data = os.readlink(path).encode()
                elif stat.S_ISREG(entry.st_mode):
                    with open(path, "rb") as file:
                        data = file.read()
                else:
                    data = b""
                target = os.path.join(place, _below(source, parent, name))
                self.add(target, entry.st_mode, data, owner=(entry.st_uid, entry.st_gid), device=entry.st_rdev)

    def modules(self) -> None:
        """The MODULES in /lib/modules, and /usr/sbin/load-modules (sh), which loads those that it is given."""
        for module in MODULES:
            name = f"{os.path.basename(module)}.ko"
            with open(os.path.join(kernel(), name), "rb") as file:
                self.add(f"usr/lib/modules/{name}", stat.S_IFREG | 0o644, file.read())
        text = '#!/bin/sh\nset -e\nfor each; do insmod "/usr/lib/modules/$each.ko"; done\n'
        self.file("usr/sbin/load-modules", text, 0o755)

    def close(self) -> str:
        """End the archive; its path."""
        self.add("TRAILER!!!", 0)
        self._file.close()
        return self.path


def _below(top: str, parent: str, name: str) -> str:
    return os.path.relpath(os.path.join(parent, name), top)


def disk(path: str, directory: str, megabytes: int) -> str:
    """A file system image `path` (ext4) with the contents of `directory`, made without mounting anything."""
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    _run(["mke2fs", "-q", "-t", "ext4", "-d", directory, path])
    return path


class Qemu(Container):
    """One machine, emulated; its console is a serial line. It ends when it powers off, and instead of restarting."""

    manager = "qemu"

    def initramfs(self) -> Archive:
        """An empty archive among this machine's files."""
        return Archive(os.path.join(self.directory, "initramfs"))

    def boot(
        self, initramfs: str, *, words: str = "", disks: Iterable[str] = (), network: bool = False, memory: int = 512
    ) -> Self:
        """Start the kernel with `words` on its command line; `memory` in MiB.

        Disks are /dev/vda and up once virtio_blk is loaded, writable without the file being changed. With `network`
        there is a card that leads nowhere.
        """
        command = [PROGRAM, "-accel", "tcg", "-m", str(memory), "-nographic", "-no-reboot", "-nodefaults"]
        command += ["-serial", "mon:stdio", "-kernel", os.path.join(kernel(), "vmlinuz"), "-initrd", initramfs]
        for image in disks:
            command += ["-drive", f"file={image},if=virtio,format=raw,snapshot=on"]
        if network:
            command += ["-netdev", "hubport,id=nowhere,hubid=0", "-device", "virtio-net-pci,netdev=nowhere,romfile="]
        command += ["-append", f"console=ttyS0 quiet panic=-1 {words}".strip()]
        self._console_fd, inner = pty.openpty()
        self.process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
        os.close(inner)
        self.read_console(self._console_fd)
        return self
