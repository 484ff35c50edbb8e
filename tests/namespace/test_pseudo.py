"""`pseudo`, as root and as an ordinary user, with and without newuidmap(1)."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.namespace import ordinary
from tests.namespace.isolated import needs_root, run_isolated
from tests.namespace.ordinary import NAME, UID, lcinit_as, needs_newuidmap, needs_system_python

pytestmark = [needs_root, needs_system_python]

LAST = 2**32 - 2
DENYING = 54399  # a supplementary group that a file shuts out
MAPS = "cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups"
# leaves every supplementary group as far as the kernel lets it, then reads
LEAVE_GROUPS = (
    "import os, sys\n"
    "try:\n    os.setgroups([])\n    print('left')\n"
    "except PermissionError:\n    print('kept')\n"
    "try:\n    print(open('/mnt/denied').read())\n"
    "except PermissionError:\n    print('denied')\n"
)


def ids(output: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, line.split())) for line in output.splitlines() if line[:1].isspace()]


def test_root_is_the_highest_id_and_owns_nothing_of_the_outer_roots() -> None:
    def body() -> None:
        ordinary.prepare()
        done = lcinit_as(["pseudo", "sh", "-c", f"{MAPS}; touch /mnt/new"], uid=0)
        assert ids(done.stdout) == [(0, LAST, 1), (1, 1, LAST - 1)] * 2
        assert "allow" in done.stdout
        assert "Permission denied" in done.stderr
        assert not os.path.exists("/mnt/new")

    run_isolated(body)


def test_files_that_root_unpacks_belong_to_the_guests_ids() -> None:
    def body() -> None:
        ordinary.prepare()
        os.mkdir("/mnt/guest")
        os.chmod("/mnt/guest", 0o777)
        script = "cd /mnt/guest; touch root; touch user; chown 5:6 user"
        assert lcinit_as(["pseudo", "sh", "-ec", script], uid=0).returncode == 0
        owners = {name: os.stat(f"/mnt/guest/{name}")[4:6] for name in os.listdir("/mnt/guest")}
        assert owners == {"root": (LAST, LAST), "user": (5, 6)}

    run_isolated(body)


def test_an_ordinary_user_is_root_of_a_namespace_with_one_id() -> None:
    def body() -> None:
        ordinary.prepare()
        done = lcinit_as(["pseudo", "sh", "-c", f"id -u; id -g; {MAPS}; readlink /proc/self/ns/mnt"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("0\n0\n")
        assert ids(done.stdout) == [(0, UID, 1)] * 2
        assert "deny" in done.stdout
        assert os.readlink("/proc/self/ns/mnt") in done.stdout, "nothing but the user namespace is new"

    run_isolated(body)


def test_a_user_whose_own_group_is_roots_keeps_it() -> None:
    def body() -> None:
        ordinary.prepare()
        done = lcinit_as(["pseudo", "sh", "-c", MAPS], group=0)
        assert ids(done.stdout) == [(0, UID, 1), (0, 0, 1)], done.stderr

    run_isolated(body)


@needs_newuidmap
def test_an_ordinary_user_gets_the_delegated_ranges_by_newuidmap() -> None:
    def body() -> None:
        ordinary.prepare(f"other:100000:10\n{NAME}:200000:65536\n", f"{UID}:300000:1000\n")
        done = lcinit_as(["pseudo", "sh", "-c", f"{MAPS}; cd /mnt/home; touch new; chown 1000:7 new"])
        assert done.returncode == 0, done.stderr
        assert ids(done.stdout) == [(0, UID, 1), (1, 200000, 65536), (0, UID, 1), (1, 300000, 1000)]
        assert os.stat("/mnt/home/new")[4:6] == (200999, 300006)

    run_isolated(body)


@needs_newuidmap
def test_maps_are_given_and_refused() -> None:
    def body() -> None:
        ordinary.prepare(f"{NAME}:200000:65536\n")
        given = ["pseudo", "-u", f"0:{UID}:1,1:200000:5", "-g", f"0:{UID}:1", "sh", "-c", MAPS]
        done = lcinit_as(given)
        assert ids(done.stdout) == [(0, UID, 1), (1, 200000, 5), (0, UID, 1)], done.stderr
        for words, said in (
            (["-u", "0:0:1"], "outer root's id 0"),
            (["-u", "0:1000:1"], "uid 1000 was not given to you: /etc/subuid gives ordinary no such range"),
            (["-g", "0:265535:2"], "have root add ordinary:265535:2 to /etc/subgid"),
        ):
            refused = lcinit_as(["pseudo", *words, "true"])
            assert refused.returncode == 77, refused.stderr
            assert said in refused.stderr
            assert len(refused.stderr.splitlines()) == 1

    run_isolated(body)


def test_broken_lines_of_subuid_are_told_and_the_command_still_runs() -> None:
    def body() -> None:
        ordinary.prepare(f"{NAME}:1_000:5\n", "")
        done = lcinit_as(["pseudo", "echo", "it runs"])
        assert done.stdout == "it runs\n"
        assert "/etc/subuid:1: '1_000' is no plain decimal number" in done.stderr

    run_isolated(body)


@pytest.mark.row(24)
def test_a_fifo_in_place_of_subuid_is_refused_and_not_waited_for() -> None:
    def body() -> None:
        ordinary.prepare()
        os.mkfifo("/mnt/fifo")
        ordinary.bind("/mnt/fifo", "/etc/subgid")
        done = lcinit_as(["pseudo", "true"], timeout=10)
        assert done.returncode == 78
        assert "/etc/subgid is not a regular file" in done.stderr

    run_isolated(body)


@pytest.mark.row(12)
def test_a_group_that_denies_cannot_be_left() -> None:
    """CVE-2014-8989: a mode that shuts a group out holds for an ordinary user who becomes root of a namespace."""

    def body() -> None:
        ordinary.prepare(groups=[("denied", DENYING)])
        with open("/mnt/denied", "w", encoding="utf-8") as file:
            file.write("secret")
        os.chown("/mnt/denied", 0, DENYING)
        os.chmod("/mnt/denied", 0o604)
        python = [ordinary.PYTHON, "-I", "-c", LEAVE_GROUPS]
        assert lcinit_as(["pseudo", *python]).stdout == "kept\nsecret\n", "without the group the file is open"
        assert lcinit_as(["pseudo", *python], groups=[DENYING]).stdout == "kept\ndenied\n"

    run_isolated(body)


@needs_newuidmap
@pytest.mark.row(12)
def test_pseudo_itself_leaves_no_group_where_newgidmap_would_permit_it() -> None:
    def body() -> None:
        ordinary.prepare(f"{NAME}:200000:65536\n", groups=[("denied", DENYING)])
        with open("/mnt/denied", "w", encoding="utf-8") as file:
            file.write("secret")
        os.chown("/mnt/denied", 0, DENYING)
        os.chmod("/mnt/denied", 0o604)
        done = lcinit_as(["pseudo", "cat", "/mnt/denied"], groups=[DENYING])
        assert done.stdout == ""
        assert "Permission denied" in done.stderr

    run_isolated(body)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["/nowhere"], 127),
        (["/etc/passwd"], 126),
        (["nowhere-at-all"], 127),
    ],
)
def test_the_status_is_the_commands(words: list[str], status: int) -> None:
    def body() -> None:
        ordinary.prepare()
        assert lcinit_as(["pseudo", *words]).returncode == status

    run_isolated(body)


def test_a_shell_is_the_default_and_signals_are_as_they_were() -> None:
    def body() -> None:
        ordinary.prepare()
        done = lcinit_as(["pseudo"], input="echo $0; grep -E 'SigBlk|SigIgn' /proc/self/status\n")
        shell, *masks = done.stdout.split("\n")[:3]
        assert shell == "/bin/sh"
        libc_own = 0b11 << 31  # 32 and 33, which no program can ignore or take back by libc
        assert [int(mask.split()[1], 16) & ~libc_own for mask in masks] == [0, 0]

    run_isolated(body)


def test_user_namespaces_that_are_switched_off_are_named() -> None:
    def body() -> None:
        ordinary.prepare()
        done = ordinary.without_user_namespaces(["pseudo", "true"])
        assert done.returncode == 77, done.stderr
        assert "/proc/sys/user/max_user_namespaces is 0" in done.stderr
        assert "sysctl -w user.max_user_namespaces=" in done.stderr

    run_isolated(body)


def test_what_forbids_user_namespaces_is_guessed_and_root_is_not_asked_for() -> None:
    def body() -> None:
        ordinary.prepare()
        os.mkdir("/mnt/jail")
        ordinary.bind("/", "/mnt/jail")
        ordinary.bind("/mnt/given", "/mnt/jail/mnt")
        start = ordinary.START.replace(ordinary.GIVEN, "/mnt")
        done = subprocess.run(
            ["chroot", f"--userspec={UID}:{UID}", "/mnt/jail", ordinary.PYTHON, "-I", "-c", start, "pseudo", "true"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 77, done.stderr
        assert "cannot make a user namespace" in done.stderr
        assert "a chroot, a sandbox or a security module" in done.stderr

    run_isolated(body)
