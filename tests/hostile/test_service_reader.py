"""Row 54: who parses the guest's service files has no privileges by then; and what is left when the guest kills it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lcinit.linux.signals import SIGKILL
from tests.hostile.attempt import outcome, own_guest, start
from tests.hostile.test_root import give
from tests.hostile.test_services import Hostile
from tests.lab.container import descendants
from tests.services.bare import SHARED, Bare, sh
from tests.services.rig import Guest, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

STAY = "exec sleep 1000"
DIRECTORY = "etc/lcinit/services"
HEAVY = "command: [" + "a, " * 21000 + "b]\n"  # a tenth of a second for the parser, and too many values in the end
FILES = 60
BY_THEN = 0.7  # seconds of processor time, after which a reader has read all, and parses what the guest wrote
TICKS = os.sysconf("SC_CLK_TCK")
NOBODY = ["65534"] * 4


class Look(NamedTuple):
    """A reader at a moment: its processor time so far, the fields of its status, and its limits."""

    pid: int
    seconds: float
    fields: dict[str, str]
    limits: str


def look(pid: int) -> Look | None:
    """None where it is gone, or no reader."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            fields = {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
        with open(f"/proc/{pid}/limits", encoding="utf-8") as file:
            limits = file.read()
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            stat = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields["Name"] != "lcinit-reader" or stat[0] == "Z":
        return None
    return Look(pid, (int(stat[11]) + int(stat[12])) / TICKS, fields, limits)


def readers(guest: Guest) -> list[Look]:
    """Those that there are now."""
    return [found for pid in descendants(guest.pid1) if (found := look(pid)) is not None]


def resident(guest: Guest, count: int) -> list[int]:
    """Those that stay, once there are so many: what has answered ends, or executes itself anew."""
    wait_until(lambda: len(readers(guest)) == count, f"{count} readers", guest)
    return [each.pid for each in readers(guest)]


def assert_nobody(looks: list[Look]) -> None:
    """Whoever had been at it for a while had no rights any more, and somebody had."""
    parsing = [each for each in looks if each.seconds >= BY_THEN]
    assert len(parsing) > 10 and max(each.seconds for each in parsing) > 1.2, [each[:2] for each in looks]
    for each in parsing:
        assert each.fields["Uid"].split() == NOBODY and each.fields["Gid"].split() == NOBODY, each
        assert each.fields["Groups"] == "", each
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(each.fields[name], 16) == 0, each
        assert each.fields["NoNewPrivs"] == "1", each
        limits = {line[:26].strip(): line[26:].split()[:2] for line in each.limits.splitlines()}
        assert limits["Max address space"] in ([str(288 << 20), str(512 << 20)], [str(512 << 20)] * 2), each
        assert limits["Max cpu time"] == ["20", "20"], each


class Null(Bare):
    """The container's own root has what is in the guest's, before that is read."""

    def __init__(self, services: dict[str, Any], guest: str) -> None:
        copy = f"mkdir -p /{DIRECTORY}; cp /mnt/root/{DIRECTORY}/* /{DIRECTORY}"
        setup = {"mode": "none", "before": [["sh", "-c", copy]]}
        config = {"root": None, "setup": setup, "exec": SHARED, "services": services}
        self.container = start(json.dumps(config), guest=guest)
        self._pid1 = 0


def started(where: str, root: str, services: dict[str, Any]) -> Guest:
    """Of a container that has no other root, or is the machine's root in one, or root of a user namespace."""
    if where == "null":
        return Null(services, root)
    return Hostile(services, guest=root, mapped=where == "mapped")


@pytest.mark.row(54)
@pytest.mark.parametrize("where", ["null", "pivoted", "mapped"])
def test_who_parses_the_files_of_the_guest_is_nobody(where: str, tmp_path: Path) -> None:
    """At the boot, by the process that has read the configuration, and later, by one that was started or has stayed."""
    root = own_guest(f"{tmp_path}/root", **({} if where == "mapped" else {"shift": None}))
    for number in range(FILES):
        give(root, f"{DIRECTORY}/heavy{number}.yml", HEAVY)
    with started(where, root, {"own": sh(STAY)}) as guest:
        looks: list[Look] = []
        end = time.monotonic() + 30
        while not os.path.exists(guest.socket):
            assert time.monotonic() < end, guest.console()
            looks += readers(guest)
            time.sleep(0.01)
        assert_nobody(looks)
        guest.up("own")
        stays = resident(guest, 1 if where == "mapped" else 0)
        looks = []
        command = [sys.executable, "-m", "lcinit", "daemon-reload", "--socket", guest.socket]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as reload:
            while reload.poll() is None:
                looks += readers(guest)
                time.sleep(0.01)
            assert reload.stderr is not None
            said = reload.stderr.read()
        assert reload.returncode == 78 and "holds more than 20000 values" in said, said
        assert_nobody([each for each in looks if each.pid not in stays])
        assert resident(guest, len(stays)) == stays
        guest.up("own")


@pytest.mark.row(54)
def test_a_resident_reader_that_is_killed_is_said_and_all_else_goes_on() -> None:
    with Hostile({"a": sh(STAY), "b": sh(STAY, runlevels=5)}) as guest:
        before = guest.up("a")
        (reader,) = resident(guest, 1)
        os.kill(reader, SIGKILL)
        for _ in range(2):
            done = guest.lcinit("daemon-reload")
            assert done.returncode == 71 and done.stdout == "", done
            assert done.stderr == (
                "lcinit daemon-reload: the process that reads service files is gone;"
                " somebody in the guest has killed it: restart the container\n"
            ), done
        guest.asked("Start", "b")
        guest.asked("Restart", "b")
        guest.call("Kill", name="a", signal="SIGKILL")
        after = guest.awaited("a", lambda state: state["sub"] == "running" and state["restarts"] == 1, "up again")
        assert after["pid"] != before["pid"]
        assert guest.lcinit("status", "a").returncode == 0
        guest.initctl("2")
        guest.awaited("b", lambda state: state["sub"] == "dead", "down")
        guest.lcinit("poweroff")
        result = outcome(guest.container, 10)
    assert result.status == 0, result
    assert "unexpected" not in str(result) and "Traceback" not in str(result), result
