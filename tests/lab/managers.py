"""Drivers of container managers: the same container, started by each in its own words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from tests.lab.container import PATH, STARTER, Container, Specification
from tests.lab.libvirt import Libvirt
from tests.lab.runc import Runc


class Unshare(Container):
    """unshare(1) and a minimal start: every namespace but user, /proc, /sys, cgroup2 and /dev of its own."""

    manager = "unshare"

    def command(self, spec: Specification) -> Sequence[str]:
        inner = {
            "container": {
                "root": spec.root,
                "binds": spec.binds,
                "tmpfs": spec.tmpfs,
                "read_only": spec.read_only,
                "cgroup": "/sys/fs/cgroup/payload",
                "hostname": self.name,
            },
            "argv": [spec.init, *spec.arguments],
            "environment": {"PATH": PATH, "TERM": "vt220", **spec.environment},
        }
        path = self.write_json("container.json", inner)
        options = ["--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "--ipc"]
        return ["unshare", *options, "--", sys.executable, "-I", STARTER, path]


class Nspawn(Container):
    """systemd-nspawn(1) with --boot, unregistered, with a network namespace of its own."""

    manager = "nspawn"
    options: tuple[str, ...] = ()

    def manager_environment(self) -> dict[str, str]:
        """Unified cgroups: nspawn looks for systemd in the image, finds none in a boot root and falls back to v1."""
        return {**super().manager_environment(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}

    def command(self, spec: Specification) -> Sequence[str]:
        command = ["systemd-nspawn", "--quiet", f"--directory={spec.root}", f"--machine={self.name}"]
        command += ["--register=no", "--keep-unit", "--private-network", "--resolv-conf=off", "--timezone=off"]
        command.append("--console=interactive" if self.console_kind == "pty" else "--console=pipe")
        for mount in spec.binds:
            option = "--bind-ro" if mount.read_only else "--bind"
            command.append(f"{option}={_escape(mount.source)}:{_escape(mount.target)}")
        command += [f"--tmpfs={_escape(target)}:mode=0755" for target in spec.tmpfs]
        command += [f"--setenv={name}={value}" for name, value in spec.environment.items()]
        if spec.read_only:
            command.append("--read-only")
        if spec.init == "/sbin/init":
            return [*command, *self.options, "--boot", "--", *spec.arguments]
        return [*command, *self.options, "--kill-signal=SIGRTMIN+3", "--", spec.init, *spec.arguments]

    def poweroff(self) -> None:
        """SIGTERM to nspawn itself, which sends PID 1 SIGRTMIN+3 (systemd-nspawn(1), --kill-signal)."""
        os.kill(self.manager_pid(), signal.SIGTERM)

    def reboot(self) -> None:
        """SIGINT to PID 1, as `machinectl reboot` does."""
        os.kill(self.pid1(), signal.SIGINT)


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


class LXC(Container):
    """lxc-start(1) in the foreground, privileged, with the distribution's common configuration."""

    manager = "lxc"
    restarts = True
    extra: tuple[str, ...] = ()

    def command(self, spec: Specification) -> Sequence[str]:
        lines = [
            "lxc.include = /usr/share/lxc/config/common.conf",
            f"lxc.rootfs.path = dir:{spec.root}",
            f"lxc.uts.name = {self.name}",
            "lxc.net.0.type = empty",
            "lxc.apparmor.profile = unconfined",
            f"lxc.init.cmd = {' '.join([spec.init, *spec.arguments])}",
            *(f"lxc.environment = {name}={value}" for name, value in spec.environment.items()),
        ]
        for mount in spec.binds:
            options = "rbind,ro" if mount.read_only else "rbind"
            lines.append(f"lxc.mount.entry = {mount.source} {mount.target.lstrip('/')} none {options} 0 0")
        for target in spec.tmpfs:
            lines.append(f"lxc.mount.entry = tmpfs {target.lstrip('/')} tmpfs nosuid,nodev,mode=755 0 0")
        if spec.read_only:
            lines.append("lxc.rootfs.options = ro")
        os.makedirs(os.path.join(self.directory, "lxc", self.name))
        path = os.path.join(self.directory, "lxc", self.name, "config")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join([*lines, *self.extra, ""]))
        log = os.path.join(self.directory, "lxc.log")
        return ["lxc-start", "-P", os.path.join(self.directory, "lxc"), "-n", self.name, "-F", "-l", "INFO", "-o", log]

    def _ask(self, *options: str) -> None:
        """lxc-stop(1) in the monitor's mount and network namespaces, where its command socket is."""
        command = ["nsenter", "--target", str(self.manager_pid()), "--mount", "--pid", "--net", "--cgroup", "--"]
        command += ["lxc-stop", "-P", os.path.join(self.directory, "lxc"), "-n", self.name, "--nowait", *options]
        subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)

    def poweroff(self) -> None:
        self._ask("--nokill")

    def reboot(self) -> None:
        self._ask("--reboot")


DRIVERS: dict[str, type[Container]] = {driver.manager: driver for driver in (Unshare, Nspawn, LXC, Libvirt, Runc)}
