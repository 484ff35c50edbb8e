"""`make bench`: every measurement that this machine can run, one table, and the same as JSON.

It is no test: nothing is asserted. Everything runs in mount and cgroup namespaces of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile

from lcinit.linux import calls, mount, namespaces
from tests.bench import handoff
from tests.bench.runs import Row, in_turn, remove_cgroups
from tests.lab.boot_root import boot_root
from tests.lab.container import cgroup2_mount


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure lcinit beside its peers.")
    parser.add_argument("--rounds", type=int, default=15, help="pairs that count (default: %(default)s; at least 7)")
    parser.add_argument("--json", default="bench-results.json", metavar="FILE", help="default: %(default)s")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("make bench: as root, please: it starts containers", file=sys.stderr)
        return 77
    root = boot_root()
    directory = tempfile.mkdtemp(prefix="lcinit-bench-")
    os.chmod(directory, 0o755)  # lxc-start walks there as the mapped root
    cgroup = os.path.join(cgroup2_mount(), f"lcinit-bench-{os.getpid()}")
    os.mkdir(cgroup)
    handle = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_INTO_CGROUP
    pid, _ = namespaces.clone3(flags, cgroup_fd=handle)
    if pid == 0:
        status = 1
        try:
            _stage(directory)
            peers = handoff.peers(root, directory)
            medians = in_turn(peers, max(7, options.rounds), "/sys/fs/cgroup", _progress)
            show(handoff.rows(medians), options.json)
            status = 0
        except KeyboardInterrupt:
            status = 130
        finally:
            sys.stdout.flush()
            if status not in (0, 130):
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(status)
    try:
        _, status = os.waitpid(pid, 0)
    finally:
        remove_cgroups(cgroup)
        shutil.rmtree(directory)
    return os.waitstatus_to_exitcode(status)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text} ", end="", file=sys.stderr, flush=True)


def _stage(directory: str) -> None:
    """Private mounts; cgroup2 alone, rooted at a cgroup of this run; state directories of managers hidden."""
    namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    mount.make_private("/")
    for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"), ("cgroup2", "/sys/fs/cgroup")):
        fd = mount.new_mount(kind, {})
        mount.move_mount(fd, "", calls.AT_FDCWD, target, mount.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(fd)
    # lxc-start has newuidmap(1) write its map, which asks these files; only here do they say more than the machine's
    allowed = os.path.join(directory, "subid")
    with open(allowed, "w") as file:
        file.write("root:1000000:65536\n")
    for path in ("/etc/subuid", "/etc/subgid"):
        clone = mount.open_tree(calls.AT_FDCWD, allowed, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
        mount.move_mount(clone, "", calls.AT_FDCWD, path, mount.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(clone)


def show(table: list[Row], path: str) -> None:
    """The table, and the JSON file."""
    print(f"{'what':<24} {'lcinit':>9} {'peer':<42} {'peer':>9} {'ratio':>6} {'budget':>6} met")
    for row in table:
        budget = "" if row.budget is None else f"{row.budget:.2f}"
        met = {None: "", True: "yes", False: "NO"}[row.met]
        print(
            f"{row.what:<24} {row.lcinit * 1000:6.1f} ms {row.peer:<42} {row.seconds * 1000:6.1f} ms "
            f"{row.ratio:6.2f} {budget:>6} {met}"
        )
    with open(path, "w") as file:
        json.dump([{**row._asdict(), "met": row.met} for row in table], file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
