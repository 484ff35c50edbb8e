"""Real guests with an id map, handed over: poweroff, halt and reboot reach the manager as what they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.guests.test_handoff import FACTS, MAPPED, POWEROFF_DEATH, REBOOT_DEATH, boot, shifted_layer
from tests.lab.container import Container
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
