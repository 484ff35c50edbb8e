"""How the configuration is spelled, and who has read it: services come up all the same, and nobody is left behind."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from tests.hostile.attempt import ID_MAP, boot, start
from tests.services.bare import SHARED, Bare

STAY = '{command: "sleep 1000", log: none}'
PLAIN = "root: null\nsetup: none\nexec: {mode: tolerant, pid: shared}\n"


class Written(Bare):
    """A container with this text as its configuration."""

    def __init__(self, text: str, **options: Any) -> None:
        self.container = start(text, **options)
        self._pid1 = 0


def processes(guest: Bare) -> dict[str, int]:
    """How many processes of each name the container has."""
    found: dict[str, int] = {}
    for pid in os.listdir(guest.path("/proc")):
        if pid.isdigit():
            try:
                with open(guest.path(f"/proc/{pid}/comm")) as file:
                    name = file.read().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.parametrize(
    "text",
    [
        f"services:\n  a: {STAY}\n",
        f"services : {{a: {STAY}}}\n",  # nothing is begun early for this one
        f'"services": {{a: {STAY}}}\n',
        f"? services\n: {{a: {STAY}}}\n",
        f"services: &one\n  a: {STAY}\n# services:\n",
    ],
)
def test_however_the_key_is_spelled(text: str) -> None:
    with Written(PLAIN + text) as guest:
        guest.up("a")
        guest.write("/etc/lcinit/services/b.yml", "command: sleep 1001\nlog: none\n")
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.asked("Start", "b")
        deadline = time.monotonic() + 5
        while (found := processes(guest)) != {"init": 1, "lcinit-spawner": 1, "sleep": 2}:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


@pytest.mark.parametrize(
    "mode", [{}, {"mode": "tolerant", "pid": "nested"}, SHARED], ids=["handoff", "nested", "shared"]
)
@pytest.mark.parametrize("mapped", [True, False])
def test_one_that_only_mentions_services_is_as_without(mode: dict[str, str], mapped: bool) -> None:
    script = (
        "cat /proc/self/oom_score_adj /proc/self/timerslack_ns; ls /proc/self/fd | wc -l;"
        ' set -- /proc/[0-9]*; echo "processes $#";'
        " grep -E '^(Sig[BCI]|ShdPnd|Cap|NoNew|Umask)' /proc/self/status; ulimit -a"
    )
    config = {"root": "/mnt/root", "exec": {"command": ["/bin/sh", "-c", script], **mode}}
    text = json.dumps({**config, "id_map": ID_MAP} if mapped else config)
    said = [
        [line for line in boot(before + text).lines if not line.startswith("lcinit")]
        for before in ("", "# services: x\n")
    ]
    assert said[0] == said[1]
    assert "Umask:\t0022" in said[0]


def test_a_configuration_by_a_path_that_depends_on_where_it_is_started_is_found_again() -> None:
    words = ("-c", "cd /mnt; exec /sbin/init --config init.yml")
    with Written(PLAIN + f"services: {{a: {STAY}}}\n", init="/bin/sh", args=words) as guest:
        guest.up("a")
        for _ in range(2):
            done = guest.lcinit("daemon-reload")
            assert (done.returncode, done.stdout) == (0, "nothing has changed\n"), done
