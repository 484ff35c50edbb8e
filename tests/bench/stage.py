"""Where the benchmarks run, and the programs that they compare."""

from __future__ import annotations

import os

from lcinit.linux import calls, mount, namespaces
from tests.bench.runs import Peer
from tests.lab.cache import cache_directory

CGROUP = "/sys/fs/cgroup"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = "/usr/bin/python3"
ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8"}
CONTAINER = (
    namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)


class Stage:
    """Private mounts and a cgroup2 of its own for this process; `directory` is for files, `boot_root` has lcinit."""

    def __init__(self, directory: str, boot_root: str) -> None:
        self.directory = directory
        self._boot_root = boot_root
        self._unpacked = False
        self.site = os.path.join(boot_root, "usr/lib/lcinit/site")
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
        mount.make_private("/")
        for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"), ("cgroup2", CGROUP)):
            fd = mount.new_mount(kind, {})
            mount.move_mount(fd, "", calls.AT_FDCWD, target, mount.MOVE_MOUNT_F_EMPTY_PATH)
            os.close(fd)
        # lxc-start has newuidmap(1) write its map, which asks these files; only here do they say more than the
        # machine's
        allowed = self.write("subid", "root:1000000:65536\n")
        for path in ("/etc/subuid", "/etc/subgid"):
            clone = mount.open_tree(calls.AT_FDCWD, allowed, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
            mount.move_mount(clone, "", calls.AT_FDCWD, path, mount.MOVE_MOUNT_F_EMPTY_PATH)
            os.close(clone)

    def unpack(self, directory: str) -> None:
        """Lay the boot root and packages that were unpacked there over /usr, once.

        Some packages know their programs by absolute paths; and memory that is shared with the machine's own programs,
        of which this harness may be one, would be counted as less than it is.
        """
        if self._unpacked:
            return
        self._unpacked = True
        lower = [os.path.join(each, "usr") for each in (directory, self._boot_root, "/")]
        fd = mount.new_mount("overlay", {"lowerdir": ":".join(filter(os.path.isdir, lower))})
        mount.move_mount(fd, "", calls.AT_FDCWD, "/usr", mount.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(fd)

    def write(self, name: str, text: str) -> str:
        """A file of this run; its path."""
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def lcinit(self, name: str, config: str, *, proc: bool = False) -> Peer:
        """lcinit as PID 1 of a container, with this configuration."""
        path = self.write(f"{len(os.listdir(self.directory))}.yml", config)
        start = (
            f"import sys; sys.path.append({self.site!r}); from lcinit.cli.main import main; sys.exit(main(sys.argv))"
        )
        command = [PYTHON, "-I", "-S", "-c", start, "init", "--config", path]
        return Peer(name, command, ENVIRONMENT, flags=CONTAINER, proc=proc)

    def small_inits(
        self, command: list[str], names: tuple[str, ...] = ("tini", "dumb-init", "catatonit")
    ) -> list[Peer]:
        """The inits of containers that the cache has, as PID 1 with this one child."""
        directory = os.path.join(cache_directory(), "inits", "usr", "bin")
        return [
            Peer(name, [os.path.join(directory, name), "--", *command], ENVIRONMENT, flags=CONTAINER, proc=True)
            for name in names
            if os.path.exists(os.path.join(directory, name))
        ]
