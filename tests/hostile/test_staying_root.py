"""Row 9 for a lcinit that stays: in the guest root itself (shared), and in the leader of a nested guest."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS, configuration, outcome, own_guest, start
from tests.hostile.test_root import ERRORS, boots_that_fail, give, trap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

SHARED = {"mode": "tolerant", "pid": "shared"}
STATUS = {name: status for name, (_, status) in ERRORS.items()}
# A command that is somebody's child fails as in a shell.
SHARED_STATUS = STATUS | {"no-directory": 126}


@pytest.mark.row(9)
@pytest.mark.parametrize("mode", ["shared", "nested"])
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_errors_of_a_start_neither_import_nor_read_the_guests_python(loop: str, mode: str, tmp_path: object) -> None:
    found = boots_that_fail(str(tmp_path), loop, mode="tolerant", pid=mode)
    assert found == (SHARED_STATUS if mode == "shared" else STATUS)


@pytest.mark.row(9)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_shared_lcinit_does_all_of_its_work_without_the_guests_files(loop: str, tmp_path: object) -> None:
    """Signals of every kind, orphans, a deadline, restarts, a command that is gone and one that is back: no marker."""
    guest = own_guest(f"{tmp_path}/root")
    trap(guest)
    script = "trap 'echo asked' TERM; trap : USR1 USR2 HUP; echo up; (sleep 0.01 &); while :; do sleep 0.02; done"
    keys: dict[str, Any] = {"shutdown": {"timeout": "1s"}, "log": {"level": "debug", "format": "json"}}
    config = configuration(script, exec={**SHARED, "on_exit": "restart", "forward_to": "group"}, **keys)
    with start(config, guest=guest, env={"LCINIT_EVENT_LOOP": loop}) as container:
        place = container.expect("^up", 20).end()
        pid = container.pid1()
        for number in (signal.SIGUSR1, signal.SIGWINCH, signal.SIGTTOU, 40, 64):
            os.kill(pid, number)
            time.sleep(0.1)
        place = container.expect("it is started again in 1 s", 10, start=place).end()  # signal 40 has ended it
        place = container.expect("^up", 10, start=place).end()
        os.kill(pid, signal.SIGTERM)
        result = outcome(container, 10)
        imported = os.path.exists(f"{guest}/imported")
    assert result.status == 137, result
    assert not imported
    assert "unexpected" not in str(result), result
    assert "must be imported" not in str(result), result


@pytest.mark.row(9)
def test_a_shared_command_that_is_gone_when_it_is_to_start_again_is_an_error_in_one_line(tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    trap(guest)
    give(guest, "once", "#!/bin/sh\nrm /once\n", 0o755)
    with start(configuration(exec={**SHARED, "on_exit": "restart", "command": "/once"}), guest=guest) as container:
        result = outcome(container, 10)
    assert result.status == 127, result
    assert len(result.errors()) == 1, result
    assert "cannot run '/once': not found" in result.errors()[0]
    assert not os.path.exists(f"{guest}/imported")
