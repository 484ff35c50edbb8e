"""A cgroup that was killed is never used again: from Linux 6.14 on whoever is born there would be killed, too."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS
from tests.services.bare import Bare, sh
from tests.services.looking import none_left, running
from tests.services.rig import wait_until

TREE = "sleep 12345 & setsid sleep 12345 & exec sleep 1000"


def directory(guest: Bare, pid: int) -> str:
    """The cgroup of a process of the container, as the outside finds it."""
    own = guest.read(f"/proc/{pid}/cgroup").splitlines()  # seen from outside of its cgroup namespace
    path = next(line for line in own if line.startswith("0::"))[3:]
    return os.path.join(os.path.dirname(guest.container.cgroup), path.lstrip("/"))


def cgroups(guest: Bare, name: str) -> list[str]:
    """The cgroups that there are of a service."""
    found = []
    for where, _, _ in os.walk(guest.container.cgroup):
        entry = os.path.basename(where)
        if entry.startswith(f"{name}.") and entry.endswith(".service"):
            found.append(entry)
    return sorted(found)


def no_cgroups(guest: Bare, name: str) -> None:
    """None is left, once those that were killed there are gone."""
    wait_until(lambda: cgroups(guest, name) == [], f"no cgroup of {name}", guest)


def stays_up(guest: Bare, name: str, restarts: int) -> Any:
    """It is up after so many restarts, with a new tree, and still is a moment later."""
    state = guest.awaited(name, lambda state: state["sub"] == "running" and state["restarts"] == restarts, "up again")
    wait_until(lambda: len(running(guest, "12345")) == 2, "its tree", guest)
    time.sleep(0.2)
    later = guest.service(name)
    assert (later["pid"], later["restarts"]) == (state["pid"], restarts), f"{later}\n{guest.console()}"
    return state


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("how", ["all", "main"])
def test_a_service_whose_tree_was_killed_comes_again_and_stays(how: str, loop: str) -> None:
    """By somebody who asks for that, and by lcinit once the main process has ended."""
    keys = {"restart_delay": 0, "start_limit_burst": 20}
    with Bare({"tree": sh(TREE, **keys)}, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        before = stays_up(guest, "tree", 0)
        for restarts in range(1, 5):
            inode = os.stat(directory(guest, before["pid"])).st_ino
            guest.call("Kill", name="tree", signal="SIGKILL", whom=how)
            before = stays_up(guest, "tree", restarts)
            assert os.stat(directory(guest, before["pid"])).st_ino != inode
            assert cgroups(guest, "tree") == ["tree.service"]
        guest.asked("Restart", "tree")
        wait_until(lambda: len(running(guest, "12345")) == 2, "its tree", guest)
        guest.asked("Stop", "tree")
        none_left(guest, "12345")
        no_cgroups(guest, "tree")


@contextmanager
def somebody_in(cgroup: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the outside lives there."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            with open(f"{cgroup}/cgroup.procs", "w") as file:
                file.write(str(process.pid))
            yield process
        finally:
            process.kill()


def test_one_that_does_not_become_empty_is_left_aside_and_removed_later() -> None:
    """Who is there does not end with the others: lcinit waits a moment, and then there is another one."""
    keys = {"restart_delay": 1, "restart_jitter": 0}
    with Bare({"tree": sh(TREE, **keys)}) as guest:
        first = stays_up(guest, "tree", 0)
        guest.call("Kill", name="tree", signal="SIGKILL", whom="all")  # the first restart is immediate
        second = stays_up(guest, "tree", 1)
        assert second["pid"] != first["pid"]
        killed = directory(guest, second["pid"])
        guest.call("Kill", name="tree", signal="SIGKILL", whom="all")
        guest.awaited("tree", lambda state: state["sub"] == "auto-restart", "waiting")
        with somebody_in(killed) as left:
            third = stays_up(guest, "tree", 2)
            assert left.poll() is None
            assert os.path.basename(directory(guest, third["pid"])) == "tree.1.service"
            assert cgroups(guest, "tree") == ["tree.1.service", "tree.service"]
            # and it is known there all the same
            assert guest.call("Kill", name="tree", signal="SIGCONT", whom="all")["signalled"] == 3
        guest.asked("Stop", "tree")
        none_left(guest, "12345")
        no_cgroups(guest, "tree")


DEAF = "trap '' TERM; echo >&3; exec 3>&-; while :; do sleep 0.05; done"


def test_the_commands_after_a_kill_run() -> None:
    """stop_post when all of it is gone, also the next start's; and the stop commands of a oneshot that counts as up."""
    post = 'pgrep -f 12345 >>/tmp/left; echo "$SERVICE_RESULT" >>/tmp/post'
    stop_post = {"stop_post": [["/bin/sh", "-c", post], ["/bin/sh", "-c", "echo second >>/tmp/post"]]}
    services = {
        "tree": sh(TREE, **stop_post),
        "deaf": sh(DEAF, type="notify-fd", stop_timeout=0.3, runlevels=5, **stop_post),
        "pre": sh("exec sleep 1000", start_pre="sleep 100", start_timeout=0.3, restart="no", runlevels=5, **stop_post),
        "once": sh("sleep 12345 & exit 0", type="oneshot", runlevels=5, stop=[["touch", "/tmp/stopped"]]),
    }
    with Bare(services) as guest:
        stays_up(guest, "tree", 0)
        guest.call("Kill", name="tree", signal="SIGKILL", whom="all")
        stays_up(guest, "tree", 1)
        guest.asked("Stop", "tree")
        assert guest.read("/tmp/post").split() == ["signal", "second", "success", "second"]
        guest.write("/tmp/post", "")
        guest.asked("Start", "deaf")
        guest.call("Stop", names=["deaf"])
        assert guest.read("/tmp/post").split() == ["timeout", "second"]
        guest.write("/tmp/post", "")
        guest.call("Start", names=["pre"])
        assert guest.read("/tmp/post").split() == ["timeout", "second"]
        assert guest.read("/tmp/left") == ""
        guest.asked("Start", "once")
        none_left(guest, "12345")
        guest.asked("Stop", "once")
        assert os.path.exists(guest.path("/tmp/stopped"))
        assert "SIGKILL" not in guest.console().replace("signal SIGKILL); it is started again", ""), guest.console()
        for name in services:
            no_cgroups(guest, name)
