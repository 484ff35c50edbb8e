"""What the clients show at a terminal: golden texts at 80 columns, and nothing of a guest's that moves a cursor.

The golden files in data/status are made again with `LCINIT_UPDATE_GOLDEN=1 python -m pytest
tests/unit/test_status_output.py`; read the difference before it is committed.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from lcinit.tools.report import duration, event_text, moment, record_text, status_text

DATA = os.path.join(os.path.dirname(__file__), "data", "status")
SINCE = 1790000000.0
RUN = {
    "started": SINCE - 10000,
    "ended": SINCE - 10,
    "reason": "signal SIGHUP",
    "status": 129,
    "request": "reboot",
    "oom_kills": 0,
}
GUEST = {
    "pid": 42,
    "init": "/sbin/init",
    "kind": "systemd",
    "started": SINCE,
    "uptime": 3725.0,
    "ready": True,
    "frozen": False,
    "cgroup": "/lcinit-1/guest",
    "processes": 12,
    "memory": 31 << 20,
    "command": ["/sbin/init"],
    "id_map": [[0, 1000000, 65536], [65536, 5000000, 10]],
}
REPORT: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 1,
    "manager": "podman",
    "mode": "nested",
    "state": "running",
    "since": SINCE,
    "guest": GUEST,
    "stop": None,
    "starts": 2,
    "history": [RUN],
    "timings": {"setup.before": 0.0124, "setup": 0.1, "exec": 0.0021},
    "log_level": "info",
}
REPORTS = {
    "running": REPORT,
    "stopping": {
        **REPORT,
        "state": "stopping",
        "guest": {
            **GUEST,
            "ready": None,
            "frozen": True,
            "processes": 1,
            "memory": None,
            "cgroup": None,
            "command": [
                "/sbin/init",
                "--log-target=console",
                "with spaces",
                "--default-standard-output=journal+console",
            ],
        },
        "stop": {"request": "poweroff", "origin": "SIGRTMIN+3", "asked": SINCE, "timeout": 90.0, "elapsed": 12.4},
    },
    "restarting": {
        **REPORT,
        "manager": None,
        "state": "restarting",
        "guest": None,
        "timings": {},
        "starts": 7,
        "history": [
            *[{**RUN, "started": None, "ended": None, "reason": None, "status": None, "request": None}] * 5,
            {**RUN, "reason": "failed", "status": 71, "request": None},
            {**RUN, "reason": "signal SIGSEGV", "status": 139, "request": None, "oom_kills": 3},
            {**RUN, "reason": "exit code 3", "status": 3, "request": "poweroff"},
        ],
    },
    "hostile": {
        **REPORT,
        "guest": {
            **GUEST,
            "init": "/sbin/\x1b[2J\x1b]0;owned\x07init\r\nstate      ended",
            "kind": "\u202edmetsys",
            "cgroup": "/a\x9b31m" + "x" * 100,
            "id_map": None,
        },
    },
}


@pytest.mark.parametrize("name", REPORTS)
def test_status_at_80_columns(name: str) -> None:
    text = status_text(REPORTS[name], SINCE + 3725, 80)
    path = os.path.join(DATA, f"{name}.txt")
    if os.environ.get("LCINIT_UPDATE_GOLDEN"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open(path, encoding="utf-8") as file:
        assert text == file.read()
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.row(35)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_status_is_inert(width: int) -> None:
    text = status_text(REPORTS["hostile"], SINCE + 3725, width)
    assert all(line.isprintable() for line in text.split("\n"))
    assert sum(line.startswith("state") for line in text.splitlines()) == 1


HOSTILE = "a\x1b[31m\r\nb\x9bc\u202ed\u2028e\x7f\x00"
INERT = "a\\x1b[31m\\r\\nb\\x9bc\\u202ed\\u2028e\\x7f\\x00"


@pytest.mark.row(35)
def test_a_log_record_is_one_inert_line() -> None:
    text = record_text({"seq": 1, "time": SINCE, "level": "info", "message": HOSTILE})
    assert text == f"2026-09-21 14:13:20Z info: {INERT}"


@pytest.mark.row(35)
def test_an_event_is_one_inert_line_and_its_facts_cannot_be_forged() -> None:
    facts = {"request": "reboot", "origin": "control", "at_once": False, "status": None, "name": HOSTILE}
    text = event_text({"seq": 7, "time": SINCE, "kind": "stop-asked", "facts": facts})
    assert text.startswith(
        "2026-09-21 14:13:20Z #7 stop-asked request=reboot origin=control at_once=false status=null name="
    )
    assert text.isprintable()
    forged = event_text({"seq": 8, "time": SINCE, "kind": "x", "facts": {"a": "1 b=2", "c": "", "d": 'e"f'}})
    assert forged == '2026-09-21 14:13:20Z #8 x a="1 b=2" c="" d="e\\"f"'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),
        (0.0004, "0 ms"),
        (0.0126, "13 ms"),
        (1, "1 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86399, "23 h 59 min"),
        (90000, "1 d 1 h"),
        (86400 * 400, "400 d 0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_moments_are_in_utc() -> None:
    assert moment(0) == "1970-01-01 00:00:00Z"
