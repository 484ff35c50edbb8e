"""The doctor on this kernel: something is taken away, and its verdict changes; and it leaves no trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcinit.linux import calls, capabilities, mount, namespaces
from lcinit.supervisor.userns import user_namespace_with
from lcinit.tools.doctor_trials import Trial, attempt
from tests.namespace.isolated import needs_root, run_isolated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

pytestmark = needs_root


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and subject → finding."""
    done = subprocess.run(
        [sys.executable, "-m", "lcinit", "doctor", "--json", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    data = json.loads(done.stdout)
    assert data["exit_code"] == done.returncode
    assert data["handoff"] is (done.returncode == 0) or done.returncode == 78
    return done.returncode, {finding["subject"]: finding for finding in data["findings"]}


def verdict_of(subject: str, prepare: Callable[[], object], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and one finding after `prepare` was done, in namespaces of its own."""
    here: list[str] = []
    reader, writer = os.pipe()

    def inside() -> None:
        prepare()
        code, found = doctor(*arguments)
        os.write(writer, json.dumps([code, found[subject]]).encode())

    try:
        run_isolated(inside)
        os.close(writer)
        writer = -1
        while chunk := os.read(reader, 65536):
            here.append(chunk.decode())
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    code, finding = json.loads("".join(here))
    return code, finding


def enter_user_namespace(size: int = 65536) -> None:
    """Become root of a new user namespace that owns this process' new mount namespace.

    Its root is still outer root, who can read the interpreter and the checkout wherever they lie.
    """
    userns = user_namespace_with([(0, 0, size)], [(0, 0, size)])
    namespaces.setns(userns, namespaces.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)


def test_a_privileged_process_gets_0_and_every_trial_works() -> None:
    code, finding = verdict_of("id-map", lambda: None)
    assert (code, finding["verdict"]) == (0, "ok")


def test_nothing_is_left_and_nothing_changed() -> None:
    def inside() -> None:
        def state() -> tuple[str, list[str], list[str], int]:
            return (
                Path("/proc/self/mountinfo").read_text(),
                [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))],
                sorted(os.listdir("/dev")),
                len([name for name in os.listdir("/proc") if name.isdigit()]),
            )

        before = state()
        code, _ = doctor()
        assert code == 0
        assert state() == before

    run_isolated(inside, pid=True)


@pytest.mark.parametrize("name", ["sys_admin", "setuid", "setgid", "chown", "dac_override", "fowner"])
def test_a_needed_capability_taken_away_makes_it_71(name: str) -> None:
    def prepare() -> None:
        capabilities.drop_bounding([capabilities.CAPABILITIES[name]])  # exec takes it out of the other sets

    code, finding = verdict_of("capabilities", prepare)
    assert (code, finding["verdict"]) == (71, "missing")
    assert f"CAP_{name.upper()}" in finding["remedy"]


def test_without_mknod_nodes_are_bound_and_a_handoff_works() -> None:
    code, finding = verdict_of("overlay", lambda: capabilities.drop_bounding([capabilities.CAPABILITIES["mknod"]]))
    assert (code, finding["verdict"]) == (0, "ok")


def test_no_user_namespaces_left_is_told_with_the_sysctl() -> None:
    def prepare() -> None:
        enter_user_namespace()
        # of this user namespace alone (namespaces(7), /proc/sys/user)
        Path("/proc/sys/user/max_user_namespaces").write_text("0")

    code, finding = verdict_of("user-namespace", prepare)
    assert (code, finding["verdict"]) == (71, "missing")
    assert "max_*_namespaces" in finding["remedy"]


def test_a_nested_user_namespace_with_ids_is_enough_for_a_map() -> None:
    _, finding = verdict_of("id-map", enter_user_namespace)
    assert finding["verdict"] == "ok"


def test_a_single_id_is_not_enough() -> None:
    code, finding = verdict_of("ids", lambda: enter_user_namespace(1))
    assert (code, finding["verdict"]) == (71, "missing")


def enter_chroot() -> None:
    """A directory that is no mount point becomes the root, with all that is in / bound into it."""
    tmpfs = mount.new_mount("tmpfs")
    mount.move_mount(tmpfs, "", calls.AT_FDCWD, "/mnt", 0)
    os.mkdir("/mnt/root")
    flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | calls.AT_RECURSIVE
    for entry in os.scandir("/"):
        target = f"/mnt/root/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_dir() and entry.name != "mnt":
            os.mkdir(target)
            mount.move_mount(mount.open_tree(calls.AT_FDCWD, entry.path, flags), "", calls.AT_FDCWD, target, 0)
    where = os.getcwd()
    os.chroot("/mnt/root")
    os.chdir(where)


@pytest.mark.parametrize("subject", ["user-namespace", "mount-namespace", "pivot_root"])
def test_an_ordinary_chroot_prevents_it(subject: str) -> None:
    code, finding = verdict_of(subject, enter_chroot)
    assert (code, finding["verdict"]) == (71, "missing")
    assert "chroot" in finding["remedy"]


def test_a_covered_proc_is_seen() -> None:
    code, finding = verdict_of("proc-sys", lambda: mount.mount("/dev/null", "/proc/version", None, mount.MS_BIND))
    assert (code, finding["verdict"]) == (0, "weaker")
    assert "/proc/version" in finding["says"]


def test_an_overlay_guest_root_cannot_be_idmapped(tmp_path: Path) -> None:
    config = tmp_path / "init.yml"
    config.write_text(f"root: {tmp_path}/root\nid_map: {{users: 0 1000000 65536}}\n")
    for name in ("root", "other"):
        (tmp_path / name).mkdir()

    def prepare() -> None:
        layers = f"{tmp_path}/root:{tmp_path}/other"
        overlay = mount.new_mount("overlay", {"lowerdir": layers})
        mount.move_mount(overlay, "", calls.AT_FDCWD, f"{tmp_path}/root", 0)

    code, finding = verdict_of("idmap-guest-root", prepare, "--config", str(config))
    assert (code, finding["verdict"]) == (0, "weaker")
    assert "(overlay)" in finding["says"]


def test_a_configuration_whose_plan_is_refused_is_78(tmp_path: Path) -> None:
    config = tmp_path / "init.yml"
    config.write_text("network: {interfaces: [absent0]}\n")
    code, finding = verdict_of("plan", lambda: None, "--config", str(config))
    assert (code, finding["verdict"]) == (78, "missing")
    assert "absent0" in finding["says"]


def test_a_configuration_that_is_wrong_is_78_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "init.yml"
    config.write_text("hostnme: guest\n")
    done = subprocess.run(
        [sys.executable, "-m", "lcinit", "doctor", "--config", str(config)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 78
    assert f"{config}:1:1: hostnme" in done.stderr


def test_a_trial_that_hangs_or_dies_is_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcinit.tools.doctor_trials.PATIENCE", 0.2)
    assert "no answer" in attempt("hangs", lambda: os.read(os.pipe()[0], 1)).error
    assert "signal 9" in attempt("dies", lambda: os.kill(os.getpid(), 9)).error
    assert attempt("works", lambda: None) == Trial(name="works")
