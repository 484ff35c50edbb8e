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
from collections.abc import Sequence
from functools import partial

from lcinit.linux import namespaces
from tests.bench import boot, capture, load, quiet, requests, services
from tests.bench.runs import Failed, Row, remove_cgroups
from tests.bench.stage import Stage
from tests.lab.boot_root import boot_root
from tests.lab.container import cgroup2_mount

STAGED = {
    "boot": boot.run,
    "reaping": load.reaping,
    "signals": load.signals,
    "initctl": requests.run,
    "services": services.starting,
    "restart": services.restarting,
    "memory": services.costing,
    "capture": capture.run,
}
BENCHES = (*STAGED, "idle")


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
    wanted = options.only or BENCHES
    table = []
    try:
        if any(name in STAGED for name in wanted):
            table += staged(root, [name for name in wanted if name in STAGED], max(7, options.rounds))
        if "idle" in wanted:
            table += quiet.run(root, partial(_progress, "idle"))
    except Failed as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    show(table, options.json)
    return 0


def staged(root: str, names: Sequence[str], rounds: int) -> list[Row]:
    """The measurements that start programs themselves, in a process with namespaces of its own."""
    directory = tempfile.mkdtemp(prefix="lcinit-bench-")
    os.chmod(directory, 0o755)  # lxc-start walks there as the mapped root
    results = os.path.join(directory, "results")
    cgroup = os.path.join(cgroup2_mount(), f"lcinit-bench-{os.getpid()}")
    os.mkdir(cgroup)
    handle = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_INTO_CGROUP
    pid, _ = namespaces.clone3(flags, cgroup_fd=handle)
    if pid == 0:
        try:
            stage = Stage(directory, root)
            table = [row for name in names for row in STAGED[name](stage, rounds, partial(_progress, name))]
            with open(results, "w") as file:
                json.dump(table, file)
            os._exit(0)
        except BaseException as error:
            if isinstance(error, Failed):
                print(f"make bench: {error}", file=sys.stderr, flush=True)
            elif not isinstance(error, KeyboardInterrupt):
                sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    try:
        _, status = os.waitpid(pid, 0)
        if status:
            raise Failed("a measurement failed")
        with open(results) as file:
            return [Row(*values) for values in json.load(file)]
    finally:
        os.close(handle)
        remove_cgroups(cgroup)
        shutil.rmtree(directory)


def _progress(name: str, text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{name}: {text} ", end="", file=sys.stderr, flush=True)


def show(table: list[Row], path: str) -> None:
    """The table, and the JSON file."""
    print(f"{'what':<34} {'lcinit':>10} {'peer':<38} {'peer':>10} {'ratio':>6} {'budget':>6} met")
    for row in table:
        value = "" if row.value is None else _figure(row.value, row.unit)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        budget = "" if row.budget is None else f"{row.budget:.2f}"
        met = {None: "", True: "yes", False: "NO"}[row.met]
        own = _figure(row.lcinit, row.unit)
        print(f"{row.what:<34} {own:>10} {row.peer:<38} {value:>10} {ratio:>6} {budget:>6} {met}".rstrip())
    with open(path, "w") as file:
        json.dump([{**row._asdict(), "ratio": row.ratio, "met": row.met} for row in table], file, indent=2)
        file.write("\n")


def _figure(value: float, unit: str) -> str:
    return f"{value:.{2 if 0 < value < 10 else 1}f} {unit}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
