"""Row 51: a process of the guest holds up the exec of the command that PID 1 starts again (exec.pid: shared)."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.hostile.attacker import PRELUDE, python_configuration
from tests.hostile.attempt import BOTH_LOOPS, own_guest, start

# What stays when the command has ended: it takes a lease on the command's file, which an exec has to wait for.
LEASE = """
import fcntl, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    file = os.open("/command", os.O_RDWR)
    while True:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            break
        except OSError:
            time.sleep(0.05)
    say("lease", "held")
    signal.pause()
time.sleep(0.3)
os._exit(3)
"""

# The same by stopping every process that comes, PID 1's next child among them.
STOPS = """
import time
if os.fork() == 0:
    os.setsid()
    me = os.getpid()
    say("lease", "held")
    while True:
        for pid in range(me + 1, me + 30):
            try:
                os.kill(pid, signal.SIGSTOP)
            except OSError:
                pass
time.sleep(0.3)
os._exit(3)
"""


@pytest.mark.row(51)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("how", ["lease", "stop"])
def test_pid_1_answers_while_the_exec_of_its_command_is_held_up(how: str, loop: str, tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    with open(f"{guest}/attack.py", "w", encoding="utf-8") as file:
        file.write(PRELUDE + {"lease": LEASE, "stop": STOPS}[how])
    with open(f"{guest}/command", "w", encoding="utf-8") as file:
        file.write("#!/usr/bin/python3 /attack.py\n")
        os.fchmod(file.fileno(), 0o755)
        os.fchown(file.fileno(), 1000000, 1000000)
    keys = {"mode": "tolerant", "pid": "shared", "on_exit": "restart", "command": ["/command"]}
    config = python_configuration("", exec=keys, shutdown={"timeout": "1s"})
    with start(config, guest=guest, env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect(r"^lease: held", 20)
        container.expect(r"started again in 1 s", 20)
        time.sleep(2)
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        ended = container.wait(10)
        assert time.monotonic() - began < 3
    assert ended.status in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
