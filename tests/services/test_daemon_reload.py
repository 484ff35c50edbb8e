"""daemon-reload where the files are in the only root, in a root left behind, and with somebody who stayed there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS, ID_MAP, configuration, own_guest, start
from tests.lab.container import descendants
from tests.services.bare import SHARED, Bare, sh
from tests.services.rig import wait_until

DIRECTORY = "/etc/own-services"
STAY = "exec sleep 1000"
SHAPES: dict[str, dict[str, Any]] = {
    "null": {"root": None, "setup": "none"},
    # nobody stays in the boot root: a way back is kept, in which nothing is mounted, and with the default set-up
    "pivoted": {"root": "/mnt/root", "setup": {"mode": "none", "before": ["mount -t proc proc /mnt/root/proc"]}},
    "rights": {"root": "/mnt/root"},
    # who stays is outside of the guest's user namespace
    "mapped": {"root": "/mnt/root", "id_map": ID_MAP},
}


class Reloaded(Bare):
    """A container of one of these shapes. The guest's root may be written to."""

    def __init__(self, shape: str, root: str, services: Mapping[str, Any], loop: str) -> None:
        config = json.loads(configuration(mapped=False, exec=SHARED, services=dict(services), services_dir=DIRECTORY))
        config |= SHAPES[shape]
        self.container = start(json.dumps(config), guest=root, env={"LCINIT_EVENT_LOOP": loop})
        self._pid1 = 0

    def reload(self) -> dict[str, tuple[str, str]]:
        """What it has changed: kind and effect."""
        done = self.lcinit("daemon-reload", "--json")
        assert done.returncode == 0, f"{done}\n{self.console()}"
        return {each["name"]: (each["kind"], each["effect"]) for each in json.loads(done.stdout)}

    def give(self, name: str, service: dict[str, Any]) -> None:
        """A service file of the guest."""
        self.write(f"{DIRECTORY}/{name}.yml", json.dumps(service))

    def held(self) -> tuple[list[str], list[str]]:
        """What PID 1 has open, without the numbers of pipes and the like; and the processes that there are, by name."""
        opened = []
        for fd in os.listdir(f"/proc/{self.pid1}/fd"):
            try:
                opened.append(os.readlink(f"/proc/{self.pid1}/fd/{fd}").partition(":[")[0])
            except FileNotFoundError:
                continue
        names = []
        for pid in descendants(self.pid1):
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                    names.append(file.read().strip())
            except (FileNotFoundError, ProcessLookupError):
                continue
        return sorted(opened), sorted(names)


def settled(guest: Reloaded) -> tuple[list[str], list[str]]:
    """What it holds when nobody asks it anything: twice the same in a row."""
    end = time.monotonic() + 5
    last = guest.held()
    while True:
        time.sleep(0.15)
        now = guest.held()
        if now == last or time.monotonic() > end:
            return now
        last = now


def another(guest: Reloaded, name: str, pid: int) -> int:
    """Wait until a service has another main process."""
    wait_until(lambda: guest.service(name)["pid"] not in (pid, None), "another process", guest)
    return int(guest.up(name)["pid"])


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_files_are_read_again_and_again_and_nothing_is_left_behind(shape: str, loop: str, tmp_path: Path) -> None:
    root = own_guest(f"{tmp_path}/root", **({} if shape == "mapped" else {"shift": None}))
    with Reloaded(shape, root, {"own": sh(STAY), "a": {}}, loop) as guest:
        guest.up("own")
        a = sh(STAY, environment={"N": "none"})
        guest.give("a", a)
        guest.reload()
        guest.asked("Start", "a")
        pid = guest.up("a")["pid"]
        before = settled(guest)
        assert before[1].count("lcinit-reader") == (shape == "mapped"), before
        for number in range(3):
            assert guest.reload() == {}
            more = f"b{number}"
            a["description"] = more
            guest.give("a", a)
            guest.give(more, sh(STAY))
            assert guest.reload() == {"a": ("changed", "none"), more: ("added", "none")}
            assert guest.service("a")["description"] == more
            guest.asked("Start", more)
            guest.give("a", {"comand": "x"})
            wrong = guest.lcinit("daemon-reload")
            assert wrong.returncode == 78 and 'comand: the key "comand" is unknown' in wrong.stderr, wrong
            assert guest.service("a")["pid"] == pid
            a["environment"] = {"N": more}
            guest.give("a", a)
            os.unlink(guest.path(f"{DIRECTORY}/{more}.yml"))
            assert guest.reload() == {"a": ("changed", "restart"), more: ("removed", "stop")}
            pid = another(guest, "a", pid)
            assert f"N=b{number}" in guest.read(f"/proc/{pid}/environ").split("\0")
            wait_until(lambda: set(guest.services()) == {"own", "a"}, "the others gone", guest)
            assert settled(guest) == before, number
        assert "unexpected" not in guest.console(), guest.console()
