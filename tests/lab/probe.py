"""A script that a guest's own init runs once its boot is done, and that tells the console what it found.

Every line of the script's output comes as `probe: LINE`, the end as `probe-done: STATUS`. The files can be put into a
writable copy of a guest, or into an empty directory that is laid over it (`lcinit overlay`, a driver's overlay).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from tests.lab.container import Container
from tests.lab.guests import RECIPES, guest, place_file

PLACE = "etc/lcinit-probe"

#: what most tests of a systemd guest want to know
SYSTEMD_STATE = """\
echo "state $(systemctl is-system-running --wait)"
systemctl --failed --no-legend --plain | while read -r unit rest; do echo "failed $unit"; done
echo "uid_map $(cat /proc/1/uid_map | tr -s ' ')"
echo "init $(readlink /proc/1/exe)"
"""

_RUN = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
output=$(/{place}/script 2>&1)
status=$?
text=$(
    echo probe-begin
    printf '%s\\n' "$output" | while IFS= read -r line; do echo "probe: $line"; done
    echo "probe-done: $status"
)
# A getty that starts meanwhile hangs the console up (vhangup(2)): what was open on it is dead, and what nobody has read
# yet is lost. So there must be none.
[ ! -d /run/systemd/system ] || systemctl stop console-getty.service
tries=0
until printf '\\n%s\\n' "$text" >/dev/console || [ $tries = 20 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
{after}
"""

_UNIT = """\
[Unit]
Description=Probe of the lab
After=multi-user.target
[Service]
# simple: the boot does not wait for it, so it may wait for the boot
Type=simple
ExecStart=/{place}/run
StandardOutput=null
[Install]
WantedBy=multi-user.target
"""

#: how each init is told, from inside, to end
_AFTER = {
    "systemd": {"poweroff": "systemctl poweroff", "reboot": "systemctl reboot", "halt": "systemctl halt"},
    "sysvinit": {"poweroff": "/sbin/poweroff", "reboot": "/sbin/reboot", "halt": "/sbin/halt"},
    "busybox": {"poweroff": "/sbin/poweroff", "reboot": "/sbin/reboot", "halt": "/sbin/halt"},
    "runit": {"poweroff": "/sbin/poweroff", "reboot": "/sbin/reboot", "halt": "/sbin/halt"},
    "openrc-init": {
        "poweroff": "openrc-shutdown --poweroff now",
        "reboot": "openrc-shutdown --reboot now",
        "halt": "openrc-shutdown --halt now",
    },
    "finit": {
        "poweroff": "/lib/finit/initctl poweroff",
        "reboot": "/lib/finit/initctl reboot",
        "halt": "/lib/finit/initctl halt",
    },
    "s6-svscan": {"poweroff": "s6-svscanctl -t /etc/s6"},  # it ends, and knows nothing of reboot(2)
    "none": {"poweroff": "exit $status"},
}

#: a supervised service runs once only if it does not end
_SERVICE = "#!/bin/sh\n{command}\nexec sleep 1000000\n"
_OPENRC = """\
#!/sbin/openrc-run
depend() {{ after *; }}
start() {{ {command} & }}
"""


class ProbeResult(NamedTuple):
    """The script's exit status and its lines."""

    status: int
    lines: list[str]

    def value(self, key: str) -> str:
        """What follows `key ` on the first line that begins so; KeyError when there is none."""
        for line in self.lines:
            if line.startswith(key + " "):
                return line[len(key) + 1 :].strip()
        raise KeyError(f"{key}: not among {self.lines}")

    def values(self, key: str) -> list[str]:
        """The same for every such line."""
        return [line[len(key) + 1 :].strip() for line in self.lines if line.startswith(key + " ")]


def add_probe(root: str, name: str, script: str, after: str | None = "poweroff") -> str:
    """Make guest `name`, whose copy or upper layer is `root`, run `script` (sh) at the end of its boot.

    `after`: what the guest then asks of its init: "poweroff", "reboot", "halt", or None to stay up. Returns the path in
    the guest of a command that does it all, for guests without an init of their own ("plain").
    """
    init = RECIPES[name].init
    command = f"/{PLACE}/run"
    ending = "" if after is None else _AFTER[init][after]
    place_file(root, f"{PLACE}/script", 0o755, f"#!/bin/sh\n{script}")
    place_file(root, f"{PLACE}/run", 0o755, _RUN.format(place=PLACE, after=ending))
    if init == "systemd":
        unit = "etc/systemd/system/lcinit-probe.service"
        place_file(root, unit, 0o644, _UNIT.format(place=PLACE))
        place_file(root, "etc/systemd/system/multi-user.target.wants/lcinit-probe.service", 0o777, f"/{unit}")
    elif init == "sysvinit":
        # Debian's rc starts scripts in parallel; the entries of inittab after the one that runs it wait for it
        inittab = _read(guest(name), "etc/inittab")
        place_file(root, "etc/inittab", 0o644, f"{inittab}\npr:2345:once:{command}\n")
    elif init == "busybox":
        inittab = _read(guest(name), "etc/inittab")
        place_file(root, "etc/inittab", 0o644, f"{inittab}::once:{command}\n")
    elif init == "runit":
        place_file(root, "etc/sv/probe/run", 0o755, _SERVICE.format(command=command))
        place_file(root, "etc/sv/probe/supervise", 0o777, "/run/runit/supervise/probe")
        place_file(root, "etc/runit/runsvdir/default/probe", 0o777, "/etc/sv/probe")
    elif init == "openrc-init":
        place_file(root, "etc/init.d/lcinit-probe", 0o755, _OPENRC.format(command=command))
        place_file(root, "etc/runlevels/default/lcinit-probe", 0o777, "/etc/init.d/lcinit-probe")
    elif init == "finit":
        configuration = _read(guest(name), "etc/finit.conf")
        place_file(root, "etc/finit.conf", 0o644, f"{configuration}task [2345] {command} -- Probe\n")
    elif init == "s6-svscan":
        place_file(root, "etc/s6/probe/run", 0o755, _SERVICE.format(command=command))
    return command


def _read(root: str, path: str) -> str:
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def parse(console: bytes) -> ProbeResult | None:
    """The last complete result on a console; None when there is none yet."""
    text = re.sub(r"\r+\n", "\n", console.decode(errors="backslashreplace"))
    ends = list(re.finditer(r"^probe-done: (\d+)$", text, re.MULTILINE))
    if not ends:
        return None
    begin = text.rfind("\nprobe-begin\n", 0, ends[-1].start())
    lines = re.findall(r"^probe: (.*)$", text[begin + 1 : ends[-1].start()], re.MULTILINE)
    return ProbeResult(int(ends[-1].group(1)), lines)


def await_probe(container: Container, timeout: float = 60, *, start: int = 0) -> ProbeResult:
    """Wait for a probe's end on the console after byte `start`; ContainerError when it does not come."""
    container.expect(r"^probe-done: \d+\r*\n", timeout, start=start)
    result = parse(container.console()[start:])
    assert result is not None
    return result


def layer_for(directory: str, name: str, script: str, after: str | None = "poweroff") -> str:
    """A new directory `directory` that holds a probe and nothing else, to be laid over guest `name`. Returns it."""
    os.mkdir(directory, 0o755)
    add_probe(directory, name, script, after)
    return directory
