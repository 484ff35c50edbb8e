"""`lcinit doctor` and `lcinit demo` as a shell in a manager's container has them, with the manager's own filters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.container import Container

INIT = """\
#!/bin/sh
export PATH=/usr/bin:/usr/sbin
lcinit doctor --json | tr -d '\\n' | tr -s ' '
echo
echo doctor done
lcinit demo >/dev/null
echo demo $?
while :; do sleep 60; done
"""

# manager → what its container= makes the doctor say, and findings that it is known for
KNOWN = {
    "lxc": ("lxc (container=lxc)", {"proc-sys": "weaker", "keyctl": "ok", "proc-inside": "weaker"}),
    "nspawn": ("systemd-nspawn (container=systemd-nspawn)", {"keyctl": "weaker", "pidfd_getfd": "weaker"}),
    "libvirt": ("libvirt-lxc (container=lxc-libvirt)", {"mknod": "weaker", "cap_mknod": "weaker"}),
    "unshare": ("none recognised", {"keyctl": "ok", "mknod": "ok"}),
    "runc": ("none recognised", {"keyctl": "ok", "mknod": "ok"}),
}


@pytest.mark.parametrize("manager", KNOWN)
def test_doctor_and_demo_in_a_container(
    manager: str, container: Callable[..., Container], boot_root: str, tmp_path: Path
) -> None:
    script = tmp_path / "init"
    script.write_text(INIT)
    script.chmod(0o755)
    started = container(manager).start(
        boot_root, binds=[(str(script), "/usr/sbin/stand-in", True)], init="/usr/sbin/stand-in"
    )
    started.expect("doctor done", 20)
    text = re.sub(r"\r?\n", "", started.console().decode(errors="replace"))
    data = json.loads(text[text.index('{ "handoff"') : text.rindex("}") + 1])
    found = {finding["subject"]: finding for finding in data["findings"]}
    assert data["handoff"] is True
    who, verdicts = KNOWN[manager]
    assert found["manager"]["says"].startswith(who)
    assert {subject: found[subject]["verdict"] for subject in verdicts} == verdicts
    started.expect("demo 0", 20)
