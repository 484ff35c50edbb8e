"""Services that a reload no longer finds: they go down, are forgotten then, and nobody brings them up meanwhile."""

from __future__ import annotations

import os

from tests.services.bare import Bare, sh
from tests.services.rig import wait_until

SLOW = (
    "trap 'until [ -e /tmp/end ]; do sleep 0.02; done; exit 0' TERM; echo >&3; exec 3>&-; while :; do sleep 0.02; done"
)
PLACE = "/etc/lcinit/services/slow.yml"
FILE = f'command: [sh, -c, "{SLOW}"]\ntype: notify-fd\nlog: none\nrunlevels: [1, 2, 3]\n'


class Leaving(Bare):
    """With a service "slow" that runs, was taken away, and does not end before `end`. "user" requires it."""

    def __init__(self) -> None:
        user = sh("exec sleep 1000", requires="slow")
        super().__init__({"user": user, "plain": sh("exec sleep 1000")}, serves=True)
        self.write(PLACE, FILE)
        self.write("/etc/lcinit/enabled/slow", "")
        assert self.lcinit("daemon-reload").returncode == 0
        self.asked("Start", "user")
        os.unlink(self.path(PLACE))
        os.unlink(self.path("/etc/lcinit/enabled/slow"))
        assert self.lcinit("daemon-reload").returncode == 0
        assert self.service("slow")["state"] == "deactivating"

    def end(self) -> None:
        self.write("/tmp/end", "")


def test_one_that_is_gone_is_not_started_again() -> None:
    with Leaving() as guest:
        for what in ("start", "restart", "enable"):
            done = guest.lcinit(what, "slow")
            assert done.returncode == 69, done
            assert "slow is no longer defined" in done.stderr, done
        # nor by who requires it, nor by the runlevel
        done = guest.lcinit("start", "user")
        assert done.returncode != 0, done
        assert guest.service("user")["reason"] == "it requires slow, and there is no such service"
        guest.call("SetRunlevel", runlevel="2")
        guest.end()
        wait_until(lambda: "slow" not in guest.services(), "slow is forgotten", guest)
        assert guest.lcinit("start", "slow").returncode != 0
        assert guest.service("plain")["sub"] == "running"


def test_one_that_is_back_before_it_is_down_comes_up_again() -> None:
    with Leaving() as guest:
        guest.write(PLACE, FILE)
        guest.write("/etc/lcinit/enabled/slow", "")
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.end()
        guest.awaited("slow", lambda state: state["restarts"] == 0 and state["sub"] == "running", "up again")


def test_one_that_somebody_stops_does_not_come_again_because_its_file_has_changed() -> None:
    with Bare({}, serves=True) as guest:
        guest.write(PLACE, FILE)
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.asked("Start", "slow")
        guest.call("Stop", names=["slow"], wait=False)
        guest.write(PLACE, FILE + "umask: '077'\n")
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.write("/tmp/end", "")
        guest.awaited("slow", lambda state: state["sub"] == "dead", "down")
        assert guest.service("slow")["sub"] == "dead"
