"""io.lcinit.Services with a real server process, under both loops: calls, replies that come later, who goes."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcinit.control.client import Client
from lcinit.errors import LcinitError
from tests.namespace.control_rig import BOTH_LOOPS, Rig, report, wait_until
from tests.namespace.isolated import needs_root
from tests.namespace.service_control_rig import ServicesRig, report_with_services, services

pytestmark = needs_root

START_SLOW = b'{"method":"io.lcinit.Services.Start","parameters":{"names":["slow"]}}\0'


@pytest.fixture(params=BOTH_LOOPS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServicesRig]:
    with ServicesRig(str(tmp_path / "lcinit" / "control"), request.param) as running:
        yield running


def _call(rig: ServicesRig, method: str, **parameters: Any) -> dict[str, Any]:
    with rig.client() as client:
        return client.call(f"io.lcinit.Services.{method}", **parameters)


def _raw(rig: ServicesRig) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(rig.path)
    peer.settimeout(5)
    return peer


def _events(rig: ServicesRig) -> list[tuple[str, dict[str, Any]]]:
    with rig.client() as client:
        return [(event["kind"], event["facts"]) for event in client.call("Events")["events"]]


def _count(rig: ServicesRig, kind: str) -> int:
    return sum(name == kind for name, _ in _events(rig))


def _result(name: str, sub: str, *, ok: bool = True, reason: str = "") -> dict[str, Any]:
    states = {"running": "active", "dead": "inactive", "start": "activating", "failed": "failed"}
    return {"name": name, "ok": ok, "state": states[sub], "sub": sub, "reason": reason}


def test_list_is_all_or_those_that_are_named(rig: ServicesRig) -> None:
    assert _call(rig, "List") == {"services": services(), "runlevel": "3", "previous": "N"}
    assert [each["name"] for each in _call(rig, "List", names=["db", "web", "db"])["services"]] == ["db", "web"]
    assert _call(rig, "List", names=[])["services"] == []


def test_the_manager_is_served_beside_it_without_what_takes_a_guest(rig: ServicesRig) -> None:
    with rig.client() as client:
        assert client.call("Status")["status"] == report_with_services(report())
        client.call("Poweroff")
        client.call("SetLogLevel", level="warning")
        assert client.call("Plan")
        interfaces = client.call("org.varlink.service.GetInfo")["interfaces"]
        assert interfaces == ["io.lcinit.Manager", "io.lcinit.Services", "org.varlink.service"]
        for method in ("Signal", "Freeze", "Thaw", "Reexec", "OpenConsole", "SetConsoleSize"):
            with pytest.raises(LcinitError, match=f"{method} is for a guest with an init of its own") as caught:
                client.call(method)
            assert caught.value.exit_code == 69
            assert caught.value.hint
    assert [facts["request"] for kind, facts in _events(rig) if kind == "stop-asked"] == ["poweroff"]


def test_without_services_there_is_no_such_interface(tmp_path: Path) -> None:
    refused = pytest.raises(LcinitError, match="lcinit supervises no services here")
    with Rig(str(tmp_path / "lcinit" / "control")) as rig, rig.client() as client, refused:
        client.call("io.lcinit.Services.List")


def test_every_method_of_the_interface_is_served_and_no_other(rig: ServicesRig) -> None:
    from lcinit.control.answers import Interfaces
    from lcinit.control.services import INTERFACE, Services
    from lcinit.supervisor.events import EventLog
    from tests.namespace.service_control_rig import FakeServices

    interfaces = Interfaces()
    Services(FakeServices(EventLog()), lambda: True).serve_in(interfaces)
    text = interfaces._texts[INTERFACE]
    described = {line.split("(")[0].removeprefix("method ") for line in text.splitlines() if line.startswith("method ")}
    assert set(interfaces._methods[INTERFACE]) == described


def test_what_is_done_at_once_is_answered_at_once(rig: ServicesRig) -> None:
    assert _call(rig, "Start", names=["db", "broken"]) == {
        "done": [_result("db", "running"), _result("broken", "failed", ok=False, reason="exit code 3")]
    }
    assert _call(rig, "Stop", names=["web", "web"]) == {"done": [_result("web", "dead")]}
    assert _call(rig, "Restart", names=["web"]) == {"done": [_result("web", "running")]}
    assert _call(rig, "Reload", names=["web"]) == {"done": [_result("web", "running")]}
    assert _events(rig) == [
        ("start-asked", {"services": ["db", "broken"], "origin": "control"}),
        ("stop-asked", {"services": ["web"], "origin": "control"}),
        ("restart-asked", {"services": ["web"], "origin": "control"}),
        ("reload-asked", {"services": ["web"], "origin": "control"}),
    ]


def test_without_waiting_the_reply_says_that_it_was_taken_on(rig: ServicesRig) -> None:
    assert _call(rig, "Start", names=["slow"], wait=False) == {"done": [_result("slow", "start")]}
    assert _call(rig, "Restart", names=["broken"], wait=False) == {
        "done": [_result("broken", "failed", ok=False, reason="exit code 3")]
    }
    with pytest.raises(LcinitError, match="cannot reload broken"):
        _call(rig, "Reload", names=["broken"], wait=False)
    assert _count(rig, "abandoned") == 0


def test_signals_enabling_and_runlevels(rig: ServicesRig) -> None:
    assert _call(rig, "Kill", name="web", signal="HUP") == {"signalled": 1}
    assert _call(rig, "Kill", name="web", signal="SIGRTMIN+3", whom="all") == {"signalled": 3}
    assert _call(rig, "Enable", names=["web", "db"]) == {"changed": ["db"]}
    assert _call(rig, "Disable", names=["web", "db"]) == {"changed": ["web", "db"]}
    assert _call(rig, "GetRunlevel") == {"runlevel": "3", "previous": "N"}
    assert _call(rig, "SetRunlevel", runlevel="5") == {}
    assert _call(rig, "GetRunlevel") == {"runlevel": "5", "previous": "3"}
    assert _call(rig, "ResetFailed") == _call(rig, "ResetFailed", names=["broken"]) == {}
    assert _events(rig) == [
        ("signalled", {"service": "web", "number": signal.SIGHUP, "whom": "main"}),
        ("signalled", {"service": "web", "number": 37, "whom": "all"}),
        ("runlevel-asked", {"runlevel": "5", "origin": "control"}),
        ("reset", {"services": ["web", "db", "broken", "slow", "slower"]}),
        ("reset", {"services": ["broken"]}),
    ]


def test_daemon_reload_tells_the_difference(rig: ServicesRig) -> None:
    for dry_run in (True, False):
        changes = _call(rig, "DaemonReload", dry_run=dry_run)["changes"]
        assert [(each["name"], each["kind"], each["effect"]) for each in changes] == [
            ("web", "changed", "restart"),
            ("new", "added", "start"),
        ]
    assert _call(rig, "DaemonReload") == {"changes": []}


@pytest.mark.parametrize(
    ("method", "parameters", "message", "code"),
    [
        ("List", {"names": ["web", "nothing"]}, "there is no service nothing", 69),
        ("Start", {"names": ["nothing"]}, "there is no service nothing", 69),
        ("Wait", {"names": ["nothing"], "state": "ready"}, "there is no service nothing", 69),
        ("Kill", {"name": "nothing", "signal": "HUP"}, "there is no service nothing", 69),
        ("Enable", {"names": ["broken"]}, "cannot enable broken: Read-only file system (/etc/lcinit/enabled)", 71),
        ("Reload", {"names": ["broken"]}, "cannot reload broken: it is not up", 69),
        ("Reload", {"names": ["db"]}, "lcinit failed at io.lcinit.Services.Reload with ZeroDivisionError", 70),
        ("Start", {}, "lcinit does not take this names for io.lcinit.Services.Start", 64),
        ("Start", {"names": []}, "lcinit does not take this names for io.lcinit.Services.Start", 64),
        ("Start", {"names": "web"}, "lcinit does not take this names for io.lcinit.Services.Start", 64),
        ("Start", {"names": ["web", 3]}, "lcinit does not take this names for io.lcinit.Services.Start", 64),
        ("Stop", {"names": ["web"], "wait": 1}, "lcinit does not take this wait for io.lcinit.Services.Stop", 64),
        ("Stop", {"names": ["web"], "now": 1}, "lcinit does not take this now for io.lcinit.Services.Stop", 64),
        ("Kill", {"name": "web", "signal": "NONE"}, "lcinit does not take this signal for io.lcinit.Services.Kill", 64),
        (
            "Kill",
            {"name": "web", "signal": "HUP", "whom": "init"},
            "lcinit does not take this whom for io.lcinit.Services.Kill",
            64,
        ),
        ("SetRunlevel", {"runlevel": "6"}, "lcinit does not take this runlevel for io.lcinit.Services.SetRunlevel", 64),
        (
            "Wait",
            {"names": ["web"], "state": "up"},
            "lcinit does not take this state for io.lcinit.Services.Wait",
            64,
        ),
        (
            "Wait",
            {"names": ["web"], "state": "ready", "timeout": -1},
            "lcinit does not take this timeout for io.lcinit.Services.Wait",
            64,
        ),
        (
            "Wait",
            {"names": ["web"], "state": "ready", "timeout": True},
            "lcinit does not take this timeout for io.lcinit.Services.Wait",
            64,
        ),
    ],
)
def test_what_cannot_be_done_is_told_and_the_connection_goes_on(
    rig: ServicesRig, method: str, parameters: dict[str, Any], message: str, code: int
) -> None:
    with rig.client() as client:
        with pytest.raises(LcinitError) as caught:
            client.call(f"io.lcinit.Services.{method}", **parameters)
        assert (caught.value.message, caught.value.exit_code) == (message, code)
        assert client.call("io.lcinit.Services.GetRunlevel")
    assert _count(rig, "start-asked") == 0


def test_a_result_that_json_cannot_say_is_a_fault_that_is_told(rig: ServicesRig) -> None:
    with rig.client() as client:
        with pytest.raises(LcinitError, match=r"lcinit failed at io\.lcinit\.Services\.Reload with TypeError"):
            client.call("io.lcinit.Services.Reload", names=["slow"])
        assert client.call("io.lcinit.Services.GetRunlevel")
    assert "io.lcinit.Services.Reload: unexpected: TypeError" in rig.said()


# replies that come later


def _wait_in_thread(rig: ServicesRig, method: str, **parameters: Any) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(_call(rig, method, **parameters)))
    thread.start()
    return thread, answers


def test_a_reply_comes_when_it_is_ready_and_others_are_answered_meanwhile(rig: ServicesRig) -> None:
    thread, answers = _wait_in_thread(rig, "Start", names=["slow", "slower"])
    wait_until(lambda: _count(rig, "start-asked") == 1, "it is begun")
    _call(rig, "Kill", name="slow", signal="USR1")
    for _ in range(20):
        assert len(_call(rig, "List")["services"]) == 5
    assert answers == []
    _call(rig, "Kill", name="slower", signal="USR2")
    thread.join(5)
    failed = _result("slower", "failed", ok=False, reason="not ready within 90 s")
    assert answers == [{"done": [_result("slow", "running"), failed]}]
    assert _count(rig, "abandoned") == 0


def test_wait_ends_when_its_time_is_over(rig: ServicesRig) -> None:
    _call(rig, "Start", names=["slow"], wait=False)
    started = time.monotonic()
    assert _call(rig, "Wait", names=["slow", "web"], state="ready", timeout=0.3) == {
        "services": [_result("slow", "start", ok=False), _result("web", "running")]
    }
    assert 0.3 <= time.monotonic() - started < 3
    assert _call(rig, "Wait", names=["db"], state="stopped", timeout=0) == {"services": [_result("db", "dead")]}


@pytest.mark.row(57)
def test_many_wait_for_the_same_and_all_are_told(rig: ServicesRig) -> None:
    peers = [_raw(rig) for _ in range(48)]  # as many as may
    for peer in peers:
        peer.sendall(START_SLOW)
    wait_until(lambda: _count(rig, "start-asked") == 48, "all wait")
    with pytest.raises(LcinitError, match="as many clients as may be wait for lcinit or follow it already") as caught:
        _call(rig, "Start", names=["slow"])
    assert "--no-block" in caught.value.hint
    assert _call(rig, "Start", names=["slow"], wait=False)
    assert _count(rig, "start-asked") == 49  # what was refused was not begun
    idle = [_raw(rig) for _ in range(40)]  # they make room, the waiting do not
    _call(rig, "Kill", name="slow", signal="USR1")
    for peer in peers:
        reply = peer.recv(65536)
        assert json.loads(reply.strip(b"\0")) == {"parameters": {"done": [_result("slow", "running")]}}
    for each in (*peers, *idle):
        each.close()


@pytest.mark.row(57)
def test_who_goes_away_ends_its_waiting_and_not_the_work(rig: ServicesRig) -> None:
    before = rig.descriptors()
    with _raw(rig) as peer:
        peer.sendall(START_SLOW)
        wait_until(lambda: _count(rig, "start-asked") == 1, "it is begun")
    wait_until(lambda: _count(rig, "abandoned") == 1, "nobody waits any more")
    wait_until(lambda: rig.descriptors() == before, "the connection is closed")
    (slow,) = _call(rig, "List", names=["slow"])["services"]
    assert slow["sub"] == "start"
    _call(rig, "Kill", name="slow", signal="USR1")
    assert "unexpected" not in rig.said()


def test_who_only_stops_sending_gets_its_reply_and_the_next(rig: ServicesRig) -> None:
    with _raw(rig) as peer:
        peer.sendall(START_SLOW + b'{"method":"io.lcinit.Services.GetRunlevel"}\0')
        peer.shutdown(socket.SHUT_WR)
        wait_until(lambda: _count(rig, "start-asked") == 1, "it is begun")
        ticks = rig.cpu_ticks()
        time.sleep(0.3)
        assert rig.cpu_ticks() - ticks < 10, "it is woken without end"
        _call(rig, "Kill", name="slow", signal="USR1")
        data = b""
        while received := peer.recv(65536):
            data += received
    assert [list(json.loads(each)["parameters"]) for each in data.split(b"\0")[:-1]] == [
        ["done"],
        ["runlevel", "previous"],
    ]


@pytest.mark.row(57)
def test_who_stopped_sending_and_went_makes_room(rig: ServicesRig) -> None:
    for count in range(1, 49):
        with _raw(rig) as peer:
            peer.sendall(START_SLOW)
            peer.shutdown(socket.SHUT_WR)
            wait_until(lambda: _count(rig, "start-asked") == count, "it is begun")  # noqa: B023 - called at once
            _call(rig, "List")  # by now the server has seen that nothing more is sent
    assert _count(rig, "abandoned") == 0  # nothing told that they went
    assert _call(rig, "Start", names=["db"]) == {"done": [_result("db", "running")]}
    peers = [_raw(rig) for _ in range(70)]
    _call(rig, "List")
    wait_until(lambda: _count(rig, "abandoned") > 0, "those that are gone were closed first")
    for each in peers:
        each.close()


def test_calls_behind_one_that_waits_are_answered_after_it(rig: ServicesRig) -> None:
    with _raw(rig) as peer:
        peer.sendall(START_SLOW + b'{"method":"io.lcinit.Manager.Plan"}\0' * 3)
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        _call(rig, "Kill", name="slow", signal="USR1")
        peer.settimeout(5)
        data = b""
        while data.count(b"\0") < 4:
            data += peer.recv(65536)
    assert [next(iter(json.loads(each)["parameters"])) for each in data.split(b"\0")[:4]] == ["done", *["plan"] * 3]


@pytest.mark.row(57)
def test_who_calls_without_end_while_it_waits_is_hung_up_on(rig: ServicesRig) -> None:
    with _raw(rig) as peer:
        peer.sendall(START_SLOW)
        wait_until(lambda: _count(rig, "start-asked") == 1, "it is begun")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100):
                peer.sendall(b'{"method":"io.lcinit.Manager.Plan"}\0' * 1000)
    assert "it calls without end while it follows or waits" in rig.said()
    assert _count(rig, "abandoned") == 1


def test_oneway_begins_the_work_and_nobody_waits(rig: ServicesRig) -> None:
    with _raw(rig) as peer:
        peer.sendall(START_SLOW.replace(b'{"method"', b'{"oneway":true,"method"'))
        peer.sendall(b'{"method":"io.lcinit.Services.GetRunlevel"}\0')
        assert b'"runlevel":"3"' in peer.recv(65536)
    assert _count(rig, "start-asked") == 1
    assert _count(rig, "abandoned") == 0


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_when_lcinit_ends_who_waits_is_hung_up_on(tmp_path: Path, loop: str) -> None:
    with ServicesRig(str(tmp_path / "lcinit" / "control"), loop) as rig:
        client = Client(rig.path, timeout=10)
        peer = _raw(rig)
        peer.sendall(START_SLOW)
        wait_until(lambda: _count(rig, "start-asked") == 1, "it is begun")
        os.kill(rig.pid, signal.SIGTERM)
        assert peer.recv(65536) == b""
        with pytest.raises(LcinitError, match="lcinit closed the connection"):
            client.call("Status")
        peer.close()
        client.close()
    assert b"unexpected" not in rig.output


def test_an_idle_server_is_not_woken_for_who_waits(rig: ServicesRig) -> None:
    with _raw(rig) as peer:
        peer.sendall(START_SLOW)
        wait_until(lambda: _count(rig, "start-asked") == 1, "it is begun")
        time.sleep(0.2)
        before = rig.switches(), rig.cpu_ticks()
        time.sleep(1)
        assert (rig.switches(), rig.cpu_ticks()) == before
