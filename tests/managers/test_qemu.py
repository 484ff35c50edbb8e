"""lcinit as the first process of a machine: no manager, nothing mounted, Debian's kernel, cgroup2 with controllers."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.lab import guests, qemu
from tests.lab.probe import add_probe, await_probe

pytestmark = pytest.mark.skipif(bool(qemu.usable()), reason=qemu.usable())

DISK = "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk"
NETWORK = "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net"


@pytest.fixture
def machine(boot_root: str) -> Iterator[qemu.Qemu]:
    """A machine that is removed whatever the test does."""
    with qemu.Qemu() as made:
        yield made


def boot_initramfs(machine: qemu.Qemu, boot_root: str, config: str) -> qemu.Archive:
    """A boot root as an initramfs; the caller adds to it and closes it."""
    archive = machine.initramfs()
    archive.tree(boot_root, without=qemu.UNPACKED_NOT)
    archive.modules()
    archive.file("mnt/init.yml", config)
    return archive


def add_guest(archive: qemu.Archive, machine: qemu.Qemu, name: str, script: str, after: str) -> None:
    """Guest `name` at /mnt/root, with a probe."""
    layer = os.path.join(machine.directory, "layer")
    os.mkdir(layer)
    add_probe(layer, name, script, after)
    archive.tree(guests.guest(name), "mnt/root")
    archive.tree(layer, "mnt/root")


def console_of(machine: qemu.Qemu) -> str:
    return re.sub(r"\r+\n", "\n", machine.console().decode(errors="replace"))  # two terminals, the machine's and ours


def test_a_boot_root_as_initramfs_boots_a_guest_which_powers_the_machine_off(
    machine: qemu.Qemu, boot_root: str
) -> None:
    config = f"""\
setup:
  before:
  - load-modules overlay {NETWORK}
  - mount -t tmpfs tmpfs /mnt/cache
  - overlay
  - sh -c 'echo "kernel $(uname -r)"; ls /proc/1/exe /sys/kernel/mm /dev/kmsg; echo outer $(ls /sys/class/net)'
exec:
  before: ls /
"""
    archive = boot_initramfs(machine, boot_root, config)
    script = """\
echo "interfaces $(echo $(ls /sys/class/net))"
echo "cgroup $(cat /proc/self/cgroup)"
echo "controllers $(cat /sys/fs/cgroup/cgroup.controllers)"
echo "root $(grep ' / / ' /proc/self/mountinfo)"
echo changed >/etc/changed && echo "written $(cat /etc/changed)"
sleep 2  # busybox kills what is in its way, and the keeper must have begun to relay
"""
    add_guest(archive, machine, "busybox", script, "poweroff")
    machine.boot(archive.close(), network=True)
    result = await_probe(machine)
    assert result.value("interfaces") == "lo"
    assert result.value("cgroup") == "0::/"
    assert {"cpu", "memory", "pids"} <= set(result.value("controllers").split())
    assert " - overlay " in result.value("root")
    assert result.value("written") == "changed"
    assert machine.wait().status == 0
    text = console_of(machine)
    assert f"kernel {qemu.release()}" in text
    assert "/proc/1/exe\n" in text and "No such file" not in text
    assert re.search(r"^outer eth0 lo$", text, re.MULTILINE), text  # the machine's card was there, and stays there
    assert "reboot: Power down" in text
    assert "Kernel panic" not in text


def test_systemd_from_an_idmapped_disk_cannot_reach_the_initramfs_and_powers_the_machine_off(
    machine: qemu.Qemu, boot_root: str, guest_copy: Callable[..., str]
) -> None:
    config = f"""\
id_map: {{users: 0 1000000 65536}}
root: {{id_map: true}}
setup:
  before:
  - load-modules {DISK}
  - mount -t ext4 /dev/vda /mnt/root
exec:
  command: /lib/systemd/systemd --system
"""
    # what pivot_root(2) left below "/" is locked: neither taking the root away nor entering the namespace anew shows it
    script = """\
echo "state $(systemctl is-system-running --wait)"
systemctl --failed --no-legend --plain | while read -r unit rest; do echo "failed $unit"; done
echo "uid_map $(cat /proc/1/uid_map | tr -s ' ')"
echo "owner $(stat -c %u:%g /etc/passwd)"
echo "controllers $(cat /sys/fs/cgroup/cgroup.subtree_control)"
umount -l / && echo "root taken away" || echo "root stays"
umount -l /proc && echo "proc taken away" || echo "proc stays"
mount -t sysfs sysfs /mnt && echo "sysfs ok"
echo "entered $(nsenter -t 1 -m ls -d /init /etc/lcinit-probe 2>/dev/null)"
"""
    root = guest_copy("systemd257")
    add_probe(root, "systemd257", script, "poweroff")
    archive = boot_initramfs(machine, boot_root, config)
    image = qemu.disk(os.path.join(machine.directory, "disk"), root, 256)
    machine.boot(archive.close(), disks=[image])
    result = await_probe(machine, 120)
    assert result.value("state") == "running"
    assert result.values("failed") == []
    assert result.value("uid_map") == "0 1000000 65536"
    assert result.value("owner") == "0:0"
    assert "memory" in result.value("controllers")
    assert result.value("root") == "stays"
    assert result.value("proc") == "stays"
    assert result.value("sysfs") == "ok"
    assert result.value("entered") == "/etc/lcinit-probe"  # and no /init, which the initramfs has
    machine.wait()
    text = console_of(machine)
    assert "reboot: Power down" in text
    assert "Kernel panic" not in text


BEFORE_LCINIT = f"""\
#!/bin/sh
load-modules {DISK}
mount -t devtmpfs devtmpfs /dev
mkdir /new
mount -t ext4 /dev/vda /new
umount /dev
# as the kernel starts an init for which it found no /dev/console
exec switch_root /new /sbin/init <&- >&- 2>&-
"""


def test_the_init_of_a_root_disk_without_devices_finds_the_console_and_restarts_the_machine(
    machine: qemu.Qemu, boot_root: str
) -> None:
    root = os.path.join(machine.directory, "disk-root")
    subprocess.run(["cp", "-a", boot_root, root], check=True)
    shutil.rmtree(os.path.join(root, "dev"))
    os.mkdir(os.path.join(root, "dev"))
    # so early the kernel has no random numbers without a processor that makes them, and Python does not start without
    os.mknod(os.path.join(root, "dev/urandom"), 0o666 | stat.S_IFCHR, os.makedev(1, 9))
    guest = os.path.join(root, "mnt/root")
    subprocess.run(["cp", "-a", f"{guests.guest('busybox')}/.", guest], check=True)
    add_probe(guest, "busybox", "ls /proc/1/root/ >/dev/null && echo up yes\nsleep 2\n", "reboot")
    with open(os.path.join(root, "mnt/init.yml"), "w") as file:
        file.write("setup: {before: [\"sh -c 'lcinit doctor --json; echo doctor $?'\"]}\n")
    archive = machine.initramfs()
    archive.tree(guests.guest("busybox"))
    archive.modules()
    archive.file("init", BEFORE_LCINIT, 0o755)
    machine.boot(archive.close(), disks=[qemu.disk(os.path.join(machine.directory, "disk"), root, 256)])
    assert await_probe(machine).value("up") == "yes"
    assert machine.wait().status == 0
    text = console_of(machine)
    assert "reboot: Restarting system" in text
    said, _, code = text.partition("\ndoctor ")
    assert code.startswith("0\n")
    data = json.loads(said[said.index("{") :])
    found = {finding["subject"]: finding["verdict"] for finding in data["findings"]}
    assert data["handoff"] is True
    assert [subject for subject, verdict in found.items() if verdict == "missing"] == []
    assert found["pivot_root"] == "ok"


def test_services_are_a_machines_own_and_its_initramfs_is_read_again(machine: qemu.Qemu, boot_root: str) -> None:
    config = """\
setup:
  before:
  - load-modules overlay
  - mount -t tmpfs tmpfs /mnt/cache
  - overlay
exec: {mode: tolerant, pid: shared}
services:
  first:
    command: /etc/first
    log: {to: console}
"""
    first = """\
#!/bin/sh
cd /etc/lcinit
printf '%s\\n' "command: [/bin/sh, -c, 'echo it is up; kill -38 1; exec sleep 1000']" 'log: {to: console}' \\
    >services/later.yml
ln -s ../services/later.yml enabled/later
echo "services in $(cat /proc/self/cgroup)"
kill -HUP 1
exec sleep 1000
"""
    archive = boot_initramfs(machine, boot_root, config)
    layer = os.path.join(machine.directory, "layer")
    for name in ("services", "enabled"):
        os.makedirs(os.path.join(layer, "etc/lcinit", name))
    guests.place_file(layer, "etc/first", 0o755, first)
    archive.tree(guests.guest("busybox"), "mnt/root")
    archive.tree(layer, "mnt/root")
    machine.boot(archive.close())
    assert machine.wait(120).status == 0
    text = console_of(machine)
    assert re.search(r"services in 0::/.*first\.service$", text, re.MULTILINE), text
    assert "later added: starting" in text, text
    assert re.search(r"later(\[\d+\])?: it is up$", text, re.MULTILINE), text
    assert "reboot: Power down" in text
    assert "Kernel panic" not in text
