"""A lcinit that stays, under real managers: what they ask for, what they are told, and a machine of its own."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.guests.test_nested import boot_guest
from tests.lab import qemu
from tests.lab.container import Container, ContainerError
from tests.lab.managers import DRIVERS
from tests.lab.probe import SYSTEMD_STATE, add_probe, await_probe

MANAGERS = ["lxc", "nspawn", "libvirt"]
UP = r"the guest's \S+ is up as process \d+"

STATE = (
    SYSTEMD_STATE
    + """\
echo "cgroup $(cat /proc/1/cgroup | grep ^0:)"
echo "console $(stat -c '%u %F' /dev/console)"
echo "pid1 $(cat /proc/1/comm)"
"""
)


def ask(running: Container, word: str) -> None:
    """Ask in the manager's own way; libvirtd learns a little late which process is init."""
    deadline = time.monotonic() + 10
    while True:
        try:
            getattr(running, word)()
            return
        except ContainerError as error:
            if "not yet known" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.parametrize("manager", MANAGERS)
def test_systemd_is_running_and_the_managers_poweroff_ends_the_container(
    manager: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = boot_guest(
        container, boot_root, "systemd252", str(tmp_path), STATE, manager=manager, mapped=True, after=None
    )
    result = await_probe(running, 40)
    assert result.value("state") == "running"
    assert result.values("failed") == []
    assert result.value("uid_map") == "0 1000000 65536"
    assert result.value("cgroup") == "0::/init.scope"
    assert result.value("console") == "0 character special file"
    assert result.value("pid1") == "systemd"
    ask(running, "poweroff")
    ended = running.wait(40)
    assert ended.status in (0, None), ended
    assert ended.reason in ("", "shutdown"), ended


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_managers_reboot_is_the_guests_and_then_the_containers(
    manager: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = boot_guest(
        container, boot_root, "systemd252", str(tmp_path), "echo up\n", manager=manager, mapped=True, after=None
    )
    await_probe(running, 40)
    first = running.pid1()
    ask(running, "reboot")
    rebooted(running, first)


@pytest.mark.parametrize("word", ["poweroff", "reboot"])
def test_virsh_by_signal_is_understood_as_well(
    word: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    """SIGTERM for poweroff, SIGHUP for reboot."""
    driver = type("BySignal", (DRIVERS["libvirt"],), {"mode": "signal"})

    def make(_manager: str, **options: str) -> Container:
        return container(driver, **options)

    running = boot_guest(make, boot_root, "busybox", str(tmp_path), "echo up\n", mapped=True, after=None, initctl=False)
    await_probe(running, 40)
    first = running.pid1()
    ask(running, word)
    if word == "reboot":
        rebooted(running, first)
    else:
        assert running.wait(40).reason == "shutdown"


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_reboot_from_inside_is_passed_on_to_the_manager(
    manager: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = boot_guest(
        container,
        boot_root,
        "busybox",
        str(tmp_path),
        "sleep 1\n",  # time to look at PID 1
        manager=manager,
        mapped=True,
        after="reboot",
    )
    running.expect(UP, 30)
    first = running.pid1()
    rebooted(running, first)


def rebooted(running: Container, first: int) -> None:
    """The manager starts the container again, or says by its exit status that it is to be started again."""
    if not type(running).restarts:
        assert running.wait(40).status == 133  # nspawn's for a unit that restarts on it
        return
    deadline = time.monotonic() + 40
    while running.pid1(20) == first:
        assert time.monotonic() < deadline, "the container goes on"
        time.sleep(0.1)
    assert running.guest_pid1(20)


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_poweroff_from_inside_ends_the_container(
    manager: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = boot_guest(container, boot_root, "busybox", str(tmp_path), "true\n", manager=manager, mapped=True)
    ended = running.wait(40)
    assert ended.status in (0, None), ended
    assert ended.reason in ("", "shutdown"), ended


@pytest.mark.parametrize("privileged", [True, False])
def test_under_runc_a_reboot_is_done_in_place_and_a_poweroff_exits(
    privileged: bool, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    driver = type("Runc", (DRIVERS["runc"],), {"privileged": privileged})
    if not privileged:
        # nothing can be mounted without CAP_SYS_ADMIN: what is left is the small form
        running = driver(console="pipe")
        with running:
            config = "{root: null, setup: none, exec: {mode: tolerant, pid: shared, command: [sh, -c, 'exit 7']}}"
            running.start(boot_root, config=config)
            assert running.wait(20).status == 7
        return
    running = boot_guest(
        lambda _manager, **options: container(driver, **options),
        boot_root,
        "busybox",
        str(tmp_path),
        "true\n",
        mapped=True,
        after="reboot",
    )
    place = running.expect(UP, 30).end()
    pid = running.pid1()
    place = running.expect(UP, 30, start=place).end()
    assert running.pid1() == pid
    running.poweroff()
    assert running.wait(20).status in (0, 130)


pytestmark_qemu = pytest.mark.skipif(bool(qemu.usable()), reason=qemu.usable())
DISK = "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk"


@pytest.fixture
def machine(boot_root: str) -> Iterator[qemu.Qemu]:
    with qemu.Qemu() as made:
        yield made


@pytestmark_qemu
@pytest.mark.parametrize(
    ("after", "said"), [("poweroff", "reboot: Power down"), ("reboot", "reboot: Restarting system")]
)
def test_a_machine_of_its_own_is_powered_off_and_restarted_by_a_guest_with_an_id_map(
    after: str, said: str, machine: qemu.Qemu, boot_root: str, guest_copy: Callable[..., str]
) -> None:
    config = f"""\
id_map: {{users: 0 1000000 65536}}
root: {{id_map: true}}
setup:
  before:
  - sh -c '[ -e /dev/vda ] || load-modules {DISK}'
  - mount -t ext4 /dev/vda /mnt/root
exec: {{mode: tolerant}}
"""
    script = STATE + 'echo "controllers $(cat /sys/fs/cgroup/cgroup.controllers)"\n'
    root = guest_copy("systemd252")
    add_probe(root, "systemd252", script, after)
    archive = machine.initramfs()
    archive.tree(boot_root, without=qemu.UNPACKED_NOT)
    archive.modules()
    archive.file("mnt/init.yml", config)
    image = qemu.disk(os.path.join(machine.directory, "disk"), root, 256)
    machine.boot(archive.close(), disks=[image])
    result = await_probe(machine, 180)
    assert result.value("state") == "running"
    assert result.values("failed") == []
    assert result.value("uid_map") == "0 1000000 65536"
    assert {"cpu", "memory", "pids"} <= set(result.value("controllers").split())
    assert machine.wait(60).status == 0
    text = re.sub(r"\r+\n", "\n", machine.console().decode(errors="replace"))
    assert said in text
    assert "Kernel panic" not in text
