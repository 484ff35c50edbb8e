"""A hostile guest of `lcinit run`: what it may not undo, see or rob although an ordinary user started it."""

from __future__ import annotations

import os

import pytest

from lcinit.linux import namespaces
from tests.guests import run_rig
from tests.guests.run_rig import GUEST, MAPS, Launcher
from tests.lab import guests
from tests.namespace.isolated import needs_root, run_isolated
from tests.namespace.ordinary import UID, needs_system_python

pytestmark = [needs_root, needs_system_python]

AS = pytest.mark.parametrize("user", [0, UID], ids=["root", "ordinary"])
DENIED = ("Operation not permitted", "Permission denied", "Invalid argument", "permission denied", "Read-only")


def isolated(body: object) -> None:
    guests.guest("busybox")  # built out here, where there is a network
    run_isolated(body, pid=True, timeout=60)  # type: ignore[arg-type]


def in_guest(user: int, script: str, *options: str) -> list[str]:
    """The lines that a shell script, the guest's PID 1, says."""
    words = ["run", *(() if user else MAPS), *options, GUEST, "/bin/sh", "-c", script]
    done = run_rig.run(words, user=user)
    assert done.returncode == 0, done.stderr
    lines: list[str] = done.stdout.splitlines()
    return lines


@AS
@pytest.mark.row(46)
def test_no_mount_can_be_undone(user: int) -> None:
    attempts = (
        "umount /run",
        "umount /dev",
        "umount /dev/shm",
        "mount -o remount,bind,dev /",
        "mount -o remount,bind,suid /run",
    )
    script = "; ".join(f"{each} 2>&1 && echo WORKED {each}" for each in attempts) + "; true"

    def body() -> None:
        run_rig.prepare(owner=user)
        lines = in_guest(user, script)
        assert len(lines) == len(attempts), lines
        assert all(any(word in line for word in DENIED) for line in lines), lines

    isolated(body)


@pytest.mark.row(46)
def test_the_machines_sys_that_an_ordinary_user_shares_stays_read_only() -> None:
    script = "mount -o remount,bind,rw /sys 2>&1 && echo WORKED; umount /sys 2>&1 && echo WORKED; true"

    def body() -> None:
        run_rig.prepare(owner=UID)
        lines = in_guest(UID, script, "-n")
        assert len(lines) == 2, lines
        assert all(any(word in line for word in DENIED) for line in lines), lines

    isolated(body)


@AS
@pytest.mark.row(5)
def test_the_launcher_is_neither_seen_nor_signalled(user: int) -> None:
    """The guest's root has the launcher's own uid outside where an ordinary user started it."""

    def body() -> None:
        run_rig.prepare(owner=user)
        script = (
            "echo up; read number </tmp/number; "
            "echo seen $(ls -d /proc/[0-9]* | tr '\\n' ' '); "
            "kill -9 $number 2>&1; kill -9 -1 2>&1; echo done; while :; do sleep 1; done"
        )
        os.mkfifo(f"{GUEST}/tmp/number")
        os.chown(f"{GUEST}/tmp/number", user, user)
        words = ["run", *(() if user else MAPS), GUEST, "/bin/sh", "-c", script]
        with Launcher(words, user=user) as launcher:
            launcher.expect("up")
            with open(f"{GUEST}/tmp/number", "w", encoding="utf-8") as file:
                file.write(f"{launcher.pid}\n")
            text = launcher.expect("done")
            assert "No such process" in text
            seen = text[text.index("seen") :].splitlines()[0].split()[1:]
            assert all(int(path.rpartition("/")[2]) < 20 for path in seen), "only the guest's few processes are there"
            assert launcher.process.poll() is None

    isolated(body)


def guest_of(launcher: int) -> int:
    """The launcher's child in a user namespace of its own; the builder, which may still be there, is in none."""
    own = os.readlink(f"/proc/{launcher}/ns/user")
    with open(f"/proc/{launcher}/task/{launcher}/children", encoding="utf-8") as file:
        children = file.read().split()
    for pid in children:
        try:
            if os.readlink(f"/proc/{pid}/ns/user") != own:
                return int(pid)
        except FileNotFoundError:
            continue  # it has just ended
    raise AssertionError(f"no guest among {children}")


def look_into(pid: int, guest: int) -> None:
    """As the guest's root, but with the machine's /proc in hand: look where the process `pid` works."""
    namespace = os.open(f"/proc/{guest}/ns/user", os.O_RDONLY)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            namespaces.setns(namespace, namespaces.CLONE_NEWUSER)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            try:
                os.readlink(f"/proc/{pid}/cwd")
            except PermissionError:
                status = 0
        finally:
            os._exit(status)
    os.close(namespace)
    assert os.waitpid(child, 0)[1] == 0, "the guest's root may look into it"


@AS
def test_the_guests_root_could_not_look_into_the_launcher_if_it_saw_it(user: int) -> None:
    """An ordinary user's launcher has the guest's uid outside: the user namespace above keeps them apart."""

    def body() -> None:
        run_rig.prepare(owner=user)
        words = ["run", *(() if user else MAPS), GUEST, "/bin/sh", "-c", "echo up; sleep 60"]
        with Launcher(words, user=user) as launcher:
            launcher.expect("up")
            look_into(launcher.pid, guest_of(launcher.pid))

    isolated(body)
