"""Runlevels over initctl against a real libvirt_lxc, whose virsh is the one manager's tool that speaks them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.guests.test_handoff import MAPPED, shifted_layer
from tests.lab.container import Container
from tests.lab.libvirt import Libvirt
from tests.lab.probe import await_probe
from tests.namespace.initctl_server import wait_until

TOLERANT = MAPPED + "exec: {mode: tolerant}\ninitctl: auto\n"
UP = "echo up\n"


@pytest.fixture
def domain(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> Callable[[str], Libvirt]:
    """A running domain whose init is lcinit, beside a guest."""

    def start(name: str) -> Libvirt:
        layer = shifted_layer(f"{tmp_path}/layer", name, UP, mapped=True, after=None)
        running = container("libvirt")
        assert isinstance(running, Libvirt)
        running.start(boot_root, guest_root=guest_root(name), config=TOLERANT, binds=[(layer, "/mnt/layer")])
        await_probe(running, 30)
        for _ in range(3):
            if knows_init(running):
                return running
            seen = len(running.console())
            running.virsh("destroy", running.name)
            running.virsh("start", running.name)
            assert comes_up(running, seen)
        raise AssertionError("libvirtd never hears of the domain's init")

    return start


def comes_up(running: Libvirt, seen: int) -> bool:
    """Whether a guest does, beyond so many bytes of console. For a moment there is no terminal between two of them."""
    return wait_until(lambda: b"probe-done" in running.console()[seen:], 60)


def knows_init(running: Libvirt) -> bool:
    """Whether libvirtd has heard from its controller which process is init. That message is lost at times."""
    command = ("send-process-signal", running.name, "1", "nop")
    return wait_until(lambda: running.virsh(*command, check=False).returncode == 0, 5)


GUESTS = ["systemd262", "sysvinit", "busybox"]


@pytest.mark.parametrize("name", GUESTS)
def test_virsh_shutdown_ends_guest_and_domain(name: str, domain: Callable[[str], Libvirt]) -> None:
    running = domain(name)
    running.virsh("shutdown", running.name, "--mode", "initctl")
    assert running.wait(60).reason == "shutdown"
    assert "poweroff was asked for by initctl" in running.console().decode(errors="replace")


@pytest.mark.parametrize("name", GUESTS)
def test_virsh_reboot_starts_the_guest_again(name: str, domain: Callable[[str], Libvirt]) -> None:
    running = domain(name)
    seen = len(running.console())
    running.virsh("reboot", running.name, "--mode", "initctl")
    assert comes_up(running, seen)
    assert "reboot was asked for by initctl" in running.console()[seen:].decode(errors="replace")
    running.virsh("shutdown", running.name, "--mode", "initctl")
    assert running.wait(60).reason == "shutdown"


def test_the_fifo_is_where_libvirt_looks_and_not_in_the_guest(domain: Callable[[str], Libvirt]) -> None:
    running = domain("systemd262")
    outer = running.run("ls", "-l", "/run/initctl", "/dev/initctl").stdout.splitlines()
    assert [line.split()[0][0] for line in outer] == ["l", "p"]
    inner = running.run("ls", "/run/initctl", "/dev/initctl", pid=running.guest_pid1())
    assert inner.stdout == ""
