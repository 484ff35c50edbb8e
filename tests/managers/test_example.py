"""The example file of the older program, unchanged, boots systemd 252 rootless under every manager."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.lab import guests
from tests.lab.container import Container
from tests.lab.probe import SYSTEMD_STATE, add_probe, await_probe

EXAMPLE = os.path.join(os.path.dirname(__file__), "..", "unit", "data", "example-init.yml")

SCRIPT = (
    SYSTEMD_STATE
    + """\
echo "passwd $(stat -c %u:%g /etc/passwd)"
echo "both $(cat /both)"
echo "lower $(cat /only-0)"
echo "console $(stat -c '%u %F' /dev/console)"
echo "root $(stat -c %u:%g /)"
"""
)


def make_layers(directory: str) -> tuple[str, str]:
    """Two layers that both hold /both, owned as the example's order of mounts needs."""
    layers = []
    for number in (0, 1):
        layer = os.path.join(directory, f"layer{number}")
        os.mkdir(layer, 0o755)
        for name in ("both", f"only-{number}"):
            with open(os.path.join(layer, name), "w") as file:
                file.write(f"from layer {number}\n")
        layers.append(layer)
    add_probe(layers[1], "systemd252", SCRIPT)
    for layer in layers:
        guests.shift_owners(layer, 1000000)
    return layers[0], layers[1]


@pytest.mark.parametrize("manager", ["unshare", "lxc", "nspawn", "libvirt"])
def test_the_example_boots_systemd_rootless(
    manager: str,
    boot_root: str,
    guest_root: Callable[[str], str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    first, second = make_layers(str(tmp_path))
    with open(EXAMPLE, encoding="utf-8") as file:
        config = file.read()
    running = container(manager)
    running.start(
        boot_root,
        guest_root=guest_root("systemd252"),
        config=config,
        binds=[(first, "/mnt/layers/0"), (second, "/mnt/layers/1")],
    )
    result = await_probe(running)
    assert result.value("state") == "running"
    assert result.values("failed") == []
    assert result.value("uid_map") == "0 1000000 65536"
    assert result.value("passwd") == "0:0"
    assert result.value("both") == "from layer 1"
    assert result.value("lower") == "from layer 0"
    assert result.value("console") == "0 character special file"
    assert result.value("root") == "0:0"
    ended = running.wait()
    assert ended.status == {"unshare": 130, "libvirt": None}.get(manager, 0), ended
    assert ended.reason in ("", "shutdown"), ended
    text = running.console().decode(errors="replace")
    said = ("'next hop' root!", "ready to boot `systemd` now.", "interpreted by real shell (bash)!", "via `cli` key.")
    places = [text.find(words) for words in said]
    assert -1 not in places, text
    assert places == sorted(places)
