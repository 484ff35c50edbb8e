"""The commands for services, as a user runs them, against a server with a real socket."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.namespace.control_rig import BOTH_LOOPS, Rig, report, wait_until
from tests.namespace.isolated import needs_root
from tests.namespace.service_control_rig import ServicesRig, report_with_services, services

pytestmark = needs_root


@pytest.fixture(params=BOTH_LOOPS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServicesRig]:
    with ServicesRig(str(tmp_path / "lcinit" / "control"), request.param) as running:
        yield running


def _start(*words: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    streams: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": environment,
    } | options
    return subprocess.Popen([sys.executable, "-m", "lcinit", *words], **streams)


def _run(*words: str, path: str) -> tuple[int, str, str]:
    started = _start(*words, "--socket", path)
    output, errors = started.communicate(timeout=20)
    return started.returncode, output, errors


def _events(rig: Rig) -> list[tuple[str, dict[str, Any]]]:
    with rig.client() as client:
        return [(event["kind"], event["facts"]) for event in client.call("Events")["events"]]


def _kinds(rig: Rig) -> list[str]:
    return [kind for kind, _ in _events(rig)]


def _signal(rig: Rig, name: str, word: str) -> None:
    with rig.client() as client:
        client.call("io.lcinit.Services.Kill", name=name, signal=word)


def test_status_is_the_report_and_a_line_for_each_service(rig: ServicesRig) -> None:
    code, output, errors = _run("status", path=rig.path)
    assert (code, errors) == (0, "")
    assert "runlevel   3\nservices   1 of 5 up, 1 failed\n" in output
    lines = output.split("\n\n")[1].splitlines()
    assert [line.split("  ")[0] for line in lines] == ["web", "db", "broken", "slow", "slower"]
    assert "active (running)" in lines[0]
    assert "\x1b" not in output
    code, output, errors = _run("status", "--json", path=rig.path)
    expected = {**report_with_services(report()), "service_list": services()}
    assert (code, json.loads(output), errors) == (0, expected, "")
    assert _run("status", "--names", path=rig.path) == (0, "web\ndb\nbroken\nslow\nslower\n", "")


def test_status_of_services_is_all_about_them(rig: ServicesRig) -> None:
    code, output, errors = _run("status", "web", path=rig.path)
    assert (code, errors) == (0, "")
    assert output.startswith("web - the web service\nstate      active (running) since 2026-09-21 14:13:20Z, ")
    code, output, errors = _run("status", "web", "db", path=rig.path)
    assert (code, errors) == (3, "")
    assert "\n\ndb - the db service\n" in output
    code, output, _ = _run("status", "--json", "broken", path=rig.path)
    assert (code, json.loads(output)) == (3, [services()[2]])
    unknown = (69, "", "lcinit status: there is no service nothing; `lcinit status` lists them\n")
    assert _run("status", "nothing", path=rig.path) == unknown
    assert _run("status", "--names", "web", path=rig.path)[0] == 64


def test_status_has_colours_on_a_terminal(rig: ServicesRig) -> None:
    ours, theirs = pty.openpty()
    started = _start("status", "--socket", rig.path, stdout=theirs)
    os.close(theirs)
    assert started.wait(20) == 0
    assert b"\x1b[32mactive (running)\x1b[0m" in _all(ours)


def _all(terminal: int) -> bytes:
    """What was written to a terminal whose other side is closed."""
    data = b""
    try:
        while received := os.read(terminal, 65536):
            data += received
    except OSError:  # EIO: closed
        pass
    os.close(terminal)
    return data


def test_work_that_succeeds_is_silent(rig: ServicesRig) -> None:
    for words in (("start", "db", "web"), ("restart", "web"), ("reload", "web"), ("stop", "web", "db")):
        assert _run(*words, path=rig.path) == (0, "", ""), words
    assert _kinds(rig) == ["start-asked", "restart-asked", "reload-asked", "stop-asked"]
    code, output, errors = _run("start", "--json", "db", path=rig.path)
    assert (code, errors) == (0, "")
    assert json.loads(output) == [{"name": "db", "ok": True, "state": "active", "sub": "running", "reason": ""}]


def test_there_is_no_guest_to_attach_to(rig: ServicesRig) -> None:
    code, _, errors = _run("attach", path=rig.path)
    assert code == 71
    assert "there is no guest to enter: lcinit supervises services in its own root; you are in its root" in errors


@pytest.mark.parametrize("word", ["start", "restart"])
def test_work_that_fails_is_a_line_for_each_service_with_its_reason(rig: ServicesRig, word: str) -> None:
    failed = f"lcinit {word}: broken has failed: exit code 3\n"
    assert _run(word, "broken", "db", path=rig.path) == (1, "", failed)
    code, output, errors = _run(word, "--json", "broken", path=rig.path)
    assert (code, errors) == (1, failed)
    assert [result["ok"] for result in json.loads(output)] == [False]


@pytest.mark.parametrize("word", ["start", "stop", "restart", "reload", "enable", "disable", "wait", "reset-failed"])
def test_a_service_that_is_none_is_named(rig: ServicesRig, word: str) -> None:
    code, output, errors = _run(word, "web", "nothing", path=rig.path)
    unknown = f"lcinit {word}: there is no service nothing; `lcinit status` lists them\n"
    assert (code, output, errors) == (69, "", unknown)
    assert _kinds(rig) == []


def test_it_waits_until_it_is_done(rig: ServicesRig) -> None:
    started = _start("start", "slow", "--socket", rig.path)
    wait_until(lambda: _kinds(rig) == ["start-asked"], "it is begun", 20)
    assert started.poll() is None
    _signal(rig, "slow", "USR1")
    assert (*started.communicate(timeout=20), started.returncode) == ("", "", 0)


def test_it_does_not_wait_with_no_block(rig: ServicesRig) -> None:
    for word in ("start", "restart"):
        assert _run(word, "--no-block", "slow", path=rig.path) == (0, "", "")
    code, output, _ = _run("start", "--no-block", "--json", "slow", path=rig.path)
    assert (code, [result["sub"] for result in json.loads(output)]) == (0, ["start"])


def test_restart_without_a_name_is_the_guest_as_a_whole(rig: ServicesRig) -> None:
    assert _run("restart", path=rig.path)[0] == 70  # the rig's own: it has no restart
    for words in (("--now", "web"), ("--no-block",), ("--json",)):
        assert _run("restart", *words, path=rig.path)[0] == 64
    assert _kinds(rig) == []


def test_on_a_terminal_it_says_what_it_waits_for_and_takes_that_away(rig: ServicesRig) -> None:
    ours, theirs = pty.openpty()
    started = _start("start", "slow", "slower", "web", "--socket", rig.path, stderr=theirs)
    os.close(theirs)
    seen = _until(ours, b"waiting for slow, slower (after db) (1 s)")
    seen += _until(ours, b"waiting for slow, slower (after db) (2 s)")
    _signal(rig, "slow", "USR1")
    seen += _until(ours, b"waiting for slower (after db)")
    _signal(rig, "slower", "USR2")
    output, _ = started.communicate(timeout=20)
    seen += _all(ours)
    assert (started.returncode, output) == (1, "")
    last = seen.rpartition(b"\r\x1b[K")[2].replace(b"\r\n", b"\n")
    assert last == b"lcinit start: slower has failed: not ready within 90 s\n"


def _until(terminal: int, text: bytes) -> bytes:
    """What is written to a terminal, up to this text."""
    data, end = b"", time.monotonic() + 15
    while text not in data:
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], data
        data += os.read(terminal, 65536)
    return data


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_ends_the_waiting_and_says_that_the_work_goes_on(rig: ServicesRig, terminal: bool) -> None:
    ours, theirs = pty.openpty()
    started = _start("start", "slow", "--socket", rig.path, **({"stderr": theirs} if terminal else {}))
    os.close(theirs)
    wait_until(lambda: _kinds(rig) == ["start-asked"], "it is begun", 20)
    shown = _until(ours, b"waiting for slow") if terminal else b""
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=20)
    shown += _all(ours) if terminal else errors.encode()
    assert started.returncode == -signal.SIGINT
    goes_on = b"lcinit start: not waiting any longer: what was begun goes on (`lcinit status slow`)"
    assert shown.rpartition(b"\r\x1b[K")[2].strip() == goes_on
    wait_until(lambda: _kinds(rig) == ["start-asked", "abandoned"], "nobody waits")


def test_who_waits_is_told_when_lcinit_ends(tmp_path: Path) -> None:
    with ServicesRig(str(tmp_path / "lcinit" / "control")) as rig:
        started = _start("start", "slow", "--socket", rig.path)
        wait_until(lambda: _kinds(rig) == ["start-asked"], "it is begun", 20)
    _, errors = started.communicate(timeout=20)
    assert started.returncode == 71
    reasons = "it has ended, was replaced (reexec), or needed room"
    assert errors == f"lcinit start: lcinit closed the connection to {rig.path}; {reasons}\n"


def test_wait_for_ready_and_stopped(rig: ServicesRig) -> None:
    assert _run("wait", "web", path=rig.path) == (0, "", "")
    assert _run("wait", "--for", "stopped", "db", "slow", path=rig.path) == (0, "", "")
    assert _run("wait", "--for", "ready", "web", "broken", path=rig.path) == (
        1,
        "",
        "lcinit wait: broken has failed: exit code 3\n",
    )
    assert _run("wait", "--for", "stopped", "--timeout", "0.1", "web", path=rig.path) == (
        1,
        "",
        "lcinit wait: web is not down (running)\n",
    )
    code, output, _ = _run("wait", "--timeout", "0", "--json", "slow", path=rig.path)
    assert (code, [result["ok"] for result in json.loads(output)]) == (1, [False])
    for words in (("--for", "up"), ("--timeout", "soon"), ("--timeout", "-1"), ("--timeout", "nan")):
        assert _run("wait", *words, "web", path=rig.path)[0] == 64


def test_kill_signals_a_service(rig: ServicesRig) -> None:
    assert _run("kill", "-s", "HUP", "web", path=rig.path) == (0, "SIGHUP was sent to 1 process\n", "")
    assert _run("kill", "--whom", "main", "web", path=rig.path)[0] == 0
    assert _run("kill", "--whom", "all", "--json", "web", path=rig.path) == (0, '{"signalled": 3}\n', "")
    assert _run("kill", "--whom", "init", "web", path=rig.path)[0] == 64
    assert _run("kill", "--whom", "main", path=rig.path)[0] == 64
    assert _run("kill", "nothing", path=rig.path)[0] == 69
    code, _, errors = _run("kill", "-s", "HUP", path=rig.path)
    assert code == 69
    assert errors.endswith("and lcinit supervises services here; name a service: `lcinit kill NAME`\n")
    assert _events(rig) == [
        ("signalled", {"service": "web", "number": signal.SIGHUP, "whom": "main"}),
        ("signalled", {"service": "web", "number": signal.SIGTERM, "whom": "main"}),
        ("signalled", {"service": "web", "number": signal.SIGTERM, "whom": "all"}),
    ]


def test_enable_and_disable(rig: ServicesRig) -> None:
    assert _run("enable", "web", "db", path=rig.path) == (0, "db is enabled\n", "")
    assert _run("enable", "db", path=rig.path) == (0, "", "")
    assert _run("disable", "db", path=rig.path) == (0, "db is disabled\n", "")
    assert _run("enable", "--json", "db", path=rig.path) == (0, '{"changed": ["db"]}\n', "")
    assert _kinds(rig) == []
    assert _run("disable", "--now", "web", path=rig.path) == (0, "web is disabled\n", "")
    code, output, errors = _run("enable", "--now", "--json", "web", path=rig.path)
    assert (code, errors) == (0, "")
    done = [{"name": "web", "ok": True, "state": "active", "sub": "running", "reason": ""}]
    assert json.loads(output) == {"changed": ["web"], "done": done}
    assert _run("enable", "--now", "--no-block", "slow", path=rig.path) == (0, "", "")
    assert _kinds(rig) == ["stop-asked", "start-asked", "start-asked"]
    assert _run("enable", "--no-block", "slow", path=rig.path)[0] == 64
    refused = "lcinit enable: cannot enable broken: Read-only file system (/etc/lcinit/enabled)\n"
    assert _run("enable", "broken", path=rig.path) == (71, "", refused)


def test_reset_failed(rig: ServicesRig) -> None:
    assert _run("reset-failed", "broken", path=rig.path) == _run("reset-failed", path=rig.path) == (0, "", "")
    assert [facts["services"] for _, facts in _events(rig)] == [["broken"], ["web", "db", "broken", "slow", "slower"]]


def test_daemon_reload_says_what_has_changed(rig: ServicesRig) -> None:
    would = "web is changed in command, user: would be restarted\nnew is new: would be started\n"
    assert _run("daemon-reload", "--dry-run", path=rig.path) == (0, would, "")
    code, output, errors = _run("daemon-reload", "--json", path=rig.path)
    assert (code, errors) == (0, "")
    assert [(change["name"], change["effect"]) for change in json.loads(output)] == [
        ("web", "restart"),
        ("new", "start"),
    ]
    assert _run("daemon-reload", path=rig.path) == (0, "nothing has changed\n", "")
    assert _run("daemon-reload", "--json", path=rig.path) == (0, "[]\n", "")


def test_events_of_one_service(rig: ServicesRig) -> None:
    for words in (("start", "db", "web"), ("stop", "db"), ("kill", "-s", "HUP", "web")):
        _run(*words, path=rig.path)
    _, output, _ = _run("events", "web", path=rig.path)
    assert [line.split()[3] for line in output.splitlines()] == ["start-asked", "signalled"]
    _, output, _ = _run("events", "--json", "db", "slow", path=rig.path)
    assert [json.loads(line)["kind"] for line in output.splitlines()] == ["start-asked", "stop-asked"]
    assert len(_run("events", path=rig.path)[1].splitlines()) == 3


def test_runlevel_under_both_names(rig: ServicesRig, tmp_path: Path) -> None:
    assert _run("runlevel", path=rig.path) == (0, "N 3\n", "")
    with rig.client() as client:
        client.call("io.lcinit.Services.SetRunlevel", runlevel="5")
    assert _run("runlevel", path=rig.path) == (0, "3 5\n", "")
    assert _run("runlevel", "--json", path=rig.path) == (0, '{"runlevel": "5", "previous": "3"}\n', "")
    program = [sys.executable, "-c", "import sys; from lcinit.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run([*program, "/sbin/runlevel", "--socket", rig.path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 5\n", "")
    nowhere = str(tmp_path / "nowhere")
    assert _run("runlevel", path=nowhere) == (1, "unknown\n", "")
    assert _run("runlevel", "--json", path=nowhere) == (1, '{"runlevel": null, "previous": null}\n', "")


def test_where_there_is_a_guest_instead_there_are_no_services(tmp_path: Path) -> None:
    with Rig(str(tmp_path / "lcinit" / "control")) as rig:
        for words in (("start", "web"), ("status", "web"), ("wait", "web"), ("daemon-reload",), ("kill", "web")):
            code, output, errors = _run(*words, path=rig.path)
            assert (code, output) == (69, "")
            assert errors.startswith(f"lcinit {words[0]}: lcinit supervises no services here; it does with exec.pid")
        assert _run("runlevel", path=rig.path) == (1, "unknown\n", "")
        assert json.loads(_run("status", "--json", path=rig.path)[1]) == report()


@pytest.mark.parametrize(
    "words",
    [
        ("start", "a"),
        ("stop", "a"),
        ("reload", "a"),
        ("wait", "a"),
        ("enable", "a"),
        ("reset-failed",),
        ("daemon-reload",),
    ],
)
def test_without_a_server_every_command_says_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = str(tmp_path / "control")
    code, output, errors = _run(*words, path=path)
    assert (code, output) == (71, "")
    assert errors.startswith(f"lcinit {words[0]}: no lcinit supervises a guest here: nobody serves {path}; it does")
