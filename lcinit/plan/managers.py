"""Container managers: how each is known, what it passes on to the guest, what about it changes a step.

A manager is here only where something differs; all others are "generic". Sources: lxc.container.conf(5), nspawn's
systemd.io/CONTAINER_INTERFACE, libvirt's drvlxc page, podman-run(1), the OCI runtime specification.
"""

from __future__ import annotations

from lcinit.record import Record


class Manager(Record):
    """What is particular to one manager.

    `container`: the values of `container=` that mean it. `private_terminal`: its terminal is of a devpts instance made
    for the container. `private_network`: a network namespace that is not the machine's was made for the container.
    `environment`: the variables it documents for PID 1, as globs.

    For a lcinit that stays: `restarts`: it starts the container again when PID 1 calls reboot(2) with RESTART.
    `int_reboots`, `hup_reboots`: it sends SIGINT, SIGHUP to PID 1 to ask for a reboot. `stop_timeout`: seconds that a
    stop may take, a little less than it waits before it kills.
    """

    name: str
    container: tuple[str, ...]
    private_terminal: bool = True
    private_network: bool = True
    environment: tuple[str, ...] = ()
    restarts: bool = False
    int_reboots: bool = False
    hup_reboots: bool = False
    stop_timeout: float = 90.0


COMMON_ENVIRONMENT = ("container", "container_uuid", "container_ttys", "TERM", "LANG", "LC_*", "TZ")

MANAGERS: dict[str, Manager] = {
    manager.name: manager
    for manager in (
        Manager(
            name="lxc",
            container=("lxc",),
            environment=("container_ttys",),
            restarts=True,
            int_reboots=True,
            stop_timeout=55.0,
        ),
        Manager(
            name="libvirt-lxc",
            container=("lxc-libvirt",),
            environment=("LIBVIRT_LXC_UUID", "LIBVIRT_LXC_NAME", "LIBVIRT_LXC_CMDLINE"),
            restarts=True,
            int_reboots=True,
            hup_reboots=True,
        ),
        Manager(
            name="systemd-nspawn",
            container=("systemd-nspawn",),
            environment=("container_host_*", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"),
            restarts=True,
            int_reboots=True,
        ),
        Manager(name="podman", container=("podman",), environment=("HOSTNAME",), stop_timeout=8.0),
        Manager(name="docker", container=("docker",), environment=("HOSTNAME",), stop_timeout=8.0),
        Manager(name="runc", container=("oci", "runc", "crun")),
        Manager(name="generic", container=(), private_terminal=False, private_network=False),
    )
}


def recognise(container: str | None) -> str:
    """The manager's name from `container=` of PID 1's environment (systemd.io/CONTAINER_INTERFACE).

    Files such as /.dockerenv are no marks: they also lie in the root of whoever starts lcinit by hand in a container,
    and a known manager's terminal and interfaces may be taken.
    """
    for manager in MANAGERS.values():
        if container is not None and container in manager.container:
            return manager.name
    return "generic"
