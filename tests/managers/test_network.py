"""network.interfaces: auto under a manager that made an interface for the container: the guest has it as it was."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.container import Container
from tests.lab.managers import LXC

CONFIG = """\
root: {path: /mnt/root, id_map: true}
id_map: {users: 0 1000000 65536}
exec: [/bin/sh, /mnt/look]
"""
LOOK = """\
echo "names $(ls /sys/class/net | tr '\\n' ' ')"
echo "mtu $(cat /sys/class/net/eth0/mtu)"
echo "state $(cat /sys/class/net/eth0/flags)"
echo "gateway $(grep -c '010C0B0A' /proc/net/route)"
grep -q 10.11.12.2 /proc/net/fib_trie && echo "address here"
grep -q '20010db8000000000000000000000002' /proc/net/if_inet6 && echo "address6 here"
echo "loopback $(cat /sys/class/net/lo/flags)"
"""


class Networked(LXC):
    """LXC with a veth pair whose other end is in the manager's own network namespace."""

    extra = (
        "lxc.net.1.type = veth",
        "lxc.net.1.name = eth0",
        "lxc.net.1.flags = up",
        "lxc.net.1.mtu = 1400",
        "lxc.net.1.ipv4.address = 10.11.12.2/24",
        "lxc.net.1.ipv4.gateway = 10.11.12.1",
        "lxc.net.1.ipv6.address = 2001:db8::2/64",
    )


def test_an_interface_arrives_with_its_addresses_routes_mtu_and_state(
    boot_root: str, guest_copy: Callable[..., str], container: Callable[..., Container]
) -> None:
    guest = guest_copy("plain")
    with open(f"{guest}/mnt/look", "w") as file:
        file.write(LOOK)
    running = container(Networked).start(boot_root, guest_root=guest, config=CONFIG)
    running.wait()
    text = running.console().decode()
    assert "names eth0 lo" in text, text
    assert "mtu 1400" in text
    assert "state 0x1003" in text  # UP, BROADCAST, MULTICAST
    assert "gateway 1" in text
    assert "address here" in text
    assert "address6 here" in text
    assert "loopback 0x9" in text  # UP, LOOPBACK
