"""Row 35: what a guest has named is shown to who attaches, and only shown."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.hostile.attempt import SHIFT, configuration, own_guest, start

EVIL = "evil\x1b]0;title\x07\x1b[2J\u202e\x9b31m"


@pytest.mark.row(35)
def test_the_name_of_a_user_cannot_write_to_the_terminal_of_who_attaches(tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    os.unlink(f"{guest}/etc/passwd")
    with open(f"{guest}/etc/passwd", "w", encoding="utf-8") as file:
        file.write(f"{EVIL}:x:70000:70000::/:/bin/sh\n")
        os.fchown(file.fileno(), SHIFT, SHIFT)
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with start(configuration(script, exec={"mode": "tolerant"}), guest=guest) as container:
        container.expect("^up", 20)
        time.sleep(1)  # the control socket comes a little later
        command = ["nsenter", "-t", str(container.pid1()), "-a", "lcinit", "attach", "-u", "70000", "--", "true"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        os.kill(container.pid1(), signal.SIGTERM)
        assert container.wait(10).status == 5
    assert done.returncode == 71
    assert rb"cannot become evil\x1b]0;title\x07\x1b[2J\u202e\x9b31m (70000:70000)" in done.stderr
    assert done.stderr.decode().rstrip("\n").isprintable()
