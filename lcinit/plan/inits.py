"""What the inits of guests understand: which signal asks for what, and which of them can end without reboot(2).

Every row was tried with the real program as PID 1 (systemd 252, 257, 262; sysvinit, runit, OpenRC, finit and busybox of
Debian 12; s6-svscan 2.11). The manuals: systemd(1) "SIGNALS", init(8) of sysvinit, runit(8), openrc-init(8), finit(8),
busybox init/init.c, s6-svscan's page.
"""

from __future__ import annotations

from lcinit.errors import ConfigError
from lcinit.record import Record


class Init(Record):
    """One kind of init.

    `poweroff`, `halt` and `reboot` are the names of the signals that ask it for each (None: no signal does).
    `ends_without_reboot`: whether its process ends when reboot(2) is refused, as it is in a user namespace that does
    not own the PID namespace. `catches`: whether SigCgt or SigBlk of /proc/PID/status shows that it is listening.
    """

    kind: str
    poweroff: str | None
    halt: str | None
    reboot: str | None
    ends_without_reboot: bool
    catches: bool = True


PLAIN = Init(kind="plain", poweroff="SIGTERM", halt="SIGTERM", reboot=None, ends_without_reboot=True)

INITS: dict[str, Init] = {
    init.kind: init
    for init in (
        Init(
            kind="systemd",
            poweroff="SIGRTMIN+4",
            halt="SIGRTMIN+3",
            reboot="SIGRTMIN+5",
            ends_without_reboot=True,
        ),
        Init(
            kind="busybox",
            poweroff="SIGUSR2",
            halt="SIGUSR1",
            reboot="SIGTERM",
            ends_without_reboot=True,
            catches=False,
        ),
        Init(kind="sysvinit", poweroff=None, halt=None, reboot="SIGINT", ends_without_reboot=False),
        Init(kind="runit", poweroff=None, halt=None, reboot=None, ends_without_reboot=False),
        Init(
            kind="openrc-init",
            poweroff="SIGTERM",
            halt="SIGTERM",
            reboot="SIGINT",
            ends_without_reboot=False,
        ),
        Init(kind="finit", poweroff="SIGUSR2", halt="SIGUSR2", reboot="SIGTERM", ends_without_reboot=False),
        Init(kind="s6-svscan", poweroff="SIGTERM", halt="SIGTERM", reboot=None, ends_without_reboot=True),
        Init(kind="dinit", poweroff="SIGTERM", halt="SIGTERM", reboot="SIGINT", ends_without_reboot=False),
        PLAIN,
    )
}

_BY_NAME = {
    "systemd": "systemd",
    "busybox": "busybox",
    "runit": "runit",
    "runit-init": "runit",
    "openrc-init": "openrc-init",
    "finit": "finit",
    "s6-svscan": "s6-svscan",
    "dinit": "dinit",
}

# Words that stand in the program file of an init installed under a name that says nothing, as Debian's are.
_BY_CONTENT = (
    (b"/run/runit.stopit", "runit"),
    (b"/etc/runit/stopit", "runit"),
    (b"openrc-init", "openrc-init"),
    (b"finit.conf", "finit"),
    (b"INIT_VERSION=sysvinit", "sysvinit"),
    (b"sysvinit", "sysvinit"),
)


def kind_of(resolved: str, content: bytes) -> str:
    """The kind of an init from its path with all links followed and the first MiB of its file; "plain" if none."""
    name = resolved.rpartition("/")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    if content.startswith(b"\x7fELF"):
        for word, kind in _BY_CONTENT:
            if word in content:
                return kind
    return "plain"


def stop_signals(kind: str, overrides: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """poweroff, halt and reboot → signal name, as `exec.stop` and then the kind have them; without what is unknown."""
    init = INITS.get(kind, PLAIN)
    known = {"poweroff": init.poweroff, "halt": init.halt, "reboot": init.reboot, **dict(overrides)}
    return {request: signal for request, signal in known.items() if signal is not None}


def refuse_init(kind: str, path: str, *, because: str, shared: bool = False) -> None:
    """Raise ConfigError for an init that would never end: reboot(2) will be refused to it, and `because` says why.

    And, with `shared`, for one that is not content with being a child of lcinit.
    """
    if shared and kind not in ("plain", "s6-svscan"):
        raise ConfigError(
            f"{path} is {kind}, which must be PID 1, and with exec.pid: shared lcinit is",
            hint="use exec.pid: nested",
        )
    init = INITS[kind]
    if because and not init.ends_without_reboot:
        raise ConfigError(
            f"{path} is {kind}, which cannot end without reboot(2), and with id_map it is refused that: {because}",
            hint="use exec.mode: tolerant, or no id_map",
        )
