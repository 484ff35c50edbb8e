"""libvirt_lxc: a private libvirtd for one container, reached through virsh."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import ClassVar
from xml.sax.saxutils import escape, quoteattr

from tests.lab.container import Container, ContainerError, Ended, Specification


class Libvirt(Container):
    """A domain of type lxc. Only a terminal console: libvirt_lxc makes one whatever the domain says.

    `capabilities`: "default" or "allow" (libvirt drops none; formatdomain, "Containers with capabilities").
    """

    manager = "libvirt"
    restarts = True
    private_directories: ClassVar[tuple[str, ...]] = (
        "/run",
        "/var/lib/libvirt",
        "/var/cache/libvirt",
        "/var/log/libvirt",
        "/etc/libvirt",
    )
    # libvirt takes a cgroup2 without controllers for absent (virCgroupV2Available), and nobody delegates any here.
    controllers_v1: ClassVar[tuple[str, ...]] = ("cpu", "cpuacct", "memory", "devices", "freezer", "blkio")
    capabilities = "default"
    #: shutdown mode of virsh: "initctl" or "signal"
    mode = "initctl"

    def command(self, spec: Specification) -> Sequence[str]:
        with open(os.path.join(self.directory, "domain.xml"), "w", encoding="utf-8") as file:
            file.write(self.domain(spec))
        # No system bus: libvirtd then makes cgroups itself instead of asking systemd-machined.
        return ["libvirtd", "--config", self._configuration()]

    def _configuration(self) -> str:
        path = os.path.join(self.directory, "libvirtd.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write('auth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_level = 3\n')
            file.write(f'log_outputs = "3:file:{self.log}"\n')
        return path

    @property
    def log(self) -> str:
        """What libvirtd had to say."""
        return os.path.join(self.directory, "libvirtd.log")

    def domain(self, spec: Specification) -> str:
        """The domain's XML. `privnet` gives it a network namespace although it has no interface."""
        lines = [
            "<domain type='lxc'>",
            f"<name>{self.name}</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>",
            f"<os><type>exe</type><init>{escape(spec.init)}</init>",
            *(f"<initarg>{escape(argument)}</initarg>" for argument in spec.arguments),
            *(f"<initenv name={quoteattr(name)}>{escape(value)}</initenv>" for name, value in spec.environment.items()),
            f"</os><features><privnet/><capabilities policy='{self.capabilities}'/></features>",
            "<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash><devices>",
            self._filesystem(spec.root, "/", spec.read_only),
        ]
        lines += [self._filesystem(mount.source, mount.target, mount.read_only) for mount in spec.binds]
        for target in spec.tmpfs:
            lines.append("<filesystem type='ram'><source usage='65536' units='KiB'/>")
            lines.append(f"<target dir={quoteattr(target)}/></filesystem>")
        lines.append("<console type='pty'/></devices></domain>")
        return "\n".join(lines)

    @staticmethod
    def _filesystem(source: str, target: str, read_only: bool) -> str:
        flag = "<readonly/>" if read_only else ""
        return (
            f"<filesystem type='mount' accessmode='passthrough'><source dir={quoteattr(source)}/>"
            f"<target dir={quoteattr(target)}/>{flag}</filesystem>"
        )

    # -- running -----------------------------------------------------------------------------------------------------

    def _started(self) -> None:
        """libvirtd is on its way: define and start the domain, then follow its console."""
        deadline = time.monotonic() + 30
        while self.virsh("uri", check=False).returncode != 0:
            if not self.running() or time.monotonic() > deadline:
                raise ContainerError(f"{self.name}: libvirtd does not answer:\n{self._libvirt_log()}")
            time.sleep(0.05)
        self.virsh("define", os.path.join(self.directory, "domain.xml"))
        threading.Thread(target=self._follow_console, args=(self.manager_pid(),), daemon=True).start()
        for _ in range(3):
            self.virsh("start", self.name)
            if self._knows_init():
                return
            self.virsh("destroy", self.name)
            with self._changed:
                self._buffer.clear()
        raise ContainerError(f"{self.name}: libvirtd never hears of the domain's init:\n{self._libvirt_log()}")

    def _knows_init(self) -> bool:
        """Whether libvirtd has heard from its controller which process is init: that message is lost at times.

        Without it libvirtd can neither stop the domain nor notice its end.
        """
        deadline = time.monotonic() + 5
        while "not yet known" in self.virsh("send-process-signal", self.name, "1", "nop", check=False).stderr:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def virsh(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """virsh(1) in libvirtd's namespaces; ContainerError with what it printed and libvirtd's log."""
        command = ["nsenter", "--target", str(self.manager_pid()), "--mount", "--pid", "--cgroup", "--net", "--"]
        command += ["virsh", "--quiet", "--connect", "lxc:///system", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        if check and result.returncode != 0:
            said = result.stdout + result.stderr
            raise ContainerError(f"{self.name}: virsh {arguments[0]}: {said}\n{self._libvirt_log()}\n{self._text()}")
        return result

    def _libvirt_log(self) -> str:
        texts = []
        for path in (self.log, f"/proc/{self.manager_pid()}/root/var/log/libvirt/lxc/{self.name}.log"):
            if os.path.exists(path):
                with open(path, errors="replace") as file:
                    texts.append(file.read()[-3000:])
        return "\n".join(texts)

    def _follow_console(self, libvirtd: int) -> None:
        """Read the terminal of each run of the domain; when libvirt starts it again there is another one.

        libvirtd opens the terminal before it starts the domain's controller and closes its end soon after. To ask
        `virsh ttyconsole` would be too late: what a short-lived container prints dies with the terminal.
        """
        while self.running():
            number = _terminal_of(libvirtd)
            if number is None:
                time.sleep(0.002)
                continue
            try:
                descriptor = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
            except OSError:
                continue  # closed in this very moment
            self._console_fd = descriptor
            self.read_console(descriptor)
            assert self._reader is not None
            self._reader.join()

    def wait(self, timeout: float = 60) -> Ended:
        """`reason` is libvirt's: "shutdown", "destroyed", "crashed"…; libvirt keeps no exit status."""
        deadline = time.monotonic() + timeout
        while True:
            state = self.virsh("domstate", "--reason", self.name).stdout.strip()
            if state.startswith("shut off"):
                return Ended(None, state.partition("(")[2].rstrip(")"))
            if time.monotonic() > deadline:
                raise ContainerError(f"{self.name}: still {state} after {timeout} s; console:\n{self._text()}")
            time.sleep(0.05)

    def poweroff(self) -> None:
        """`virsh shutdown`, by initctl or by signal as `mode` says."""
        self.virsh("shutdown", self.name, "--mode", self.mode)

    def reboot(self) -> None:
        """`virsh reboot`, likewise."""
        self.virsh("reboot", self.name, "--mode", self.mode)


def _terminal_of(pid: int) -> int | None:
    """The number of the pseudo-terminal whose master process `pid` has open (`tty-index` in its fdinfo)."""
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").endswith("/ptmx"):
                with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="utf-8") as file:
                    return next(int(line.split()[1]) for line in file if line.startswith("tty-index:"))
    except (OSError, StopIteration):
        return None
    return None
