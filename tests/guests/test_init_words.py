"""What the inits of guests understand beside the words that lcinit uses, and what they do not; see docs/guests.md."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from lcinit.control.initctl import runlevel_request
from lcinit.guest.ask import put_flag
from lcinit.linux import files
from lcinit.linux.signals import signal_number
from tests.guests import nested_rig
from tests.guests.test_ask import AGAIN, ENDS, OFF, ask_and_wait
from tests.lab import guests
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root

SYSTEMD = ("systemd252", "systemd257", "systemd262")
WITH_INITCTL = ("systemd252", "systemd257", "sysvinit")  # 262 has no initctl any more
#: guest, signal, how PID 1 ends, seconds that it may take
SIGNALS = [
    *((name, number, OFF, 6) for name in SYSTEMD for number in ("SIGRTMIN+13", "SIGRTMIN+14")),
    *((name, number, AGAIN, 6) for name in SYSTEMD for number in ("SIGRTMIN+15", "SIGINT")),
    ("sysvinit", "SIGINT", AGAIN, 10),
    ("busybox", "SIGPWR", OFF, 8),
    ("busybox", "SIGINT", AGAIN, 8),
    ("runit", "SIGINT", OFF, 25),  # ctrlaltdel sleeps for 14 seconds
    ("openrc", "SIGPWR", OFF, 15),
    ("s6", "SIGINT", 0, 4),
    ("s6", "SIGQUIT", 0, 4),
]
NO_EFFECT = {
    **dict.fromkeys(SYSTEMD, ("SIGTERM", "SIGPWR")),
    "sysvinit": ("SIGTERM", "SIGPWR"),
    "busybox": ("SIGQUIT",),
    "runit": ("SIGTERM", "SIGCONT"),
    "finit": ("SIGUSR1", "SIGPWR", "SIGINT"),
    "s6": ("SIGUSR1", "SIGUSR2", "SIGHUP"),
}
QUIET = 2.5  # seconds in which nothing may come of it


@pytest.fixture
def leaf() -> Iterator[str]:
    with nested_rig.cgroup_leaf() as directory:
        yield directory


def with_guest(name: str, leaf: str, body: Callable[[nested_rig.Nested], None]) -> None:
    """Run `body` with the guest when it is up."""
    guests.guest(name)

    def inside() -> None:
        guest = nested_rig.start(name, leaf)
        guest.expect(guests.RECIPES[name].up)
        body(guest)

    run_isolated(inside, pid=True, timeout=60)


def send(guest: nested_rig.Nested, name: str) -> None:
    signal.pidfd_send_signal(guest.pidfd, signal_number(name))


def write(guest: nested_rig.Nested, path: str, message: bytes) -> None:
    """Into the guest's FIFO, once somebody reads it; closed, because openrc-init reads up to the end."""
    deadline = time.monotonic() + 10
    while True:
        try:
            fifo = files.open_in_root(guest.root_fd, path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline, f"nobody reads {path}:\n{guest.console()}"
            time.sleep(0.05)
        else:
            os.write(fifo, message)
            os.close(fifo)
            return


@pytest.mark.parametrize(("name", "word", "status", "timeout"), SIGNALS)
def test_other_signals_that_end_it(name: str, word: str, status: int, timeout: float, leaf: str) -> None:
    def body(guest: nested_rig.Nested) -> None:
        send(guest, word)
        assert guest.ended(timeout) == status, guest.console()

    with_guest(name, leaf, body)


@pytest.mark.parametrize(("runlevel", "status"), [("0", OFF), ("6", AGAIN)])
@pytest.mark.parametrize("name", WITH_INITCTL)
def test_runlevels_that_end_it(name: str, runlevel: str, status: int, leaf: str) -> None:
    def body(guest: nested_rig.Nested) -> None:
        write(guest, "/run/initctl", runlevel_request(runlevel).pack())
        assert guest.ended(10) == status, guest.console()

    with_guest(name, leaf, body)


@pytest.mark.parametrize(("text", "status"), [("poweroff", OFF), ("halt", OFF), ("reboot", AGAIN)])
def test_what_openrc_init_reads(text: str, status: int, leaf: str) -> None:
    def body(guest: nested_rig.Nested) -> None:
        write(guest, "/run/openrc/init.ctl", text.encode())
        assert guest.ended(15) == status, guest.console()

    with_guest("openrc", leaf, body)


@pytest.mark.parametrize("name", sorted(NO_EFFECT))
def test_what_changes_nothing(name: str, leaf: str) -> None:
    def body(guest: nested_rig.Nested) -> None:
        for word in NO_EFFECT[name]:
            send(guest, word)
            assert guest.ended(QUIET / len(NO_EFFECT[name])) is None, f"{word}:\n{guest.console()}"
        _, status = ask_and_wait(guest, "poweroff", ENDS[name][2])
        assert status == ENDS[name][0], guest.console()

    with_guest(name, leaf, body)


def test_flags_in_etc_mean_nothing_to_debians_runit(leaf: str) -> None:
    def body(guest: nested_rig.Nested) -> None:
        for path in ("/etc/runit/reboot", "/etc/runit/stopit"):
            put_flag(guest.root_fd, path, 0o100)
        send(guest, "SIGCONT")
        assert not select.select([guest.pidfd], [], [], QUIET)[0]

    with_guest("runit", leaf, body)


def test_systemd_262_has_no_initctl(leaf: str) -> None:
    def body(guest: nested_rig.Nested) -> None:
        with pytest.raises(FileNotFoundError):
            files.open_in_root(guest.root_fd, "/run/initctl")

    with_guest("systemd262", leaf, body)
