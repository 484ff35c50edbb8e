"""Real guests with an id map, handed over: poweroff, halt and reboot reach the manager as what they are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import pytest

from tests.guests.test_handoff import FACTS, MAPPED, POWEROFF_DEATH, REBOOT_DEATH, boot, shifted_layer
from tests.lab import guests
from tests.lab.container import Container, Specification
from tests.lab.managers import LXC
from tests.lab.probe import await_probe

INITS = ("systemd252", "systemd257", "systemd262", "busybox", "sysvinit")


@pytest.mark.parametrize(
    ("after", "status"), [("poweroff", POWEROFF_DEATH), ("halt", POWEROFF_DEATH), ("reboot", REBOOT_DEATH)]
)
@pytest.mark.parametrize("name", INITS)
def test_an_end_from_inside_is_what_the_manager_sees(
    name: str,
    after: str,
    status: int,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", name, FACTS, mapped=True, after=after)
    running = boot(container, boot_root, guest_root(name), layer, MAPPED)
    result = await_probe(running, 15)
    assert result.values("missing") == []
    assert result.value("uid_map") == "0 1000000 65536"
    assert running.wait(30).status == status


# what their administrators type; finit is asked by the signals that its own tools send
TOOLS = {
    "runit": {"poweroff": "/sbin/init 0", "reboot": "/sbin/init 6"},
    "openrc": {
        "poweroff": "/sbin/openrc-shutdown --poweroff now",
        "halt": "/sbin/openrc-shutdown --halt now",
        "reboot": "/sbin/openrc-shutdown --reboot now",
    },
    "finit": {"poweroff": "kill -USR2 1", "reboot": "kill -TERM 1"},
}


@pytest.mark.parametrize(("name", "after"), [(name, after) for name, words in TOOLS.items() for after in words])
def test_an_init_that_used_to_hang_ends_as_it_is_told(
    name: str,
    after: str,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    recipe = guests.RECIPES[name]
    layer = shifted_layer(f"{tmp_path}/layer", name, "", mapped=True, after=None)
    config = f"{MAPPED}exec: [{', '.join(recipe.command)}]\n"
    running = boot(container, boot_root, guest_root(name), layer, config)
    running.expect(recipe.up, 30)
    time.sleep(1)  # finit has its handlers before it heeds them
    running.run("/bin/sh", "-c", TOOLS[name][after])
    assert running.wait(40).status == (REBOOT_DEATH if after == "reboot" else POWEROFF_DEATH)


@pytest.mark.parametrize("name", ["systemd252", "sysvinit", "busybox"])
def test_a_reboot_from_inside_has_lxc_start_the_guest_again(
    name: str,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", name, FACTS, mapped=True, after="reboot")
    running = container("lxc")
    running.start(boot_root, guest_root=guest_root(name), config=MAPPED, binds=[(layer, "/mnt/layer")])
    await_probe(running, 20)
    seen = len(running.console())
    again = await_probe(running, 20, start=seen)
    assert again.value("uid_map") == "0 1000000 65536"


@pytest.mark.parametrize(("after", "status"), [("poweroff", 0), ("reboot", 133)])
@pytest.mark.parametrize("name", ["systemd257", "sysvinit"])
def test_systemd_nspawn_tells_reboot_from_poweroff(
    name: str,
    after: str,
    status: int,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", name, FACTS, mapped=True, after=after)
    running = container("nspawn")
    running.start(boot_root, guest_root=guest_root(name), config=MAPPED, binds=[(layer, "/mnt/layer")])
    await_probe(running, 20)
    assert running.wait(30).status == status


@pytest.mark.row(47)
def test_only_the_guests_root_ends_it_at_once(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> None:
    # twice --force: reboot(2) by systemctl itself
    script = """\
call="systemctl reboot --force --force"
echo "incapable $(setpriv --bounding-set=-sys_boot --inh-caps=-sys_boot $call 2>&1)"
echo "nested $(unshare --user --map-root-user $call 2>&1)"
echo "filters $(grep Seccomp_filters /proc/1/status)"
"""
    layer = shifted_layer(f"{tmp_path}/layer", "systemd252", script, mapped=True, after=None)
    running = boot(container, boot_root, guest_root("systemd252"), layer, MAPPED)
    result = await_probe(running, 15)
    assert result.lines.count("Failed to reboot: Operation not permitted") == 2, result
    assert result.value("filters").split() == ["Seccomp_filters:", "1"]
    running.run("/bin/systemd-run", "--no-block", "/bin/systemctl", "poweroff", "--force", "--force")
    assert running.wait(15).status == POWEROFF_DEATH


def test_the_shutdown_of_sysvinit_knows_the_keeper(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> None:
    script = 'spared=$(cat /run/sendsigs.omit.d/*)\necho "spared $spared $(cat /proc/$spared/comm)"\n'
    layer = shifted_layer(f"{tmp_path}/layer", "sysvinit", script, mapped=True)
    running = boot(container, boot_root, guest_root("sysvinit"), layer, MAPPED)
    result = await_probe(running, 15)
    assert result.value("spared").split()[1:] == ["lcinit-keeper"]
    assert running.wait(30).status == POWEROFF_DEATH


@pytest.mark.parametrize("manager", ["unshare", "lxc"])
def test_systemd_leaves_the_keeper_where_it_is(
    manager: str,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    script = """\
keeper=$(grep -lx lcinit-keeper /proc/[0-9]*/comm)
echo "keeper $(grep ^0:: "${keeper%comm}cgroup")"
echo "init $(grep ^0:: /proc/1/cgroup)"
"""
    layer = shifted_layer(f"{tmp_path}/layer", "systemd252", script, mapped=True)
    running = container(manager)
    running.start(boot_root, guest_root=guest_root("systemd252"), config=MAPPED, binds=[(layer, "/mnt/layer")])
    result = await_probe(running, 20)
    assert result.value("init") == "0::/init.scope"
    assert result.value("keeper").startswith("0::/lcinit-")
    running.wait(30)


class WithoutSeccomp(LXC):
    def command(self, spec: Specification) -> Sequence[str]:
        profile = os.path.join(self.directory, "profile")
        with open(profile, "w") as file:
            file.write("2\ndenylist\nseccomp errno 1\n")
        self.extra = (f"lxc.seccomp.profile = {profile}",)
        return super().command(spec)


def test_where_the_manager_permits_no_listener_the_guest_boots_and_that_is_said(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", "busybox", FACTS, mapped=True)
    running = container(WithoutSeccomp)
    running.start(boot_root, guest_root=guest_root("busybox"), config=MAPPED, binds=[(layer, "/mnt/layer")])
    assert await_probe(running, 20).values("missing") == []
    running.wait(30)
    warning = (
        "warning: reboot(2) is refused to the guest (the manager does not permit seccomp(2): Operation not permitted)"
    )
    assert warning in running.console().decode()


class WithoutBoot(LXC):
    extra = ("lxc.cap.drop = sys_boot",)


def test_an_init_that_needs_reboot_is_refused_where_nobody_may_answer(
    boot_root: str, guest_root: Callable[[str], str], container: Callable[..., Container], tmp_path: object
) -> None:
    layer = shifted_layer(f"{tmp_path}/layer", "sysvinit", FACTS, mapped=True)
    running = container(WithoutBoot)
    running.start(boot_root, guest_root=guest_root("sysvinit"), config=MAPPED, binds=[(layer, "/mnt/layer")])
    running.expect("cannot end without reboot", 20)
    text = running.console().decode()
    assert "sysvinit" in text
    assert "CAP_SYS_BOOT" in text
    assert "exec.mode: tolerant" in text
