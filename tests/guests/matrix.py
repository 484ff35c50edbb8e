"""Every guest of the lab in lcinit's tolerant mode, asked for every end in every way, and the table of the outcomes."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from lcinit.control.initctl import INIT_CMD_SETENV, Request, runlevel_request
from lcinit.linux.signals import SIGRTMIN, SIGTERM
from lcinit.plan.inits import Recipe, recipes
from lcinit.tools.initctl_client import send
from tests.lab import guests, managers
from tests.lab.container import Container, descendants, namespace_pids

DOCUMENT = os.path.join(os.path.dirname(__file__), "../../docs/guests.md")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
HEADER = "| guest | poweroff | halt | reboot |\n| --- | --- | --- | --- |\n"

WORDS = ("poweroff", "halt", "reboot")
TIMEOUT = 20.0  # seconds: shutdown.timeout
_KILLED = (-9, 128 + 9)
_BOOT = 30.0  # seconds until a guest is up, on a busy machine

_CONFIG = """\
id_map: {{users: 0 1000000 65536}}
setup:
  before:
  - mount-idmapped --map-mount=b:0:1000000:65536 /mnt/root /mnt/root
  - overlay
exec:
  mode: tolerant
  command: {command}
shutdown: {{timeout: {timeout:g}}}
initctl: true
log: {{level: debug}}
"""


class Case(NamedTuple):
    """A guest: its recipe in the lab, what is PID 1 and what it prints.

    `status` is what lcinit ends with after a stop, `off` and `again` how its init ends when asked for a stop, a reboot.
    """

    guest: str
    kind: str
    command: tuple[str, ...]
    up: str
    status: int
    off: str
    again: str


REBOOT_CALL = 128 + 2  # SIGINT: reboot(2) with POWER_OFF or HALT, which lcinit passes on in its own PID namespace


def _case(name: str, off: str = "signal SIGINT", again: str = "signal SIGHUP") -> Case:
    recipe = guests.RECIPES[name]
    return Case(name, recipe.init, recipe.command, recipe.up, REBOOT_CALL, off, again)


def _command(script: str, status: int, end: str) -> Case:
    return Case("plain", "plain", ("/bin/sh", "-c", script), "the command runs", status, end, end)


# quoted, so that the command itself does not hold what it prints: lcinit shows it
_TRAP = "trap 'exit 7' TERM; echo the command 'runs'; while :; do sleep 0.1; done"
CASES = {
    "systemd 252": _case("systemd252"),
    "systemd 257": _case("systemd257"),
    "systemd 262": _case("systemd262"),
    "sysvinit": _case("sysvinit"),
    "busybox": _case("busybox"),
    "runit": _case("runit"),
    "OpenRC": _case("openrc"),
    "finit": _case("finit"),
    "s6-svscan": _case("s6", "exit code 0", "exit code 0"),
    "a command that handles SIGTERM": _command(_TRAP, 7, "exit code 7"),
    "a command that does not": _command("echo the command 'runs'; exec sleep 1000000", REBOOT_CALL, "signal SIGKILL"),
}

_SIGNALS = {"poweroff": SIGTERM, "halt": SIGRTMIN + 3, "reboot": SIGRTMIN + 5}
_REQUESTS = {
    "poweroff": [runlevel_request("0")],
    "halt": [Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=HALT"), runlevel_request("0")],
    "reboot": [runlevel_request("6")],
}


def _by_signal(container: Container, word: str) -> None:
    os.kill(container.pid1(), _SIGNALS[word])


def _by_initctl(container: Container, word: str) -> None:
    send(_REQUESTS[word], _served(container, "run/initctl"))


def _by_control(container: Container, word: str) -> None:
    _served(container, "run/lcinit/control")
    done = container.run("/usr/lib/lcinit/bin/lcinit", word)
    # a guest that ends at once takes the container along, and the client in it is killed
    assert done.returncode == 0 or (word != "reboot" and done.returncode in _KILLED), (done.returncode, done.stderr)


def _served(container: Container, name: str) -> str:
    """The path of what PID 1 serves: it does so only once the guest is up."""
    path = f"/proc/{container.pid1()}/root/{name}"
    _until(lambda: os.path.exists(path), f"no /{name}", container)
    return path


WAYS: dict[str, Callable[[Container, str], None]] = {
    "signal": _by_signal,
    "initctl": _by_initctl,
    "control": _by_control,
}


def _until(holds: Callable[[], bool], what: str, container: Container, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        printed = container.console().decode(errors="replace")[-3000:]
        assert time.monotonic() < deadline, f"{what} within {timeout} s; console:\n{printed}"
        time.sleep(0.02)


class Held(NamedTuple):
    """What a start of the guest holds in PID 1 and its surroundings: every start must hold the same."""

    descriptors: int
    mounts: int
    cgroups: int
    strangers: int  # processes of the container that are neither PID 1 nor the guest's


def held(container: Container) -> Held:
    """What is there now."""
    pid = container.pid1()
    with open(f"/proc/{pid}/mountinfo") as file:
        mounts = len(file.readlines())
    cgroups = len(_own_cgroups(container))
    deep = len(namespace_pids(pid)) + 1
    inside = [len(namespace_pids(each)) for each in descendants(pid) if each != pid]
    return Held(len(os.listdir(f"/proc/{pid}/fd")), mounts, cgroups, sum(0 < depth < deep for depth in inside))


def _own_cgroups(container: Container) -> list[str]:
    """Those that lcinit made, without what the guest made below its own."""
    found = []
    for directory, names, _ in os.walk(container.cgroup):
        found += [os.path.join(directory, name) for name in names if name.startswith("lcinit-")]
        names[:] = [name for name in names if not name.startswith("lcinit-")]
    return found


class Drive:
    """One container with one guest."""

    _naming = threading.Lock()

    def __init__(self, case: Case, boot_root: str) -> None:
        self.case = case
        with self._naming:  # their names are counted
            self.container = managers.Unshare()
        config = _CONFIG.format(command=json.dumps(list(case.command)), timeout=TIMEOUT)
        self.container.start(boot_root, guest_root=guests.guest(case.guest), config=config)
        self._seen = 0
        self._await_up()

    def _await_up(self) -> None:
        # lcinit says of the guest's init that it is up, too
        found = self.container.expect(f"(?<!guest's ){re.escape(self.case.up)}", _BOOT, start=self._seen)
        self._seen = found.end()
        self.guest = self.container.guest_pid1()

    def _await_end(self) -> str:
        """How the guest's init ended, as lcinit says it."""
        found = self.container.expect(r"the guest has ended: ([^\r\n]*)", _BOOT, start=self._seen)
        self._seen = found.end()
        return found[1].decode()

    def reboots(self, ways: tuple[str, ...]) -> dict[str, str]:
        """Reboot the guest in each way: way → outcome. It is started again in place, and nothing of before is left."""
        outcomes = {}
        _served(self.container, "run/lcinit/control")
        before = held(self.container)
        for way in ways:
            first, old = self.container.pid1(), self.guest
            WAYS[way](self.container, "reboot")
            ended = self._await_end()
            self._await_up()
            assert self.container.pid1() == first, "the container itself was restarted"
            assert self.guest != old, self.container.console().decode(errors="replace")[-3000:]
            _until(lambda: held(self.container) == before, f"not {before} again", self.container)
            outcomes[way] = f"{ended}, started again"
        return outcomes

    def stop(self, word: str, way: str) -> str:
        """Poweroff or halt: the outcome."""
        began = time.monotonic()
        WAYS[way](self.container, word)
        status = self.container.wait(TIMEOUT + 10).status
        ended = self._await_end()
        assert time.monotonic() - began < TIMEOUT, "the guest was killed at the deadline"
        left = _own_cgroups(self.container)
        assert not left, f"cgroups are left: {left}"
        with open(os.path.join(self.container.cgroup, "cgroup.events")) as file:
            assert "populated 0" in file.read(), "processes are left"
        return f"{ended}, status {status}"


def jobs() -> list[Callable[[Case, str], dict[tuple[str, str], str]]]:
    """What there is to do for each guest, apart from each other: all words in all ways, a container each poweroff."""

    def job(word: str, way: str, reboots: tuple[str, ...]) -> Callable[[Case, str], dict[tuple[str, str], str]]:
        def run(case: Case, boot_root: str) -> dict[tuple[str, str], str]:
            drive = Drive(case, boot_root)
            try:
                outcomes = {("reboot", each): outcome for each, outcome in drive.reboots(reboots).items()}
                return {**outcomes, (word, way): drive.stop(word, way)}
            finally:
                drive.container.stop()

        return run

    # one goes through all reboots and the others through none: a reboot takes as long as a container of its own
    first, *others = [(word, way) for word in ("poweroff", "halt") for way in WAYS]
    return [job(*first, tuple(WAYS)), *(job(word, way, ()) for word, way in others)]


def expected(case: Case, word: str) -> str:
    """The right outcome."""
    return f"{case.again}, started again" if word == "reboot" else f"{case.off}, status {case.status}"


def row(name: str, outcomes: dict[tuple[str, str], str]) -> str:
    """The line of the table: how the init is asked, and what came of it."""
    known = recipes(CASES[name].kind, ())
    cells = []
    for word in WORDS:
        seen = {way: outcomes[word, way] for way in WAYS}
        same = len(set(seen.values())) == 1
        said = seen["signal"] if same else ", ".join(f"{way}: {outcome}" for way, outcome in seen.items())
        cells.append(f"{in_words(known[word])} → {said}")
    return f"| {name} | {' | '.join(cells)} |\n"


def in_words(recipe: Recipe) -> str:
    """A recipe for the table."""
    parts = [f"`{names[0]}` {mode:04o}" for names, mode in recipe.flags]
    if recipe.runlevel:
        variable = f" with {recipe.variable}" if recipe.variable else ""
        parts.append(f"runlevel {recipe.runlevel}{variable} into `{recipe.fifos[0]}`")
    elif recipe.fifos:
        parts.append(f"`{recipe.text}` into `{recipe.fifos[0]}`")
    if recipe.signal is not None:
        parts.append(recipe.signal)
    return ", ".join(parts)


def documented() -> dict[str, str]:
    """The committed lines by the name of the guest."""
    table = _parts()[1]
    return {line.split("|")[1].strip(): line for line in table.splitlines(keepends=True)[2:]}


def document(name: str, line: str) -> None:
    """Put a line into the committed table."""
    before, _, after = _parts()
    lines = {**documented(), name: line}
    table = HEADER + "".join(lines[each] for each in CASES if each in lines)
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{table}{END}{after}")


def _parts() -> tuple[str, str, str]:
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    before, _, rest = text.partition(BEGIN + "\n")
    table, _, after = rest.partition(END)
    return before, table, after
