"""What every signal means to a lcinit that stays with a nested guest, under every manager."""

from __future__ import annotations

import pytest

from lcinit.linux import signals
from lcinit.linux.signals import SIGRTMIN, signal_name, signal_number
from lcinit.plan.managers import MANAGERS
from lcinit.plan.supervision import Supervision
from lcinit.supervisor.meanings import FROM_KERNEL, Meaning, meaning

USER = 0  # SI_USER: sent with kill(2)

# The same under every manager; what is not here and not below is forwarded.
ALWAYS = {
    "SIGTERM": Meaning(what="stop", word="poweroff"),
    "SIGPWR": Meaning(what="stop", word="poweroff"),
    "SIGRTMIN+3": Meaning(what="stop", word="halt"),
    "SIGRTMIN+4": Meaning(what="stop", word="poweroff"),
    "SIGRTMIN+5": Meaning(what="stop", word="reboot"),
    "SIGRTMIN+13": Meaning(what="stop", word="halt", at_once=True),
    "SIGRTMIN+14": Meaning(what="stop", word="poweroff", at_once=True),
    "SIGRTMIN+15": Meaning(what="stop", word="reboot", at_once=True),
    "SIGUSR1": Meaning(what="initctl"),
    "SIGIO": Meaning(what="initctl"),
    "SIGCHLD": Meaning(what="reap"),
    "SIGWINCH": Meaning(what="resize"),
    "SIGTSTP": Meaning(what="nothing"),
    "SIGTTIN": Meaning(what="nothing"),
    "SIGTTOU": Meaning(what="nothing"),
    "SIGPIPE": Meaning(what="nothing"),
}
FORWARDED = (
    *("SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGSEGV", "SIGUSR2", "SIGALRM"),
    *("SIGSTKFLT", "SIGCONT", "SIGSTOP", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGSYS"),
    *(f"SIGRTMIN+{n}" for n in range(31) if n not in (3, 4, 5, 13, 14, 15)),
)
INT_REBOOTS = {"lxc", "libvirt-lxc", "systemd-nspawn"}
HUP_REBOOTS = {"libvirt-lxc"}


def rules(manager: str, *, first: bool = False) -> Supervision:
    known = MANAGERS[manager]
    return Supervision(
        pid="nested",
        on_reboot="restart",
        on_exit="exit",
        timeout=1,
        int_reboots=known.int_reboots or first,
        hup_reboots=known.hup_reboots,
        may_reboot=True,
        first=first,
    )


@pytest.mark.parametrize("manager", sorted(MANAGERS))
def test_every_signal_means_what_the_table_says(manager: str) -> None:
    expected = {signal_number(name): meant for name, meant in ALWAYS.items()}
    expected |= {signal_number(name): Meaning(what="forward") for name in FORWARDED}
    reboot, poweroff = Meaning(what="stop", word="reboot"), Meaning(what="stop", word="poweroff")
    expected[signals.SIGINT] = reboot if manager in INT_REBOOTS else poweroff
    expected[signals.SIGHUP] = reboot if manager in HUP_REBOOTS else Meaning(what="reload")
    numbers = [n for n in range(1, 65) if n < 32 or n >= SIGRTMIN]
    assert sorted(expected) == numbers
    for number in numbers:
        assert meaning(number, USER, rules(manager)) == expected[number], signal_name(number)


@pytest.mark.parametrize("manager", sorted(MANAGERS))
def test_a_console_that_hung_up_is_no_request_for_a_reboot(manager: str) -> None:
    assert meaning(signals.SIGHUP, FROM_KERNEL, rules(manager)) == Meaning(what="stop", word="poweroff")


def test_ctrl_alt_del_reboots_a_machine() -> None:
    meant = meaning(signals.SIGINT, FROM_KERNEL, rules("generic", first=True))
    assert meant == Meaning(what="stop", word="reboot")


def test_all_32_numbers_below_the_real_time_signals_are_answered() -> None:
    for number in range(1, 65):
        assert meaning(number, USER, rules("generic")).what in (
            *("stop", "forward", "reap", "resize", "initctl", "reload", "nothing"),
        )
