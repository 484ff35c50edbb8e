"""What the inits of guests understand: how each is asked for what, and which of them can end without reboot(2).

Every row was tried with the real program as PID 1 (systemd 252, 257, 262; sysvinit, runit, OpenRC, finit and busybox of
Debian 12; s6-svscan 2.11), all but dinit's. The manuals: systemd(1) "SIGNALS", init(8) of sysvinit, runit(8),
openrc-init(8), finit(8), busybox init/init.c, s6-svscan's page, dinit(8).
"""

from __future__ import annotations

from lcinit.errors import ConfigError
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

WORDS = ("poweroff", "halt", "reboot")


class Recipe(Record):
    """How an init is asked for one thing. What is given is done in this order; all paths are the guest's.

    `flags`: files that get these permission bits, and are made where they are missing; the first of the names that is
    nothing else but a regular file. `fifos`: the first of these that is a FIFO is written: the initctl requests for
    `variable` (NAME=VALUE) and `runlevel`, or else `text`. `signal`: its name. `fallback` is a signal that asks for the
    same, or nearly, for those who can only send signals or cannot do the rest.
    """

    flags: tuple[tuple[tuple[str, ...], int], ...] = ()
    fifos: tuple[str, ...] = ()
    variable: str = ""
    runlevel: str = ""
    text: str = ""
    signal: str | None = None
    fallback: str | None = None


class Init(Record):
    """One kind of init: what asks it for poweroff, halt and reboot (None: nothing does).

    `ends_without_reboot`: whether its process ends when reboot(2) is refused, as it is in a user namespace that does
    not own the PID namespace. `calls_reboot`: whether it ends with reboot(2) at all; the others just exit. `catches`:
    whether SigCgt or SigBlk of /proc/PID/status shows that it is listening. `late`: whether it has its handlers before
    it heeds them, so that only asking again is sure.
    """

    kind: str
    poweroff: Recipe | None
    halt: Recipe | None
    reboot: Recipe | None
    ends_without_reboot: bool
    calls_reboot: bool = True
    catches: bool = True
    late: bool = False


_SIGTERM = Recipe(signal="SIGTERM")
PLAIN = Init(kind="plain", poweroff=_SIGTERM, halt=_SIGTERM, reboot=None, ends_without_reboot=True, calls_reboot=False)

_INITCTL = ("/run/initctl", "/dev/initctl")
_OPENRC = "/run/openrc/init.ctl"
# S_IXUSR is what runit looks at: of stopit whether to end stage 2, of reboot whether to reboot after stage 3
_SET, _UNSET = 0o100, 0o000
_DEBIAN_STOPIT, _DEBIAN_REBOOT = ("/run/runit.stopit",), ("/run/runit.reboot",)
# distributions with a read-only /etc make these links to the others (Void's runit-void)
_STOPIT = ("/etc/runit/stopit", "/run/runit/stopit")
_REBOOT = ("/etc/runit/reboot", "/run/runit/reboot")


def _runit(kind: str, stopit: tuple[str, ...], reboot: tuple[str, ...]) -> Init:
    # SIGINT runs /etc/runit/ctrlaltdel, which decides what happens: Debian's powers off after 14 seconds
    off = Recipe(flags=((reboot, _UNSET), (stopit, _SET)), signal="SIGCONT", fallback="SIGINT")
    return Init(
        kind=kind,
        poweroff=off,
        halt=off,
        reboot=Recipe(flags=((reboot, _SET), (stopit, _SET)), signal="SIGCONT"),
        ends_without_reboot=False,
    )


INITS: dict[str, Init] = {
    init.kind: init
    for init in (
        Init(
            kind="systemd",
            poweroff=Recipe(signal="SIGRTMIN+4"),
            halt=Recipe(signal="SIGRTMIN+3"),
            reboot=Recipe(signal="SIGRTMIN+5"),
            ends_without_reboot=True,
        ),
        Init(
            kind="busybox",
            poweroff=Recipe(signal="SIGUSR2"),
            halt=Recipe(signal="SIGUSR1"),
            reboot=_SIGTERM,
            ends_without_reboot=True,
            catches=False,
        ),
        Init(
            kind="sysvinit",
            # what shutdown(8) sets; without it the guest's /etc/default/halt would choose
            poweroff=Recipe(fifos=_INITCTL, variable="INIT_HALT=POWEROFF", runlevel="0"),
            halt=Recipe(fifos=_INITCTL, variable="INIT_HALT=HALT", runlevel="0"),
            # SIGINT runs what inittab's ctrlaltdel entry says, if there is one
            reboot=Recipe(fifos=_INITCTL, runlevel="6", fallback="SIGINT"),
            ends_without_reboot=False,
        ),
        _runit("runit", _DEBIAN_STOPIT, _DEBIAN_REBOOT),
        _runit("runit-etc", _STOPIT, _REBOOT),
        Init(
            kind="openrc-init",
            poweroff=_SIGTERM,
            halt=Recipe(fifos=(_OPENRC,), text="halt", fallback="SIGTERM"),
            reboot=Recipe(signal="SIGINT"),
            ends_without_reboot=False,
        ),
        Init(
            kind="finit",
            poweroff=Recipe(signal="SIGUSR2"),
            halt=Recipe(signal="SIGUSR2"),
            reboot=_SIGTERM,
            ends_without_reboot=False,
            late=True,
        ),
        Init(
            kind="s6-svscan",
            poweroff=_SIGTERM,
            halt=_SIGTERM,
            reboot=None,
            ends_without_reboot=True,
            calls_reboot=False,
        ),
        Init(
            kind="dinit",
            poweroff=_SIGTERM,
            halt=_SIGTERM,
            reboot=Recipe(signal="SIGINT"),
            ends_without_reboot=False,
        ),
        PLAIN,
    )
}

_BY_NAME = {
    "systemd": "systemd",
    "busybox": "busybox",
    "openrc-init": "openrc-init",
    "finit": "finit",
    "s6-svscan": "s6-svscan",
    "dinit": "dinit",
}

# Words that stand in the program file of an init installed under a name that says nothing, as Debian's are.
_BY_CONTENT = (
    (b"/run/runit.stopit", "runit"),
    (b"/etc/runit/stopit", "runit-etc"),
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


def recipes(kind: str, overrides: tuple[tuple[str, str], ...]) -> dict[str, Recipe]:
    """poweroff, halt and reboot → how a supervisor asks for it, as `exec.stop` and then the kind have it.

    An init that just exits knows one end only: halt and reboot are asked for as poweroff is, and the supervisor starts
    it again.
    """
    init = INITS.get(kind, PLAIN)
    given = {word: Recipe(signal=signal) for word, signal in overrides}
    known = {"poweroff": init.poweroff, "halt": init.halt, "reboot": init.reboot, **given}
    if not init.calls_reboot:
        known |= {word: known["poweroff"] for word in WORDS if word not in given}
    return {word: recipe for word, recipe in known.items() if recipe is not None}


def stop_signals(kind: str, overrides: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """poweroff, halt and reboot → signal name, for who can only send signals; without what no signal asks for."""
    init = INITS.get(kind, PLAIN)
    known: Mapping[str, Recipe | None] = {"poweroff": init.poweroff, "halt": init.halt, "reboot": init.reboot}
    known = {**known, **{word: Recipe(signal=signal) for word, signal in overrides}}
    signals = {}
    for word, recipe in known.items():
        signal = None if recipe is None else recipe.fallback or recipe.signal
        if signal is not None:
            signals[word] = signal
    return signals


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
