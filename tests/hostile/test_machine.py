"""lcinit started by hand, in the machine's own network and cgroup namespaces: nothing of the machine is taken.

Only the mount and PID namespaces are new. The plan is looked at first: a step that would move an interface is never
run here.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.boot.own import program
from lcinit.linux import netlink
from tests.hostile.attempt import configuration, shared_guest
from tests.lab.container import PATH, cgroup2_mount
from tests.lab.machine import Snapshot, differences, snapshot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes namespaces")

NAMESPACES = ("unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child", "--")


Child = tuple[str, int]


@pytest.fixture
def cgroup_children() -> Iterator[set[Child]]:
    """The children that lcinit's boots left in this process's cgroup; those that are new are removed after the test."""
    before = _boots()
    yield before
    for path, _ in _boots() - before:
        os.rmdir(path)


def _boots() -> set[Child]:
    """Path and inode: a boot removes what an earlier one left and may give its own the same name."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = next(line.rstrip("\n").partition("::")[2] for line in file if line.startswith("0::"))
    directory = cgroup2_mount() + own.rstrip("/")
    paths = [f"{directory}/{name}" for name in os.listdir(directory) if re.fullmatch(r"lcinit-\d+-\d+", name)]
    return {(path, os.stat(path).st_ino) for path in paths}


def run(command: str, path: Path, env: dict[str, str], **streams: int) -> subprocess.CompletedProcess[str]:
    """`lcinit COMMAND --config PATH` as PID 1 of a new PID namespace, with this machine's root as the boot root."""
    words = program("lcinit", (command, *(("--json",) if command == "plan" else ()), "--config", str(path)))
    streams = streams or {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = {"PATH": f"{os.path.dirname(sys.executable)}:{PATH}", **env}
    return subprocess.run([*NAMESPACES, *words], env=environment, timeout=30, text=True, check=False, **streams)


def refuse_to_touch(path: Path, env: dict[str, str]) -> list[dict[str, object]]:
    """The steps of the plan; fails the test before anything is run if one of them would take what is the machine's."""
    planned = run("plan", path, env)
    assert planned.returncode == 0, planned.stdout
    steps = json.loads(planned.stdout)["steps"]
    assert "interfaces" not in {step["step"] for step in steps}
    assert [step["how"] for step in steps if step["step"] == "cgroup"] == ["child"]
    assert "own" not in {step["how"] for step in steps if step["step"] == "console"}
    return steps


def look() -> Snapshot:
    """The machine as it is. Cgroups of other containers may go while they are looked at."""
    while True:
        try:
            return snapshot()
        except FileNotFoundError:
            continue


def state() -> tuple[object, ...]:
    """Every link, address and route of this network namespace."""
    return tuple(repr(each) for each in (*netlink.links(), *netlink.addresses(), *netlink.routes()))


@pytest.mark.row(45)
@pytest.mark.parametrize("env", [{}, {"container": "lxc"}], ids=["by hand", "as if LXC had"])
@pytest.mark.parametrize("mapped", [True, False], ids=["id map", "no id map"])
def test_lcinit_started_by_hand_takes_nothing_of_the_machine(
    tmp_path: Path, cgroup_children: set[Child], mapped: bool, env: dict[str, str]
) -> None:
    path = tmp_path / "init.yml"
    script = "cat /proc/self/cgroup; echo interfaces: $(ls /sys/class/net); exit 23"
    root = shared_guest() if mapped else shared_guest(None)
    path.write_text(configuration(script, mapped=mapped, root=root, network={"resolv_conf": "keep"}))
    before, network = look(), state()
    refuse_to_touch(path, env)
    done = run("init", path, env)
    assert done.returncode == 23, done.stdout
    assert "interfaces: lo\n" in done.stdout
    assert not differences(before, look())
    assert state() == network
    # what the guest had was a child of this cgroup, and only that was given away
    assert len(_boots() - cgroup_children) == 1
    (child, _) = next(iter(_boots() - cgroup_children))
    assert os.stat(child).st_uid == (1000000 if mapped else 0)
    assert os.stat(os.path.dirname(child)).st_uid == 0


@pytest.mark.row(45)
def test_a_terminal_that_lcinit_was_started_from_keeps_its_owner(tmp_path: Path, cgroup_children: set[Child]) -> None:
    path = tmp_path / "init.yml"
    path.write_text(configuration("exit 23", root=shared_guest()))
    refuse_to_touch(path, {})
    master, slave = pty.openpty()
    try:
        before = os.fstat(slave)
        done = run("init", path, {}, stdin=slave, stdout=slave, stderr=slave)
        assert done.returncode == 23, os.read(master, 65536)
        after = os.fstat(slave)
        assert (before.st_uid, before.st_gid, before.st_mode) == (after.st_uid, after.st_gid, after.st_mode)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.row(45)
def test_a_cgroup_of_somebody_elses_is_not_removed_for_its_name(tmp_path: Path, cgroup_children: set[Child]) -> None:
    """Empty ones that earlier boots left go; what only begins like them stays."""
    directory = cgroup2_mount()
    theirs = [f"{directory}/{name}-{os.getpid()}" for name in ("lcinit-mine", "lcinit-x-1", "lcinit-1x")]
    ours = f"{directory}/lcinit-{os.getpid()}-7"
    path = tmp_path / "init.yml"
    path.write_text(configuration("exit 23", root=shared_guest()))
    refuse_to_touch(path, {})
    try:
        for each in (*theirs, ours):
            os.mkdir(each)
        assert run("init", path, {}).returncode == 23
        assert [os.path.isdir(each) for each in theirs] == [True] * 3
        assert not os.path.isdir(ours)
    finally:
        for each in (*theirs, ours):
            if os.path.isdir(each):
                os.rmdir(each)


@pytest.mark.row(45)
def test_a_boot_that_fails_leaves_the_machine_as_it_was(tmp_path: Path, cgroup_children: set[Child]) -> None:
    path = tmp_path / "init.yml"
    path.write_text(configuration("exit 23", root=shared_guest(), exec={"before": ["/bin/false"]}))
    refuse_to_touch(path, {})
    before, network = look(), state()
    done = run("init", path, {})
    assert done.returncode == 1, done.stdout
    assert not differences(before, look())
    assert state() == network
