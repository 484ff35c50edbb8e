"""`inject` from the machine, and `attach` from the container, under every manager."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.hostile.attempt import configuration
from tests.lab import managers
from tests.lab.container import Container
from tests.namespace.enter_rig import LCINIT, Terminal

SCRIPT = "echo up as $$; while :; do sleep 1; done"
FACTS = (
    "cat /proc/1/comm; grep CapBnd /proc/self/status /proc/1/status | sort -u -k 2 | wc -l; tail -n 1 /proc/self/cgroup"
)


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
@pytest.mark.parametrize("mode", ["handoff", "tolerant"])
@pytest.mark.parametrize("manager", sorted(managers.DRIVERS))
def test_the_guest_is_entered(
    manager: str,
    mode: str,
    mapped: bool,
    boot_root: str,
    guest_copy: Callable[..., str],
    container: Callable[..., Container],
) -> None:
    config = configuration(SCRIPT, mapped=mapped, exec={"mode": mode})
    running = container(manager, console="pty")
    running.start(boot_root, guest_root=guest_copy("plain", shift=1000000 if mapped else None), config=config)
    running.expect(r"^up as 1\r*$", 30)
    pid = running.pid1() if mode == "handoff" else running.guest_pid1()
    inject = [*LCINIT, "inject", str(pid), "--"]
    done = subprocess.run(
        [*inject, "/bin/sh", "-c", FACTS], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, text=True
    )
    assert done.returncode == 0, done
    # what comes from the machine has not the filters of LXC and nspawn, and says so; it could hold the guest still
    assert [line for line in done.stderr.splitlines() if "seccomp" not in line] == [], done
    assert done.stdout.split("\n")[:2] == ["sh", "1"], done
    with Terminal(*inject, "/bin/sh") as terminal:
        terminal.type("tty; exit 5\r")
        terminal.expect(r"/dev/pts/\d+\r$")
        assert terminal.wait() == 5
    if mode == "tolerant":
        attached = running.run("lcinit", "attach", "--", "cat", "/proc/1/comm")
        assert (attached.stdout, attached.returncode) == ("sh\n", 0), attached
        assert "id map" not in attached.stderr, attached
