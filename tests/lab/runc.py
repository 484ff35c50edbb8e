"""runc: an OCI bundle with the rights that `docker run --privileged` or none of them gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from tests.lab.container import PATH, Container, Specification


class Runc(Container):
    """`runc run` of a bundle made from `runc spec` (its default: few capabilities, masked and read-only paths).

    With `privileged` every capability that this machine has, nothing masked, and a writable /sys and cgroup.
    """

    manager = "runc"
    privileged = True
    #: whether the container has a cgroup namespace (`docker run --cgroupns=private`, the default with cgroup2)
    cgroup_namespace = True

    def command(self, spec: Specification) -> Sequence[str]:
        bundle = os.path.join(self.directory, "bundle")
        os.mkdir(bundle)
        subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
        path = os.path.join(bundle, "config.json")
        with open(path, encoding="utf-8") as file:
            config: dict[str, Any] = json.load(file)
        config["hostname"] = self.name
        config["root"] = {"path": spec.root, "readonly": spec.read_only}
        process = config["process"]
        process["terminal"] = self.console_kind == "pty"
        process["args"] = [spec.init, *spec.arguments]
        process["env"] = [
            f"PATH={PATH}",
            "TERM=xterm",
            *(f"{name}={value}" for name, value in spec.environment.items()),
        ]
        # Limits of `runc spec` may be above this machine's own, which only CAP_SYS_RESOURCE can pass.
        process.pop("rlimits", None)
        for mount in spec.binds:
            options = ["rbind", "ro" if mount.read_only else "rw"]
            config["mounts"].append(
                {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}
            )
        for target in spec.tmpfs:
            config["mounts"].append(
                {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=755"]}
            )
        config["linux"]["cgroupsPath"] = "/payload"
        kept = [each for each in config["linux"]["namespaces"] if each["type"] != "cgroup"]
        config["linux"]["namespaces"] = [*kept, {"type": "cgroup"}] if self.cgroup_namespace else kept
        if self.privileged:
            self._privilege(config)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return ["runc", "--root", "/run/runc", "run", "--bundle", bundle, self.name]

    def poweroff(self) -> None:
        """SIGTERM to PID 1, as `docker stop`, `podman stop` and a kubelet do; they kill it 8 to 30 s later."""
        os.kill(self.pid1(), signal.SIGTERM)

    def reboot(self) -> None:
        """OCI has no reboot: SIGINT, which a user may send with `runc kill`."""
        os.kill(self.pid1(), signal.SIGINT)

    @staticmethod
    def _privilege(config: dict[str, Any]) -> None:
        process, linux = config["process"], config["linux"]
        process["noNewPrivileges"] = False
        process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), _capabilities())
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
        linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
        for mount in config["mounts"]:
            if mount["destination"] in ("/sys", "/sys/fs/cgroup"):
                mount["options"] = [option for option in mount["options"] if option != "ro"]


def _capabilities() -> list[str]:
    """What this process may give: an OCI name for each capability of its bounding set."""
    with open("/proc/self/status", encoding="utf-8") as file:
        bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return [f"CAP_{name}" for number, name in enumerate(_NAMES.split()) if bounding >> number & 1]


# linux/capability.h, in the order of their numbers
_NAMES = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"""
