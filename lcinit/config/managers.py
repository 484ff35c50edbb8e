"""The words that `setup.mode` takes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MANAGERS: Final[dict[str, str]] = {
    "lxc": "lxc",
    "libvirt-lxc": "lxc-libvirt",
    "systemd-nspawn": "systemd-nspawn",
    "podman": "podman",
    "docker": "",
    "runc": "",
}
"""Each manager with the value of `container=` that it gives its PID 1 (systemd.io/CONTAINER_INTERFACE).

Empty: it gives none. An image may set one of its own, as those made for docker often do.
"""

MODES: Final[dict[str, str]] = {
    "auto": "auto",
    "guess": "auto",
    "none": "none",
    "generic": "generic",
    **{name: name for name in MANAGERS},
    "lxc-libvirt": "libvirt-lxc",
    "libvirt_lxc": "libvirt-lxc",
    "nspawn": "systemd-nspawn",
    "incus": "lxc",
    "crun": "runc",
    "qemu": "generic",
    "unshare": "generic",
}
"""Every reserved word, and the mode that it means."""
