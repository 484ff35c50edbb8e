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
from functools import partial

from lcinit.linux import namespaces
from tests.bench import boot, load
from tests.bench.runs import Row, remove_cgroups
from tests.bench.stage import Stage
from tests.lab.boot_root import boot_root
from tests.lab.container import cgroup2_mount

BENCHES = {"boot": boot.run, "reaping": load.reaping, "signals": load.signals}


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure lcinit beside its peers.")
    parser.add_argument("--rounds", type=int, default=15, help="pairs that count (default: %(default)s; at least 7)")
    parser.add_argument("--json", default="bench-results.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--only", action="append", choices=BENCHES, help="one measurement; may be repeated")
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
            stage = Stage(directory, root)
            table = []
            for name in options.only or BENCHES:
                table += BENCHES[name](stage, max(7, options.rounds), partial(_progress, name))
            show(table, options.json)
            status = 0
        except KeyboardInterrupt:
            status = 130
        finally:
            sys.stdout.flush()
            if status not in (0, 130):
                sys.excepthook(*sys.exc_info())
            os._exit(status)
    try:
        _, status = os.waitpid(pid, 0)
    finally:
        remove_cgroups(cgroup)
        shutil.rmtree(directory)
    return os.waitstatus_to_exitcode(status)


def _progress(name: str, text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{name}: {text} ", end="", file=sys.stderr, flush=True)


def show(table: list[Row], path: str) -> None:
    """The table, and the JSON file."""
    print(f"{'what':<24} {'lcinit':>12} {'peer':<40} {'peer':>12} {'ratio':>6} {'budget':>6} met")
    for row in table:
        value = "" if row.value is None else f"{row.value:.1f} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        budget = "" if row.budget is None else f"{row.budget:.2f}"
        met = {None: "", True: "yes", False: "NO"}[row.met]
        own = f"{row.lcinit:.1f} {row.unit}"
        print(f"{row.what:<24} {own:>12} {row.peer:<40} {value:>12} {ratio:>6} {budget:>6} {met}".rstrip())
    with open(path, "w") as file:
        json.dump([{**row._asdict(), "ratio": row.ratio, "met": row.met} for row in table], file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
