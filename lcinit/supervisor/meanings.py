"""What a signal to a PID 1 that stays means, by who sends it. Pure.

Sources: lxc.container.conf(5), machinectl(1), systemd(1) "SIGNALS", libvirt's lxcContainer shutdown, podman-stop(1).
"""

from __future__ import annotations

from lcinit.linux import signals
from lcinit.linux.signals import SIGRTMIN
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from lcinit.plan.supervision import Supervision
    from lcinit.supervisor.guest_state import Word

FROM_KERNEL = 0x80  # SI_KERNEL of siginfo: a terminal that hung up, ctrl-alt-del

_POWEROFF = frozenset((signals.SIGTERM, signals.SIGPWR, SIGRTMIN + 4))
_AT_ONCE: dict[int, Word] = {SIGRTMIN + 13: "halt", SIGRTMIN + 14: "poweroff", SIGRTMIN + 15: "reboot"}
_OWN = {
    signals.SIGCHLD: "reap",
    signals.SIGWINCH: "resize",
    signals.SIGUSR1: "initctl",
    signals.SIGIO: "initctl",
    signals.SIGTSTP: "nothing",
    signals.SIGTTIN: "nothing",
    signals.SIGTTOU: "nothing",
    signals.SIGPIPE: "nothing",
}


class Meaning(Record):
    """stop: ask for `word`; forward: to the guest's init; the others are what PID 1 does itself."""

    what: Literal["stop", "forward", "reap", "resize", "initctl", "reload", "nothing"]
    word: Word | None = None
    at_once: bool = False


def meaning(signo: int, code: int, rules: Supervision) -> Meaning:
    """What signal `signo` with `si_code` asks of a lcinit that supervises a nested guest or services."""
    if signo in _OWN:
        return Meaning(what=_OWN[signo])  # type: ignore[arg-type]
    if signo in _POWEROFF:
        return Meaning(what="stop", word="poweroff")
    if signo == SIGRTMIN + 3:
        return Meaning(what="stop", word="halt")
    if signo in _AT_ONCE:
        return Meaning(what="stop", word=_AT_ONCE[signo], at_once=True)
    if signo == SIGRTMIN + 5:
        return Meaning(what="stop", word="reboot")
    if signo == signals.SIGINT:
        # elsewhere it is a ctrl-C, which must end the container
        return Meaning(what="stop", word="reboot" if rules.int_reboots else "poweroff")
    if signo == signals.SIGHUP:
        if code == FROM_KERNEL:
            return Meaning(what="stop", word="poweroff")
        return Meaning(what="stop", word="reboot") if rules.hup_reboots else Meaning(what="reload")
    return Meaning(what="forward")
