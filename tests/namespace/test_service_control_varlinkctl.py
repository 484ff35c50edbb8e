"""varlinkctl(1) of systemd 262 with io.lcinit.Services: it reads the interface's text by a grammar of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lcinit.control.services import INTERFACE
from tests.namespace.control_rig import BOTH_LOOPS, Rig, wait_until
from tests.namespace.isolated import needs_root
from tests.namespace.service_control_rig import ServicesRig, services
from tests.namespace.test_control_varlinkctl import ADDRESS, start_varlinkctl, varlinkctl, with_server

pytestmark = [needs_root, pytest.mark.parametrize("loop", BOTH_LOOPS)]


def _with_services(tmp_path: Path, loop: str, body: Callable[[Rig], None]) -> None:
    with_server(tmp_path, loop, body, ServicesRig)


def test_the_interface_is_one_that_it_understands(tmp_path: Path, loop: str) -> None:
    def body(_rig: Rig) -> None:
        code, output, errors = varlinkctl("introspect", ADDRESS, INTERFACE)
        assert (code, errors) == (0, "")
        for part in (
            "type Service(",
            "type Effect(",
            "method Start(",
            "method DaemonReload(",
            "error NoSuchService(",
        ):
            assert part in output
        code, output, errors = varlinkctl("list-methods", ADDRESS)
        assert (code, errors) == (0, "")
        assert f"{INTERFACE}.Wait" in output

    _with_services(tmp_path, loop, body)


def test_calls_are_answered_now_and_later(tmp_path: Path, loop: str) -> None:
    def body(rig: Rig) -> None:
        code, output, errors = varlinkctl("call", ADDRESS, f"{INTERFACE}.List", "{}")
        assert (code, errors) == (0, "")
        assert json.loads(output) == {"services": services(), "runlevel": "3", "previous": "N"}
        waiting = start_varlinkctl("call", "-j", ADDRESS, f"{INTERFACE}.Start", '{"names":["slow"]}')
        with rig.client() as client:
            wait_until(lambda: bool(client.call("Events")["events"]), "it is begun")
            client.call(f"{INTERFACE}.Kill", name="slow", signal="USR1")
        output, errors = waiting.communicate(timeout=20)
        (result,) = json.loads(output)["done"]
        assert (result["name"], result["ok"], waiting.returncode, errors) == ("slow", True, 0, "")

    _with_services(tmp_path, loop, body)


def test_an_error_has_its_name(tmp_path: Path, loop: str) -> None:
    def body(_rig: Rig) -> None:
        code, output, errors = varlinkctl("call", "-j", ADDRESS, f"{INTERFACE}.Stop", '{"names":["nothing"]}')
        assert (code, json.loads(output)["name"]) == (1, "nothing")
        assert errors == f"Method call {INTERFACE}.Stop() failed: {INTERFACE}.NoSuchService\n"

    _with_services(tmp_path, loop, body)
