"""What the clients show of services: golden texts at 80 columns, and nothing of theirs that moves a cursor.

The golden files in data/services_shown are made again with `LCINIT_UPDATE_GOLDEN=1 python -m pytest
tests/unit/test_service_control_report.py`; read the difference before it is committed.
"""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from lcinit.control.services import NoSuchService
from lcinit.tools.report import status_text
from lcinit.tools.service_report import (
    changes_text,
    details_text,
    failure_text,
    overview_text,
    waiting_text,
)
from tests.namespace.control_rig import report
from tests.namespace.service_control_rig import SINCE, report_with_services, service, services

DATA = os.path.join(os.path.dirname(__file__), "data", "services_shown")
NOW = SINCE + 3725
HOSTILE = "a\x1b[31m\r\nb\x9bc\u202ed\u2028e"
ALL = [
    *services(),
    service(
        "a-rather-long-name-of-a-service@instance",
        "auto-restart",
        state="activating",
        result="oom-kill",
        signal="SIGKILL",
        restarts=3,
        reason="killed for want of memory, comes again in 12 s, and so on until it has been restarted too often",
        after=["web", "db"],
        wants=["web"],
    ),
    service("job", "exited", state="active", type="oneshot", status=0, runlevels=["S"], log="both"),
    service("hand-made", "running", runlevels=[], origin="", description="", command=[], pid=9),
    service("late", "waiting", state="activating", waits_for=["slow", "db"], reason="waits for slow, db"),
]


def _golden(name: str, text: str) -> None:
    path = os.path.join(DATA, f"{name}.txt")
    if os.environ.get("LCINIT_UPDATE_GOLDEN"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open(path, encoding="utf-8") as file:
        assert text == file.read()
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_overview_at_80_columns() -> None:
    _golden("overview", status_text(report_with_services(report()), NOW, 80) + "\n" + overview_text(ALL, NOW, 80))


def test_details_at_80_columns() -> None:
    _golden("details", "\n".join(details_text(each, NOW, 80) for each in ALL))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_colours_change_nothing_but_colours(width: int) -> None:
    for text in (overview_text, lambda each, *rest, **options: details_text(each[0], *rest, **options)):
        plain, painted = text(ALL, NOW, width), text(ALL, NOW, width, colour=True)
        assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain
        assert "\x1b[32mactive (running)\x1b[0m" in painted
        assert "\x1b" not in plain


def test_no_services_are_said_to_be_none() -> None:
    assert overview_text([], NOW) == "there are no services\n"


@pytest.mark.row(35)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_what_services_say_is_inert(width: int) -> None:
    hostile = service(HOSTILE, "running", **dict.fromkeys(("description", "reason", "status_text", "cgroup"), HOSTILE))
    hostile |= {"waits_for": [HOSTILE], "requires": [HOSTILE], "command": [HOSTILE], "origin": HOSTILE, "sub": HOSTILE}
    for text in (overview_text([hostile], NOW, width), details_text(hostile, NOW, width)):
        assert all(line.isprintable() for line in text.split("\n"))
    assert overview_text([hostile], NOW, width).count("\n") == 1
    changes = [{"name": HOSTILE, "kind": "changed", "keys": [HOSTILE], "effect": "restart"}]
    assert changes_text(changes, dry_run=False).rstrip("\n").isprintable()
    assert waiting_text([service(HOSTILE, "start", waits_for=[HOSTILE])], [HOSTILE], "ready", 3).isprintable()


@pytest.mark.parametrize(
    ("method", "state", "sub", "reason", "text"),
    [
        ("Start", "failed", "failed", "exit code 3", "web has failed: exit code 3"),
        ("Start", "failed", "failed", "", "web has failed"),
        ("Restart", "activating", "auto-restart", "signal SIGSEGV", "web is not up (auto-restart): signal SIGSEGV"),
        ("Start", "activating", "start", "", "web is not up (start)"),
        ("Stop", "deactivating", "stop-sigterm", "", "web is not down (stop-sigterm)"),
        ("Reload", "active", "running", "exit code 1", "web was not reloaded: exit code 1"),
    ],
)
def test_a_failure_is_one_line_with_its_reason(method: str, state: str, sub: str, reason: str, text: str) -> None:
    result = {"name": "web", "ok": False, "state": state, "sub": sub, "reason": reason}
    assert failure_text(result, method) == text


def test_changes_are_told_with_what_comes_of_them() -> None:
    def change(kind: str, effect: str, *keys: str) -> dict[str, Any]:
        return {"name": "web", "kind": kind, "keys": list(keys), "effect": effect}

    assert changes_text([], dry_run=False) == changes_text([], dry_run=True) == "nothing has changed\n"
    changes = [
        change("changed", "restart", "command", "user"),
        change("changed", "none", "restart"),
        change("added", "start"),
        change("removed", "stop"),
        change("changed", "reload", "environment"),
        change("enabled", "start"),
        change("disabled", "none"),
    ]
    assert changes_text(changes, dry_run=False).splitlines() == [
        "web is changed in command, user: is restarted",
        "web is changed in restart",
        "web is new: is started",
        "web is gone: is stopped",
        "web is changed in environment: is reloaded",
        "web is enabled: is started",
        "web is disabled",
    ]
    assert changes_text(changes[:2], dry_run=True).splitlines() == [
        "web is changed in command, user: would be restarted",
        "web is changed in restart",
    ]


def test_what_is_waited_for_is_who_is_not_there_yet() -> None:
    some = [
        service("a", "running"),
        service("b", "start"),
        service("c", "waiting", state="activating", waits_for=["b"]),
    ]
    names = ["a", "b", "c"]
    assert waiting_text(some, names, "ready", 12.4) == "waiting for b, c (after b) (12 s)"
    assert waiting_text(some, names, "stopped", 0.2) == "waiting for a, b, c (after b) (1 s)"
    assert waiting_text([], names, "ready", 75) == "waiting for a, b, c (1 min 15 s)"


def test_a_service_that_is_none_has_its_own_exit_code() -> None:
    error = NoSuchService("web")
    assert (error.name, error.exit_code, str(error)) == (
        "web",
        69,
        "there is no service web; `lcinit status` lists them",
    )
