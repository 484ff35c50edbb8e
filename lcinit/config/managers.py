"""The words that `setup.mode` takes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MANAGERS: Final = ("lxc", "libvirt-lxc", "systemd-nspawn", "podman", "docker", "runc")
"""Each manager that a plan knows by name; what it does differently under one is in plan.managers."""

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
