"""Real guests, handed over: with an id map and without, ended from inside and by their init's own words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.container import Container
from tests.lab.probe import SYSTEMD_STATE, await_probe, layer_for

MAPPED = """\
id_map: {users: 0 1000000 65536}
setup:
  before:
  - mount-idmapped --map-mount=b:0:1000000:65536 /mnt/root /mnt/root
  - overlay -- /mnt/layer
"""
PLAIN = """\
setup:
  mode: auto
  before: overlay -- /mnt/layer
"""
SCRIPTS = {"systemd": SYSTEMD_STATE}
FACTS = """\
echo "uid_map $(tr -s ' ' < /proc/1/uid_map)"
echo "pid1 $(cat /proc/1/comm)"
echo "rows $(wc -l < /proc/self/mountinfo)"
for each in dev/console dev/pts dev/shm proc sys run; do [ -e /$each ] || echo "missing $each"; done
echo "bounding $(grep CapBnd /proc/self/status | cut -f2)"
"""

REBOOT_DEATH = 128 + 1  # SIGHUP: what a PID namespace's PID 1 dies of when it calls reboot(RESTART)
POWEROFF_DEATH = 128 + 2  # SIGINT: the same for POWER_OFF and HALT


def boot(
    container: Callable[..., Container],
    boot_root: str,
    guest: str,
    layer: str,
    config: str,
    **options: object,
) -> Container:
    running = container("unshare", **({"console": "pty"} | options))  # type: ignore[arg-type]
    return running.start(boot_root, guest_root=guest, config=config, binds=[(layer, "/mnt/layer")])


def shifted_layer(directory: str, name: str, script: str, *, mapped: bool, after: str | None = "poweroff") -> str:
    from tests.lab import guests

    layer = layer_for(directory, name, script, after)
    if mapped:
        guests.shift_owners(layer, 1000000)
    return layer


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
@pytest.mark.parametrize("name", ["systemd252", "systemd257", "systemd262"])
def test_systemd_comes_up_without_a_failed_unit(
    name: str,
    mapped: bool,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", name, SYSTEMD_STATE, mapped=mapped)
    running = boot(container, boot_root, guest_root(name), layer, MAPPED if mapped else PLAIN)
    result = await_probe(running, 15)
    assert result.values("failed") == []
    assert result.value("state") == "running"
    assert result.value("uid_map") == ("0 1000000 65536" if mapped else "0 0 4294967295")
    assert running.wait().status == POWEROFF_DEATH


@pytest.mark.parametrize(
    ("name", "after", "status"),
    [
        ("busybox", "poweroff", POWEROFF_DEATH),
        ("busybox", "reboot", REBOOT_DEATH),
        ("sysvinit", "poweroff", POWEROFF_DEATH),
        ("sysvinit", "reboot", REBOOT_DEATH),
        ("systemd252", "reboot", REBOOT_DEATH),
    ],
)
def test_a_guest_that_ends_itself_ends_the_container(
    name: str,
    after: str,
    status: int,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", name, FACTS, mapped=False, after=after)
    running = boot(container, boot_root, guest_root(name), layer, PLAIN)
    result = await_probe(running, 15)
    assert result.values("missing") == []
    assert result.value("uid_map") == "0 0 4294967295"
    assert running.wait().status == status


@pytest.mark.parametrize("console", ["pty", "pipe"])
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_a_plain_command_keeps_its_streams_and_its_exit_code(
    mapped: bool,
    console: str,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", "plain", FACTS, mapped=mapped)
    config = (MAPPED if mapped else PLAIN) + "exec: [/bin/sh, -c, 'echo pid $$; id -u; cat /proc/1/uid_map; exit 7']\n"
    running = boot(container, boot_root, guest_root("plain"), layer, config, console=console)
    assert running.wait().status == 7
    text = running.console().decode()
    assert "pid 1" in text
    assert ("1000000" in text) == mapped


def test_a_plain_command_has_no_hold_on_a_terminal_of_somebody_elses_session(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", "plain", FACTS, mapped=True)
    config = (
        MAPPED + "exec: [/bin/sh, -c, 'echo tty $(cut -d \" \" -f 7 /proc/self/stat); test -t 1 && echo terminal']\n"
    )
    running = boot(container, boot_root, guest_root("plain"), layer, config)
    assert running.wait().status == 0
    text = running.console().decode()
    assert "tty 0" in text
    assert "terminal" in text


def test_without_a_configuration_file_the_defaults_boot(
    boot_root: str, guest_copy: Callable[..., str], container: Callable[..., Container]
) -> None:
    running = container("unshare").start(boot_root, guest_root=guest_copy("busybox"))
    running.expect("busybox is up", 20)
    running.run("/sbin/poweroff")
    assert running.wait(20).status == POWEROFF_DEATH
