"""The commands that talk to a running lcinit, as a user runs them, against a server with a real socket."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.cli import poweroff
from lcinit.control.initctl import REQUEST_SIZE, Request
from lcinit.errors import LcinitError, SystemFailure
from lcinit.tools import initctl_client
from tests.namespace.control_rig import BOTH_LOOPS, Rig, report, wait_until
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root


@pytest.fixture(params=BOTH_LOOPS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with Rig(str(tmp_path / "lcinit" / "control"), request.param) as running:
        yield running


def _start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lcinit", *words]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _run(*words: str, path: str) -> tuple[int, str, str]:
    started = _start(*words, "--socket", path)
    output, errors = started.communicate(timeout=20)
    return started.returncode, output, errors


def _events(rig: Rig) -> list[dict[str, object]]:
    with rig.client() as client:
        return list(client.call("Events")["events"])


def test_status_is_shown_and_as_json_it_is_the_report(rig: Rig) -> None:
    code, output, errors = _run("status", path=rig.path)
    assert (code, errors) == (0, "")
    assert "guest      /sbin/init (systemd), process 42, up 1 h 2 min, ready\n" in output
    code, output, errors = _run("status", "--json", path=rig.path)
    assert (code, json.loads(output), errors) == (0, report(), "")


@pytest.mark.parametrize(
    ("words", "request_", "at_once"),
    [
        (("poweroff",), "poweroff", False),
        (("poweroff", "--now"), "poweroff", True),
        (("reboot", "-f"), "reboot", True),
        (("shutdown", "-h", "now"), "poweroff", False),
        (("shutdown", "-P", "+0"), "poweroff", False),
        (("shutdown",), "poweroff", False),
        (("shutdown", "-hP", "now"), "poweroff", False),
        (("shutdown", "-r", "now"), "reboot", False),
    ],
)
def test_stop_commands_ask_for_what_they_say(rig: Rig, words: tuple[str, ...], request_: str, at_once: bool) -> None:
    assert _run(*words, path=rig.path) == (0, "", "")
    facts = {"request": request_, "origin": "control", "at_once": at_once}
    assert [(event["kind"], event["facts"]) for event in _events(rig)] == [("stop-asked", facts)]


def test_refusals_are_one_line_with_the_exit_code_that_lcinit_gave(rig: Rig) -> None:
    refused = "cannot halt: the guest does not run; it ended with exit code 3\n"
    assert _run("halt", path=rig.path) == (71, "", f"lcinit halt: {refused}")
    for halt in (("-H",), ("-h", "-H")):
        assert _run("shutdown", *halt, "now", path=rig.path) == (71, "", f"lcinit shutdown: {refused}")
    code, output, errors = _run("restart", path=rig.path)
    assert (code, output) == (70, "")
    assert "lcinit failed at io.lcinit.Manager.Restart with ZeroDivisionError" in errors
    assert _run("freeze", path=rig.path)[0] == 71


def test_shutdown_keeps_no_appointments(rig: Rig) -> None:
    code, _, errors = _run("shutdown", "-h", "+5", path=rig.path)
    assert code == 64
    assert "'+5' is not now" in errors
    assert _events(rig) == []


def test_shutdown_is_one_of_three(rig: Rig) -> None:
    for words, what in ((("-h", "-r"), "-h and -r"), (("-H", "-P"), "halt and poweroff")):
        code, _, errors = _run("shutdown", *words, path=rig.path)
        assert (code, errors) == (64, f"lcinit shutdown: {what} exclude each other; see lcinit shutdown --help\n")
    assert _events(rig) == []


def test_kill_sends_signals_by_name_and_number(rig: Rig) -> None:
    assert _run("kill", "-s", "HUP", path=rig.path) == (0, "SIGHUP was sent to 1 process\n", "")
    assert _run("kill", "-s", "SIGRTMIN+3", "--whom", "all", path=rig.path)[1] == (
        "SIGRTMIN+3 was sent to 7 processes\n"
    )
    assert _run("kill", "--json", path=rig.path) == (0, '{"signalled": 1}\n', "")
    assert _run("kill", "-s", "SIGNONE", path=rig.path)[0] == 64
    assert [event["facts"] for event in _events(rig)] == [
        {"number": signal.SIGHUP, "whom": "init"},
        {"number": 37, "whom": "all"},
        {"number": signal.SIGTERM, "whom": "init"},
    ]


def test_thaw_and_log_level(rig: Rig) -> None:
    assert _run("thaw", path=rig.path) == (0, "", "")
    assert _run("log-level", path=rig.path) == (0, "info\n", "")
    assert _run("log-level", "--json", path=rig.path) == (0, '{"log_level": "info"}\n', "")
    assert _run("log-level", "error", path=rig.path) == (0, "", "")
    assert _run("log-level", "loud", path=rig.path)[0] == 64
    _run("restart", path=rig.path)
    with rig.client() as client:
        client.call("Signal", signal="USR1", whom="all")
        assert [record["level"] for record in client.call("Logs")["records"]] == ["error"]


def test_logs_and_events_are_lines(rig: Rig) -> None:
    with rig.client() as client:
        client.call("Signal", signal="USR1", whom="all")
    code, output, errors = _run("logs", "-n", "2", path=rig.path)
    assert (code, errors) == (0, "")
    assert re.fullmatch(r"[-0-9]{10} [:0-9]{8}Z info: line 2498\n[-0-9]{10} [:0-9]{8}Z info: line 2499\n", output)
    assert len(_run("logs", path=rig.path)[1].splitlines()) == 1000
    as_json = json.loads(_run("logs", "-n", "1", "--json", path=rig.path)[1])
    assert (as_json["seq"], as_json["level"], as_json["message"]) == (2500, "info", "line 2499")
    assert _run("logs", "-n", "0", path=rig.path) == (0, "", "")
    _run("thaw", path=rig.path)
    assert re.fullmatch(r"[^#]+Z #2 thawed\n", _run("events", "--after", "1", path=rig.path)[1])


@pytest.mark.parametrize(
    ("command", "call", "shown"),
    [
        ("logs", "Restart", "error: control: io.lcinit.Manager.Restart: unexpected: ZeroDivisionError: a bug\n"),
        ("events", "Thaw", "#1 thawed\n"),
    ],
)
def test_following_shows_what_comes_until_it_is_interrupted(rig: Rig, command: str, call: str, shown: str) -> None:
    idle = rig.descriptors()
    following = _start(command, "-f", "--socket", rig.path)
    assert following.stdout is not None
    try:
        wait_until(lambda: rig.descriptors() == idle + 1, "it is connected", 20)
        with rig.client() as client:
            if call == "Restart":
                with pytest.raises(LcinitError):
                    client.call(call)
            else:
                client.call(call)
        assert following.stdout.readline().endswith(shown)
        following.send_signal(signal.SIGINT)
        _, errors = following.communicate(timeout=10)
    finally:
        following.kill()
        following.wait()
    assert (following.returncode, errors) == (130, "")


def test_follower_is_told_when_lcinit_ends(tmp_path: Path) -> None:
    with Rig(str(tmp_path / "lcinit" / "control")) as rig:
        with rig.client() as client:
            client.call("Thaw")
        following = _start("events", "-f", "--socket", rig.path)
        assert following.stdout is not None
        following.stdout.readline()
    _, errors = following.communicate(timeout=10)
    assert following.returncode == 71
    reasons = "it has ended, was replaced (reexec), or needed room"
    assert errors == f"lcinit events: lcinit closed the connection to {rig.path}; {reasons}\n"


def test_without_a_server_every_command_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    for command in ("status", "events", "logs", "restart", "kill", "freeze", "thaw", "log-level", "reexec"):
        code, output, errors = _run(command, path=path)
        assert (code, output) == (71, "")
        assert errors.startswith(f"lcinit {command}: no lcinit supervises a guest here: nobody serves {path}; it does")


def test_another_user_is_told_that_it_may_not(rig: Rig) -> None:
    def body() -> None:
        os.setgroups([])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)
        with pytest.raises(LcinitError, match=r"cannot talk to lcinit on .*: Permission denied; only root") as caught:
            rig.client()
        assert caught.value.exit_code == 77

    run_isolated(body)


@pytest.mark.parametrize(("word", "level"), [("poweroff", "0"), ("halt", "0"), ("reboot", "6")])
def test_without_a_server_stop_commands_ask_the_init_behind_the_fifo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, level: str
) -> None:
    fifo = str(tmp_path / "initctl")
    os.mkfifo(fifo)
    monkeypatch.setattr(initctl_client, "default_fifo", functools.partial(initctl_client.default_fifo, (fifo,)))
    absent = ["--socket", str(tmp_path / "control")]
    held = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        assert poweroff.run_word(word, absent, word) == 0
        with pytest.raises(SystemFailure, match="cannot be told to do it at once; leave out --now"):
            poweroff.run_word(word, [*absent, "--now"], word)
        request = Request.parse(os.read(held, 2 * REQUEST_SIZE))
    finally:
        os.close(held)
    assert (request.cmd, request.level) == (1, level)
    os.unlink(fifo)
    with pytest.raises(SystemFailure, match=r"no lcinit supervises .*, and no init takes requests here"):
        poweroff.run_word(word, absent, word)
