"""The control commands against a lcinit that supervises a real guest, run as a user runs them: inside the container."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcinit import control
from lcinit.control.client import Client, NotServed
from lcinit.errors import LcinitError
from tests.guests.test_nested import POWEROFF_DEATH, UP, boot_guest
from tests.hostile.attempt import BOTH_LOOPS, configuration, start
from tests.lab.container import Container
from tests.namespace.control_rig import wait_until
from tests.namespace.isolated import needs_root

pytestmark = [needs_root, pytest.mark.parametrize("loop", BOTH_LOOPS)]

SOCKET = "/run/lcinit/control"


def _boot(
    name: str, loop: str, boot_root: str, container: Callable[..., Container], directory: object, **keys: Any
) -> Container:
    running = boot_guest(
        container,
        boot_root,
        name,
        str(directory),
        "echo up",
        mapped=True,
        after=None,
        env={"LCINIT_EVENT_LOOP": loop},
        **keys,
    )
    running.expect("probe-done", 30)
    _served(running)
    return running


def _served(running: Container) -> None:
    """Wait for the control socket, which PID 1 makes when the guest is up."""

    def answers() -> bool:
        try:
            Client(_path(running)).close()
        except NotServed:
            return False
        return True

    wait_until(answers, "the control socket", 10)


def _path(running: Container) -> str:
    return f"/proc/{running.pid1()}/root{SOCKET}"


def _ask(running: Container, *words: str) -> str:
    done = running.run(*words)
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


def _fields(name: str) -> set[str]:
    """The fields that the interface gives a type."""
    text = next(text for text in interface_texts() if "\ninterface io.lcinit.Manager\n" in text)
    found = re.search(rf"^type {name} \((.*?)\)$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return set(re.findall(r"(\w+): ", found[1]))


def interface_texts() -> list[str]:
    """What the package holds."""
    directory = os.path.dirname(control.__file__)
    names = [name for name in os.listdir(directory) if name.endswith(".varlink")]
    return [Path(directory, name).read_text(encoding="utf-8") for name in names]


def _kinds(running: Container) -> list[str]:
    return [json.loads(line)["kind"] for line in _ask(running, "lcinit", "events", "--json").splitlines()]


@pytest.mark.parametrize("name", ["busybox", "systemd252"])
def test_status_tells_the_guest_as_it_is(
    name: str, loop: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = _boot(name, loop, boot_root, container, tmp_path)
    report = json.loads(_ask(running, "lcinit", "status", "--json"))
    kind = "systemd" if name.startswith("systemd") else name
    assert (report["pid"], report["mode"], report["state"], report["starts"]) == (1, "nested", "running", 1)
    assert (report["guest"]["kind"], report["guest"]["init"]) == (kind, "/sbin/init")
    assert report["guest"]["id_map"] == [[0, 1000000, 65536]]
    assert report["guest"]["processes"] >= 1
    # the guest's whole cgroup: systemd has moved on to init.scope in it
    assert re.fullmatch(r"/lcinit-[0-9-]+(/guest)?", report["guest"]["cgroup"])
    assert set(report["timings"]) >= {"setup.before"}
    assert all(seconds == round(seconds, 6) for seconds in report["timings"].values())
    of_services = {"services", "runlevel"}
    assert (set(report) | of_services, set(report["guest"])) == (_fields("Report"), _fields("Guest"))
    assert not of_services & set(report)
    text = _ask(running, "lcinit", "status")
    assert re.search(rf"^guest      /sbin/init \({kind}\), process {report['guest']['pid']}, up ", text, re.MULTILINE)
    if kind == "systemd":
        wait_until(lambda: "guest-ready" in _kinds(running), "READY=1", 20)
        assert ", ready" in _ask(running, "lcinit", "status")
    else:
        assert _kinds(running) == ["guest-preparing", "guest-started"]
    plan = json.loads(_ask(running, "lcinit", "plan", "--json"))
    with Client(_path(running)) as client:
        served = client.call("Plan")["plan"]
    assert [step["step"] for step in served["steps"]][:3] == [step["step"] for step in plan["steps"]][:3]


@pytest.mark.parametrize("name", ["busybox", "systemd252"])
@pytest.mark.parametrize(
    "words", [("lcinit", "poweroff"), ("poweroff",), ("halt",), ("shutdown", "-h", "now"), ("poweroff", "--now")]
)
def test_poweroff_ends_the_container(
    name: str,
    words: tuple[str, ...],
    loop: str,
    boot_root: str,
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    running = _boot(name, loop, boot_root, container, tmp_path)
    done = running.run(*words)
    # the client's namespace may end before it does
    assert done.returncode in (0, -9, 137), done.stderr
    assert running.wait(20).status == POWEROFF_DEATH


@pytest.mark.parametrize("name", ["busybox", "systemd252"])
@pytest.mark.parametrize(("words", "request_"), [(("reboot",), "reboot"), (("lcinit", "restart"), "restart")])
def test_reboot_and_restart_start_the_guest_again(
    name: str,
    words: tuple[str, ...],
    request_: str,
    loop: str,
    boot_root: str,
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    running = _boot(name, loop, boot_root, container, tmp_path, exec={"on_reboot": "restart"})
    first = running.expect(UP)
    with Client(_path(running), timeout=30) as client:
        seen: list[tuple[str, Any]] = []
        replies = client.stream("Events", follow=True)
        _ask(running, *words)
        while seen.count(("guest-started", None)) < 2:
            for event in next(replies)["events"]:
                seen.append((event["kind"], event["facts"].get("request")))
    running.expect(UP, 20, start=first.end())
    asked = seen.index(("stop-asked", request_))
    assert [kind for kind, _ in seen[asked:] if kind in ("stop-sent", "guest-ended", "guest-restarting")] == [
        "stop-sent",
        "guest-ended",
        "guest-restarting",
    ]
    report = json.loads(_ask(running, "lcinit", "status", "--json"))
    assert (report["starts"], report["state"]) == (2, "running")
    assert [run["request"] for run in report["history"]] == [request_]
    assert set(report["history"][0]) == _fields("Run")
    assert f", {request_} was asked for, after " in _ask(running, "lcinit", "status")


def test_console_is_shared_and_signals_reach_the_guest(loop: str) -> None:
    script = "trap 'echo caught' USR1; stty -echo; echo ready; while :; do read -r line && echo got $line; done"
    config = configuration(script, exec={"mode": "tolerant"})
    with start(config, console="pty", env={"LCINIT_EVENT_LOOP": loop}) as running:
        running.expect("^ready")
        _served(running)
        peer, seen = Client(_path(running)).upgrade("OpenConsole")
        with peer:
            peer.settimeout(10)
            peer.sendall(b"words\n")
            while b"got words" not in seen:
                seen += peer.recv(4096)
            assert b"ready" in seen  # it was printed before
            assert _ask(running, "lcinit", "kill", "-s", "USR1") == "SIGUSR1 was sent to 1 process\n"
            peer.sendall(b"more\n")
            while b"caught" not in seen:
                seen += peer.recv(4096)
        running.expect("^got words")


def test_freeze_holds_the_guest_until_thaw(
    loop: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = _boot("busybox", loop, boot_root, container, tmp_path)
    _ask(running, "lcinit", "freeze")
    assert ", frozen" in _ask(running, "lcinit", "status")
    _ask(running, "lcinit", "thaw")
    assert "frozen" not in _ask(running, "lcinit", "status")
    assert _kinds(running)[-2:] == ["frozen", "thawed"]
    assert _ask(running, "lcinit", "log-level") == "info\n"
    _ask(running, "lcinit", "log-level", "debug")
    assert _ask(running, "lcinit", "log-level") == "debug\n"
    assert " info: the guest's busybox is up as process " in _ask(running, "lcinit", "logs")


def test_after_reexec_the_same_socket_is_served(
    loop: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = _boot("busybox", loop, boot_root, container, tmp_path)
    before = os.stat(_path(running)).st_ino
    guest = json.loads(_ask(running, "lcinit", "status", "--json"))["guest"]
    _ask(running, "lcinit", "reexec")

    def reexecuted() -> bool:
        """Asked on the socket: a client that comes between the two is let in by the new one."""
        with Client(_path(running)) as client:
            try:
                events = client.call("Events")["events"]
            except LcinitError:
                return False  # the old one took the call with it
        return any(event["kind"] == "reexecuted" for event in events)

    wait_until(reexecuted, "the new lcinit", 20)
    assert os.stat(_path(running)).st_ino == before
    after = json.loads(_ask(running, "lcinit", "status", "--json"))["guest"]
    assert (after["pid"], after["started"]) == (guest["pid"], guest["started"])


def test_the_guests_root_cannot_reach_the_socket(
    loop: str, boot_root: str, container: Callable[..., Container], tmp_path: object
) -> None:
    running = _boot("busybox", loop, boot_root, container, tmp_path)
    assert running.run("ls", SOCKET, pid=running.guest_pid1()).returncode != 0
    assert running.run("ls", SOCKET).returncode == 0
