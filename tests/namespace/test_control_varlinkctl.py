"""varlinkctl(1) of systemd 262 as the client: it knows the protocol and the interface language from elsewhere."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lcinit.linux import mount
from lcinit.linux.calls import AT_FDCWD
from tests.lab import guests
from tests.namespace.control_rig import BOTH_LOOPS, Rig, report
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = [needs_root, pytest.mark.parametrize("loop", BOTH_LOOPS)]

ADDRESS = "unix:/mnt/control"


def start_varlinkctl(*words: str) -> subprocess.Popen[str]:
    root = guests.guest("systemd262")
    command = ["chroot", root, "varlinkctl", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def varlinkctl(*words: str) -> tuple[int, str, str]:
    started = start_varlinkctl(*words)
    output, errors = started.communicate(timeout=20)
    return started.returncode, output, errors


def with_server(tmp_path: Path, loop: str, body: Callable[[Rig], None], kind: type[Rig] = Rig) -> None:
    """Run `body` where the socket's directory stands at /mnt of the guest; the guest itself is not written to."""
    root = guests.guest("systemd262")

    def isolated() -> None:
        path = str(tmp_path / "lcinit" / "control")
        with kind(path, loop) as rig:
            tree = mount.open_tree(AT_FDCWD, os.path.dirname(path), mount.OPEN_TREE_CLONE)
            mount.move_mount(tree, "", AT_FDCWD, f"{root}/mnt", 0)
            os.close(tree)
            proc = mount.new_mount("proc")
            mount.move_mount(proc, "", AT_FDCWD, f"{root}/proc", 0)
            os.close(proc)
            body(rig)

    run_isolated(isolated, timeout=60)


def test_introspection_shows_every_method(tmp_path: Path, loop: str) -> None:
    def body(_rig: Rig) -> None:
        code, output, errors = varlinkctl("info", ADDRESS)
        assert (code, errors) == (0, "")
        assert "io.lcinit.Manager" in output
        code, output, errors = varlinkctl("introspect", ADDRESS, "io.lcinit.Manager")
        assert code == 0, errors
        for part in ("interface io.lcinit.Manager", "method Status() ->", "method OpenConsole() -> ()", "error Failed"):
            assert part in output
        code, output, errors = varlinkctl("list-methods", ADDRESS)
        assert code == 0, errors
        assert "io.lcinit.Manager.Poweroff" in output
        assert "org.varlink.service.GetInfo" in output

    with_server(tmp_path, loop, body)


def test_calls_are_answered(tmp_path: Path, loop: str) -> None:
    def body(rig: Rig) -> None:
        code, output, errors = varlinkctl("call", ADDRESS, "io.lcinit.Manager.Status", "{}")
        assert (code, errors) == (0, "")
        assert json.loads(output) == {"status": report()}
        code, output, errors = varlinkctl("call", ADDRESS, "io.lcinit.Manager.Reboot", '{"at_once":true}')
        assert (code, errors, json.loads(output)) == (0, "", {})
        with rig.client() as client:
            events = client.call("Events")["events"]
        assert [event["facts"]["request"] for event in events] == ["reboot"]

    with_server(tmp_path, loop, body)


def test_errors_are_named(tmp_path: Path, loop: str) -> None:
    """varlinkctl shows those of org.varlink.service as the errno that it holds for the same."""

    def body(_rig: Rig) -> None:
        failed = {
            "message": "cannot halt: the guest does not run",
            "hint": "it ended with exit code 3",
            "exit_code": 71,
        }
        for method, parameters, told, error in (
            ("io.lcinit.Manager.Halt", "{}", failed, "io.lcinit.Manager.Failed"),
            ("io.lcinit.Manager.Signal", '{"signal":3}', {"parameter": "signal"}, os.strerror(errno.EINVAL)),
            ("io.lcinit.Manager.Fly", "{}", {"method": "io.lcinit.Manager.Fly"}, os.strerror(errno.ENXIO)),
            ("org.example.Other.Fly", "{}", {"interface": "org.example.Other"}, os.strerror(errno.EADDRNOTAVAIL)),
        ):
            code, output, errors = varlinkctl("call", "-j", ADDRESS, method, parameters)
            assert (code, json.loads(output)) == (1, told)
            assert errors == f"Method call {method}() failed: {error}\n"

    with_server(tmp_path, loop, body)


def test_more_follows_events(tmp_path: Path, loop: str) -> None:
    def body(rig: Rig) -> None:
        with rig.client() as client:
            client.call("Thaw")
        following = start_varlinkctl("--more", "-j", "call", ADDRESS, "io.lcinit.Manager.Events", '{"follow":true}')
        assert following.stdout is not None
        try:
            first = json.loads(following.stdout.readline().strip("\x1e"))
            with rig.client() as client:
                client.call("Poweroff")
            second = json.loads(following.stdout.readline().strip("\x1e"))
        finally:
            following.send_signal(signal.SIGTERM)
            following.communicate(timeout=10)
        assert [event["kind"] for event in first["events"] + second["events"]] == ["thawed", "stop-asked"]

    with_server(tmp_path, loop, body)
