"""initctl: true: a handed-over guest obeys runlevels 0 and 6, by the words that its own init understands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.guests.test_handoff import (
    MAPPED,
    PLAIN,
    POWEROFF_DEATH,
    REBOOT_DEATH,
    boot,
    shifted_layer,
)
from tests.lab.container import Container, descendants
from tests.lab.guests import RECIPES
from tests.lab.probe import await_probe

UP = "echo up\n"
KEEPER_PSS_KIB = 11 * 1024  # with nothing of it shared; ctypes, for reboot(2) of a guest with an id map, is 2 MiB


def ask(running: Container, runlevel: str) -> None:
    """`lcinit initctl` from outside, through the guest's root."""
    fifo = f"/proc/{running.pid1()}/root/dev/initctl"
    command = [sys.executable, "-m", "lcinit", "initctl", "--fifo", fifo, runlevel]
    subprocess.run(command, check=True, timeout=10)


def keeper_of(running: Container) -> int:
    """The outer PID of the helper that serves the guest, once it has become the keeper."""
    deadline = time.monotonic() + 10
    while True:
        assert running.process is not None
        for pid in descendants(running.process.pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if file.read().startswith(b"@lcinit"):
                        return pid
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended since
        assert time.monotonic() < deadline, "no keeper"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "mapped", "runlevel", "status"),
    [
        ("systemd262", False, "0", POWEROFF_DEATH),
        ("systemd262", False, "6", REBOOT_DEATH),
        ("systemd262", True, "0", POWEROFF_DEATH),
        ("systemd262", True, "6", REBOOT_DEATH),
        ("systemd252", False, "6", REBOOT_DEATH),
        ("busybox", False, "0", POWEROFF_DEATH),
        ("busybox", False, "6", REBOOT_DEATH),
        ("busybox", True, "0", POWEROFF_DEATH),
    ],
)
def test_runlevels_end_the_guest_in_its_own_words(
    name: str,
    mapped: bool,
    runlevel: str,
    status: int,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", name, UP, mapped=mapped, after=None)
    config = (MAPPED if mapped else PLAIN) + "initctl: true\n"
    running = boot(container, boot_root, guest_root(name), layer, config)
    await_probe(running, 20)
    ask(running, runlevel)
    assert running.wait(30).status == status


def test_the_keeper_is_small_and_the_fifo_the_guests(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> None:
    layer = shifted_layer(
        f"{tmp_path}/layer", "systemd262", "stat -c 'fifo %u %a %F' /dev/initctl\n", mapped=True, after=None
    )
    running = boot(container, boot_root, guest_root("systemd262"), layer, MAPPED + "initctl: true\n")
    assert await_probe(running, 20).value("fifo") == "0 600 fifo"
    with open(f"/proc/{keeper_of(running)}/smaps_rollup") as file:
        pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    assert pss <= KEEPER_PSS_KIB


def test_lxc_sees_a_reboot_as_one(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", "systemd262", UP, mapped=False, after=None)
    running = container("lxc").start(
        boot_root, guest_root=guest_root("systemd262"), config=PLAIN + "initctl: true\n", binds=[(layer, "/mnt/layer")]
    )
    await_probe(running, 20)
    first, seen = running.pid1(), len(running.console())
    ask(running, "6")
    await_probe(running, 30, start=seen)
    assert running.pid1() != first
    ask(running, "0")
    assert running.wait(30).status == 0


@pytest.mark.parametrize("mode", ["initctl", "signal"])
def test_virsh_shutdown_ends_a_guest_under_libvirt(
    mode: str,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    # SIGTERM, which is what --mode signal sends, is poweroff to OpenRC's init; to busybox it is reboot
    name = "openrc" if mode == "signal" else "systemd262"
    layer = shifted_layer(f"{tmp_path}/layer", name, UP, mapped=True, after=None)
    config = f"{MAPPED}initctl: true\nexec: [{', '.join(RECIPES[name].command)}]\n"
    running = container("libvirt")
    running.mode = mode  # type: ignore[attr-defined]
    running.start(boot_root, guest_root=guest_root(name), config=config, binds=[(layer, "/mnt/layer")])
    running.expect(RECIPES[name].up, 20)
    running.poweroff()
    assert running.wait(30).reason == "shutdown"


def test_the_plan_says_who_makes_the_reboot_of_a_mapped_guest(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container]
) -> None:
    running = container("unshare").start(
        boot_root,
        guest_root=guest_root("systemd262"),
        config="id_map: {users: 0 1000000 65536}\ninitctl: true\n",
        init="/usr/lib/lcinit/bin/lcinit",
        args=["plan"],
    )
    running.expect(r"have the keeper answer reboot\(2\)", 20)
    assert running.wait().status == 0
