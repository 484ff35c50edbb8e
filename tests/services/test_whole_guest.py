"""A guest with nginx, PostgreSQL, Redis, cron and an application that needs the database: five files of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lcinit.linux.signals import SIGINT
from tests.hostile.attempt import Outcome
from tests.namespace.isolated import needs_root
from tests.services.rig import Guest, killed_and_back, wait_until

pytestmark = needs_root

with open(os.path.join(os.path.dirname(__file__), "shop.pl"), encoding="utf-8") as _file:
    SHOP = _file.read()

SITE = "server { listen 80 default_server; location / { proxy_pass http://127.0.0.1:8000; } }\n"
FILES = {
    "postgresql": "log: {to: both}\n",
    "redis": "runlevels: [3]\n",
    "cron": "description: Jobs of the shop\n",
    "shop": """\
description: A shop that counts its visits
command: /usr/local/bin/shop
type: notify
user: postgres
requires: [postgresql]
start_after: [redis]
""",
    "nginx": "start_after: [shop]\nrunlevels: [3]\n",
}
LEVEL_3_ONLY = ("nginx", "redis")
ORDER = (("postgresql", "shop"), ("redis", "shop"), ("shop", "nginx"))
"""Who is to be up before whom starts, and down after whom."""
CURL = ("curl", "-sS", "--max-time", "5")
FILES_OF_GUEST = {
    **{f"etc/lcinit/services/{name}.yml": (0o644, text) for name, text in FILES.items()},
    **{f"etc/lcinit/enabled/{name}": (0o777, f"../services/{name}.yml") for name in FILES},
    "etc/nginx/sites-enabled/default": (0o644, SITE),
    "etc/shop": (0o644, "welcome\n"),
    "etc/cron.d/shop": (0o644, "@reboot root touch /tmp/opened\n"),
    "usr/local/bin/shop": (0o755, SHOP),
}


def _boot(tmp_path: Path) -> Guest:
    """The guest, up."""
    guest = Guest(str(tmp_path), services={}, files=FILES_OF_GUEST)
    try:
        for name in FILES:
            guest.up(name)
    except BaseException:
        guest.container.stop()
        raise
    return guest


def _page(guest: Guest, path: str = "/") -> str:
    """What a visitor sees; curl's exit code and complaint while the answer is not 200."""
    return guest.run(*CURL, "--fail", f"http://127.0.0.1{path}", check=False).removeprefix("0 ")


def _visit(guest: Guest) -> int:
    """Be a visitor, as soon as the shop is open: the number."""
    pages: list[str] = []

    def answers() -> bool:
        pages.append(_page(guest))
        return pages[-1].startswith("visit ")

    wait_until(answers, f"nobody is let in ({pages[-1:]})", guest)
    return int(pages[-1].split()[1])


def _at(events: list[dict[str, Any]], kind: str, name: str) -> int:
    """The number of the last event of this kind about a service."""
    return max(each["seq"] for each in events if each["kind"] == kind and each["facts"]["service"] == name)


def _pids(guest: Guest) -> dict[str, int | None]:
    return {name: state["pid"] for name, state in guest.services().items()}


def test_it_comes_up_in_order_from_five_files_and_answers(tmp_path: Path) -> None:
    with _boot(tmp_path) as guest:
        states = guest.services()
        assert sorted(name for name, state in states.items() if state["state"] == "active") == sorted(FILES)
        assert all(states[name]["enabled"] for name in FILES)
        assert guest.call("GetRunlevel") == {"runlevel": "3", "previous": "N"}
        events = guest.events()
        for earlier, later in ORDER:
            assert _at(events, "service-started", earlier) < _at(events, "service-starting", later), events
        assert [state["restarts"] for state in states.values()] == [0] * len(states)
        assert states["shop"]["status_text"] == "open"
        assert states["shop"]["requires"] == ["postgresql"]
        assert [_visit(guest), _visit(guest)] == [1, 2]
        assert _page(guest, "/sign") == "welcome"
        wait_until(lambda: os.path.exists(guest.path("/tmp/opened")), "cron did not run its job", guest)
        assert guest.run("sh", "-c", "command -v python3", check=False) == "127"


def test_it_survives_the_death_of_each(tmp_path: Path) -> None:
    with _boot(tmp_path) as guest:
        assert _visit(guest) == 1
        for name in FILES:
            others = {other: pid for other, pid in _pids(guest).items() if other != name}
            killed_and_back(guest, name)
            assert {other: pid for other, pid in _pids(guest).items() if other != name} == others
            assert _visit(guest) > 1
        assert [state["restarts"] for state in guest.services().values()] == [1] * len(FILES)
        assert guest.run("redis-cli", "ping") == "PONG"


def test_it_moves_from_runlevel_3_to_2_and_back(tmp_path: Path) -> None:
    with _boot(tmp_path) as guest:
        first = _visit(guest)
        guest.run("redis-cli", "set", "visitor", "somebody")
        before = _pids(guest)
        guest.initctl("2")
        for name in LEVEL_3_ONLY:
            guest.awaited(name, lambda state: state["sub"] == "dead", "down")
        assert guest.call("GetRunlevel") == {"runlevel": "2", "previous": "3"}
        stays = {name: pid for name, pid in before.items() if name not in LEVEL_3_ONLY}
        assert _pids(guest) == {**stays, **dict.fromkeys(LEVEL_3_ONLY)}
        assert _page(guest).startswith("7 ")  # CURLE_COULDNT_CONNECT

        guest.initctl("3")
        for name in LEVEL_3_ONLY:
            guest.up(name)
        assert guest.call("GetRunlevel") == {"runlevel": "3", "previous": "2"}
        after = _pids(guest)
        assert {name: after[name] for name in stays} == stays
        assert _visit(guest) == first + 1
        assert _page(guest, "/visitor") == "redis: somebody"
        assert not any(each["restarts"] for each in guest.services().values())


def test_a_changed_file_touches_that_service_alone(tmp_path: Path) -> None:
    with _boot(tmp_path) as guest:
        before = _pids(guest)
        guest.write("/etc/lcinit/services/shop.yml", FILES["shop"] + "environment: {SIGN: changed}\n")
        planned = guest.call("DaemonReload", dry_run=True)["changes"]
        assert _pids(guest) == before
        done = guest.call("DaemonReload")["changes"]
        change = {"name": "shop", "kind": "changed", "keys": ["environment"], "effect": "restart"}
        assert planned == done == [change]
        guest.awaited("shop", lambda state: state["sub"] == "running" and state["pid"] != before["shop"], "restarted")
        after = _pids(guest)
        assert {name for name in FILES if after[name] != before[name]} == {"shop"}
        assert "SIGN=changed" in guest.run("cat", f"/proc/{after['shop']}/environ").split("\0")
        assert _visit(guest) == 1
        assert guest.call("DaemonReload")["changes"] == []


def test_it_stops_in_reverse_order_and_the_next_boot_finds_everything(tmp_path: Path) -> None:
    with _boot(tmp_path) as guest:
        visits = [_visit(guest) for _ in range(3)]
        guest.run("redis-cli", "set", "visitor", "the last one")
        ended = guest.poweroff()
    assert visits == [1, 2, 3]
    assert ended.status == 128 + SIGINT, ended  # reboot(2) with POWER_OFF, in a PID namespace
    assert not ended.errors(), ended
    _stopped_in_reverse(ended)
    assert "database system is shut down" in str(ended)
    assert "DB saved on disk" in str(ended)

    with _boot(tmp_path) as guest:
        assert _visit(guest) == 4
        assert _page(guest, "/visitor") == "redis: the last one"
        log = guest.read("/var/log/lcinit/postgresql/current")
        assert log.count("database system is ready to accept connections") == 2
        assert log.count("database system is shut down") == 1
        assert log.count("database system was shut down at") == 2
        assert "recovery" not in log


def _stopped_in_reverse(ended: Outcome) -> None:
    """By lcinit's own lines: later ones say so first."""
    down = {name: next(i for i, line in enumerate(ended.lines) if f"{name} is down" in line) for name in FILES}
    for earlier, later in ORDER:
        assert down[later] < down[earlier], ended


@pytest.mark.row(54)
@pytest.mark.parametrize("name", ["shop", "cron"])
def test_a_file_that_is_wrong_makes_that_service_fail_alone(name: str, tmp_path: Path) -> None:
    files = {**FILES_OF_GUEST, f"etc/lcinit/services/{name}.yml": (0o644, "command: [unfinished\n")}
    with Guest(str(tmp_path), services={}, files=files) as guest:
        for other in ("postgresql", "redis"):
            guest.up(other)
        state = guest.awaited(name, lambda state: state["sub"] == "failed", "failed")
        assert f"{name}.yml" in guest.console()
        assert state["reason"]
