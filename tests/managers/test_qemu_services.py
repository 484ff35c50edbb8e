"""Services on a machine of their own, which has all controllers in cgroup2, and as its first process."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.hostile.test_service_bombs import BOMB
from tests.lab import qemu
from tests.services.bare import SHARED

pytestmark = pytest.mark.skipif(bool(qemu.usable()), reason=qemu.usable())

ROOM = 40
# asked from inside: the machine has no other way in
PROBE = r"""
cd /sys/fs/cgroup
lcinit start --no-block bomb
until [ "$(cat bomb.service/pids.current 2>/dev/null)" = 40 ]; do sleep 0.2; done
sleep 2
echo "full $(cat bomb.service/pids.current) of $(cat bomb.service/pids.max)"
timeout 20 lcinit status other >/dev/null; echo "answered $?"
lcinit kill -s KILL other
timeout 20 lcinit wait other; echo "restarted $?"
timeout 20 lcinit end bomb; echo "done $?"
sleep 1
echo "left $(grep -la 'SIG_IG[N]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l)"
timeout 20 lcinit status bomb; timeout 20 lcinit status other
lcinit poweroff
"""


@pytest.mark.row(34)
@pytest.mark.parametrize("words", [("stop",), ("kill", "-s", "KILL", "--whom", "all")], ids=lambda words: words[0])
def test_a_fork_bomb_within_its_pids_max_leaves_others_their_processes(words: tuple[str, ...], boot_root: str) -> None:
    probe = PROBE.replace("lcinit end bomb", f"lcinit {' '.join(words)} bomb")
    bomb = {"command": ["/usr/bin/python3", "-ISc", BOMB.format(leaves="os.setsid()")], "cgroup": {"pids_max": ROOM}}
    services: dict[str, Any] = {
        "bomb": {**bomb, "runlevels": 5, "restart": "no", "log": "none", "stop_timeout": 1},
        "other": {"command": "sleep 1000", "restart": "always", "log": "none"},
        "probe": {"command": ["/bin/sh", "-c", probe], "start_after": "other", "restart": "no"},
    }
    with qemu.Qemu() as machine:
        archive = machine.initramfs()
        archive.tree(boot_root, without=qemu.UNPACKED_NOT)
        archive.modules()
        archive.file("mnt/init.yml", json.dumps({"root": None, "exec": SHARED, "services": services}))
        machine.boot(archive.close())
        assert machine.wait(150).status == 0
        text = re.sub(r"\r+\n", "\n", machine.console().decode(errors="replace"))
    said = [line.removeprefix("probe: ") for line in text.splitlines() if line.startswith("probe: ")]
    assert f"full {ROOM} of {ROOM}" in said, text
    assert {"answered 0", "restarted 0", "left 0"} <= set(said), text
    assert "bomb has failed" in text
    assert "other has ended (signal SIGKILL); it is started again" in text
    assert "reboot: Power down" in text and "unexpected" not in text, text
