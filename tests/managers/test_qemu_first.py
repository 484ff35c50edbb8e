"""lcinit as the first process of a machine, with services: where nothing is mounted yet when they are thought of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import qemu
from tests.lab.probe import await_probe
from tests.managers.test_qemu import add_guest, boot_initramfs, console_of

pytestmark = pytest.mark.skipif(bool(qemu.usable()), reason=qemu.usable())


@pytest.fixture
def machine() -> Iterator[qemu.Qemu]:
    """A machine that is removed whatever the test does."""
    with qemu.Qemu() as made:
        yield made


def test_a_configuration_that_mentions_services_and_has_none_boots(machine: qemu.Qemu, boot_root: str) -> None:
    archive = boot_initramfs(machine, boot_root, "# services: the guest's own\nsetup: none\n")
    add_guest(archive, machine, "busybox", "echo up yes\nsleep 2\n", "poweroff")
    machine.boot(archive.close())
    assert await_probe(machine).value("up") == "yes"
    assert machine.wait().status == 0
    assert "Kernel panic" not in console_of(machine)


def test_services_of_a_machine_run_and_power_it_off(machine: qemu.Qemu, boot_root: str) -> None:
    config = """\
setup: none
exec: {mode: tolerant, pid: shared}
services:
  limited: {command: [sh, -c, "echo limited; exec sleep 1000"], cgroup: {memory_max: 50M}}
  last: {command: [sh, -c, "sleep 1; echo last"], type: oneshot, requires: limited, essential: true, stop: "true"}
  end: {command: [sh, -c, "sleep 1; exit 0"], requires: last, restart: no, essential: true}
"""
    archive = boot_initramfs(machine, boot_root, config)
    add_guest(archive, machine, "busybox", "", "poweroff")
    machine.boot(archive.close())
    machine.wait()
    text = console_of(machine)
    assert "limited: limited" in text, text
    assert "last: last" in text, text
    assert "Kernel panic" not in text, text
