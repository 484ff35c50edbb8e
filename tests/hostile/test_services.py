"""Rows 5, 9, 33, 34, 37, 38 and 44 for a lcinit that supervises services in the guest's root."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attacker import LENT, PRELUDE
from tests.hostile.attempt import BOTH_LOOPS, SHIFT, Outcome, configuration, outcome, own_guest, start
from tests.hostile.canary import Canary
from tests.hostile.test_descriptors import DENIED, ROB
from tests.hostile.test_root import give, trap
from tests.hostile.test_supervisor import limited, put
from tests.lab.container import Container, descendants
from tests.services.bare import SHARED, sh
from tests.services.looking import none_left, running
from tests.services.rig import Guest, wait_until
from tests.services.test_ends import zombies

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

STAY = "exec sleep 1000"


class Hostile(Guest):
    """A mapped guest, pivoted into, whose services are hostile. They may be Python scripts: see `attacks`."""

    def __init__(
        self, services: dict[str, Any], *, guest: str | None = None, env: dict[str, str] | None = None, **keys: Any
    ) -> None:
        config = configuration(exec=SHARED, services=services, mounts=[LENT], **keys)
        self.container: Container = start(config, guest=guest, env=env)  # type: ignore[assignment]
        self._pid1 = 0

    def answers(self, within: float = 1.0) -> None:
        """PID 1 is not held up."""
        began = time.monotonic()
        self.services()
        assert time.monotonic() - began < within, self.console()


def attacks(script: str, **keys: Any) -> dict[str, Any]:
    """A service of the guest's root that is a Python script and prints to the console."""
    words = ["/bin/sh", "-c", 'exec /usr/bin/python3 -ISc "$0"', f"{PRELUDE}\n{ROB}\n{script}"]
    return {"command": words, "log": "console", "restart": "no", **keys}


def said(result: Outcome, name: str) -> list[str]:
    """The rests of the lines that a service printed as `NAME: REST`, whatever lcinit has put before them."""
    return [line.partition(f"{name}: ")[2] for line in result.lines if f" {name}: " in f" {line}"]


ROB_EACH = """
import time
others = []
while len(others) < 4:  # the logger comes a moment later than the first services
    others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
for pid in sorted(others):
    with open(f"/proc/{pid}/status") as file:
        fields = {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    say("found", f"{pid} {fields['Name']} {fields['Uid'].split()[0]}")
    rob(f"process-{pid}", pid, fields["Uid"].split()[0] == "0")
say("attack", "over")
"""


@pytest.mark.row(5)
def test_a_services_root_can_rob_neither_pid_1_nor_any_process_of_lcinits() -> None:
    """The spawner, the logger and the reader share the guest's PID namespace."""
    with Hostile({"thief": attacks(ROB_EACH)}) as guest:
        guest.container.expect("attack: over", 20)
        guest.answers()
        guest.lcinit("poweroff")
        result = outcome(guest.container)
    found = [line.split()[0] for line in said(result, "found")]
    assert "1" in found and len(found) >= 4, result
    for pid in found:
        prefix = f"process-{pid} "
        answers = [line.partition(prefix)[2].split(": ") for line in result.lines if prefix in line]
        assert ["robbed", "yes"] in answers and len(answers) > 25, result
        given = [(what, answer) for what, answer in answers if what != "robbed" and answer not in DENIED]
        assert given == [], (pid, given)


@pytest.mark.row(9)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_no_error_of_any_service_has_the_guests_python_imported_or_read(loop: str, tmp_path: Path) -> None:
    guest_root = own_guest(f"{tmp_path}/root")
    trap(guest_root)
    give(guest_root, "not-a-program", "neither ELF nor a script\n", 0o755)
    give(guest_root, "etc/lcinit/services/wrong.yml", "command: [\n")
    give(guest_root, "etc/lcinit/services/un.yml", 'command: "/un\\u001b[31mprintable\\u202e"\nlog: none\n')
    give(guest_root, "etc/lcinit/enabled/un", "")
    no = {"restart": "no", "log": "none"}
    check = {"interval": 0.05, "timeout": 0.2, "failures": 1}
    services: dict[str, Any] = {
        "missing": {"command": "/no/such", **no},
        "format": {"command": "/not-a-program", **no},
        "user": {"command": "/bin/true", "user": "nobody-h\u00ebre", **no},
        "cwd": {"command": "/bin/true", "cwd": "/n\u00f6where", **no},
        "variables": {"command": "/bin/true", "environment_file": "/no/such", **no},
        "pre": sh(STAY, start_pre="/bin/false", **no),
        "late": sh(STAY, type="notify-fd", start_timeout=0.2, **no),
        "daemon": {"command": "/bin/true", "type": "forking", "pid_file": "/etc/nsswitch.conf", **no},
        "noise": sh("printf '\\200\\377\\033[2J\\303'; exit 3", restart_delay=0, start_limit_burst=3) | {"log": "both"},
        "exec": sh(STAY, health={"exec": "/no/such", **check}, restart="no"),
        "http": sh(STAY, health={"http": "http://127.0.0.1:9/x", "action": "none", **check}),
        "tcp": sh(STAY, health={"tcp": "[::1]:9", "action": "none", **check}),
        "deaf": sh("trap '' TERM; while :; do sleep 0.02; done", stop_timeout=0.2),
        "reloads": sh(STAY, reload="/no/such"),
        "limits": sh(STAY, cgroup={"memory_max": "64M"}, nice=-20, oom_score_adj=-1000),
    }
    for service in services.values():
        service.setdefault("log", "none")
    keys = {"log": {"level": "debug", "format": "json"}, "shutdown": {"timeout": "3s"}}
    with Hostile(services, guest=guest_root, env={"LCINIT_EVENT_LOOP": loop}, **keys) as guest:
        guest.up("reloads")
        for words in (("reload", "reloads"), ("daemon-reload",), ("restart", "deaf"), ("start", "nobody")):
            guest.lcinit(*words)
        guest.lcinit("status", "un")
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, 40, 64):
            os.kill(guest.pid1, number)
        guest.awaited("noise", lambda state: state["sub"] == "failed", "failed")
        guest.awaited("late", lambda state: state["sub"] == "failed", "failed")
        guest.answers()
        guest.lcinit("poweroff")
        result = outcome(guest.container, 15)
    assert not os.path.exists(f"{guest_root}/imported"), result
    assert "unexpected" not in str(result) and "must be imported" not in str(result), result
    assert "Traceback" not in str(result), result


@pytest.mark.row(33)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_of_ten_thousand_orphans_none_is_left(loop: str) -> None:
    script = (
        "i=0; while [ $i -lt 100 ]; do (" + ": & " * 100 + "); i=$((i + 1)); done; touch /tmp/made; exec sleep 1000"
    )
    services = {"forks": sh(script), "other": sh(STAY)}
    with Hostile(services, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        guest.up("other")
        deadline = time.monotonic() + 30
        while not os.path.exists(guest.path("/tmp/made")):
            assert time.monotonic() < deadline
            guest.answers()
            time.sleep(0.05)
        end = time.monotonic() + 2
        while left := zombies(guest):  # type: ignore[arg-type]
            assert time.monotonic() < end, f"{left} are left"
            time.sleep(0.02)
        found = guest.services()
        assert {name: found[name]["sub"] for name in services} == dict.fromkeys(services, "running")


BOMB = """
import time
# it takes what there is and tries for more; whoever is asked to end does not
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    os.setsid()
except OSError:
    pass
say("bomb", "lit")
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.02)
"""


@pytest.mark.row(34)
def test_a_fork_bomb_is_stopped_as_a_service_and_at_the_deadline() -> None:
    # the limit is the machine's protection; the bomb goes on against it
    bomb = attacks(BOMB, limits={"nproc": 300}, stop_timeout=0.5)
    with Hostile({"bomb": bomb, "other": sh(STAY)}, shutdown={"timeout": "2s"}) as guest:
        other = guest.up("other")["pid"]
        guest.container.expect("bomb: lit")
        time.sleep(0.8)
        assert len(descendants(guest.pid1)) > 100
        guest.answers(2)
        began = time.monotonic()
        guest.call("Stop", names=["bomb"])
        none_left(guest, "signal.SIG_IGN", 3)
        assert time.monotonic() - began < 4
        assert guest.service("other")["pid"] == other
        guest.call("Start", names=["bomb"])
        time.sleep(0.8)
        assert len(running(guest, "signal.SIG_IGN")) > 100
        began = time.monotonic()
        os.kill(guest.pid1, signal.SIGTERM)
        outcome(guest.container, 10)
        assert time.monotonic() - began < 5


@pytest.mark.row(34)
def test_where_no_process_can_be_started_services_are_stopped_and_come_again_later() -> None:
    # more than the container may have, and less than would hurt the machine if the bomb got away
    bomb = attacks(BOMB, limits={"nproc": 150}, stop_timeout=0.3)
    with Hostile({"bomb": bomb, "again": sh(STAY, restart="always")}) as guest:
        first = guest.up("again")["pid"]
        guest.container.expect("bomb: lit")
        with limited(guest.container, "pids") as directory:
            put(directory, "pids.max", 60)
            time.sleep(0.8)
            guest.answers()
            guest.call("Kill", name="again", signal="SIGKILL")
            guest.call("Stop", names=["bomb"])
            state = guest.awaited(
                "again", lambda state: state["sub"] == "running" and state["pid"] != first, "up again", 10
            )
            assert state["restarts"] >= 1
            guest.answers()


@pytest.mark.row(37)
def test_a_secret_of_the_outside_is_in_no_process_that_a_service_can_see() -> None:
    script = """
for name in os.listdir("/proc"):
    if name.isdigit():
        for file in ("environ", "cmdline"):
            try:
                with open(f"/proc/{name}/{file}", "rb") as opened:
                    if b"the-outer-" + b"secret" in opened.read():
                        say("leak", f"{name} {file}")
            except OSError:
                pass
say("environment", sorted(os.environ))
say("attack", "over")
"""
    services = {
        "look": attacks(script, start_pre=[["/bin/sh", "-c", "env >/tmp/pre"]]),
        "checked": sh(
            STAY, health={"exec": ["/bin/sh", "-c", "env >/tmp/now; mv /tmp/now /tmp/health"], "interval": 0.1}
        ),
    }
    with Hostile(services, env={"OUTER_NAME": "the-outer-secret", "OUTER_OTHER": "1"}) as guest:
        guest.container.expect("attack: over", 20)
        guest.up("checked")
        deadline = time.monotonic() + 5
        while not os.path.exists(guest.path("/tmp/health")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for path in ("/tmp/pre", "/tmp/health"):
            text = guest.read(path)
            assert "LCINIT_SERVICE=" in text and "OUTER_" not in text, text
        for pid in running(guest, "sleep"):
            assert "OUTER" not in guest.read(f"/proc/{pid}/environ")
        guest.lcinit("poweroff")
        result = outcome(guest.container)
    assert said(result, "leak") == [], result
    assert len(said(result, "environment")) == 1 and "OUTER" not in said(result, "environment")[0], result


HOG = """
import time
hoard = []
while True:
    hoard.append(bytearray(os.urandom(1 << 16)) * 64)
"""


@pytest.mark.row(38)
def test_a_service_that_takes_all_the_memory_dies_and_pid_1_and_others_live() -> None:
    hog = attacks(HOG, oom_score_adj=1000, log="none", runlevels=[5])
    with Hostile({"hog": hog, "other": sh(STAY)}) as guest:
        other = guest.up("other")["pid"]
        with limited(guest.container, "memory") as directory:
            put(directory, "memory.limit_in_bytes", 96 << 20)
            guest.call("Start", names=["hog"])
            state = guest.awaited("hog", lambda state: state["sub"] == "failed", "killed", 30)
            assert state["signal"] == "SIGKILL" and state["result"] in ("signal", "oom-kill"), state
            guest.answers(3)
            assert guest.service("other")["pid"] == other


@pytest.mark.row(44)
def test_what_is_planted_among_the_service_files_gains_nothing(tmp_path: Path) -> None:
    canary = Canary(f"{tmp_path}/canary")
    root = own_guest(f"{tmp_path}/root")
    look = "[/bin/sh, -c, 'grep -E ^Cap /proc/self/status >/tmp/root; exec sleep 1000']"
    greedy = "command: sleep 1000\nlog: none\nrestart: no\ncapabilities: [net_raw, sys_module, sys_rawio]\n"
    services, enabled = "etc/lcinit/services", "etc/lcinit/enabled"
    give(root, f"{services}/greedy.yml", greedy)
    give(root, f"{services}/root.yml", f"command: {look}\nlog: none\nuser: 0\n")
    for name, key in (("spared", "oom_score_adj: -1000"), ("first", "nice: -20")):
        give(root, f"{services}/{name}.yml", f"command: sleep 1000\nlog: none\nrestart: no\n{key}\n")
        give(root, f"{enabled}/{name}", "")
    give(root, f"{services}/heavy.yml", "x" * (1 << 17))
    give(root, f"{services}/plain.yml", "command: sleep 1000\nlog: none\n")
    give(root, f"{services}/../up.yml", "command: sleep 1000\n")
    os.mkfifo(f"{root}/{services}/fifo.yml")
    for name, target in (
        ("outside", "/mnt/init.yml"),
        ("magic", "/proc/1/root/etc/passwd"),
        ("loop", "loop.yml"),
        ("zero", "/dev/zero"),
        ("canary", f"{canary.path}/file"),
    ):
        os.symlink(target, f"{root}/{services}/{name}.yml")
    for name in (
        "greedy",
        "root",
        "heavy",
        "plain",
        "fifo",
        "outside",
        "magic",
        "loop",
        "zero",
        "canary",
        "..lcinit",
        "init",
    ):
        give(root, f"{enabled}/{name}", "")
    with Hostile({"own": sh(STAY)}, guest=root, capabilities={"drop": ["net_raw"]}) as guest:
        guest.up("own")
        guest.up("plain")
        guest.answers()
        found = guest.services()
        for name in ("heavy", "fifo", "outside", "magic", "loop", "zero", "canary"):
            assert found[name]["sub"] == "failed" and found[name]["pid"] is None, found[name]
            assert "secret" not in found[name]["reason"], found[name]
        assert ".." not in str(sorted(found))
        greedy = guest.awaited("greedy", lambda state: state["sub"] == "failed", "refused")
        assert greedy["result"] == "start-failure", greedy
        assert "net_raw is not there to be had" in greedy["reason"], greedy
        for name, key in (("spared", "oom_score_adj"), ("first", "nice")):
            state = guest.awaited(name, lambda state: state["sub"] == "failed", "refused")
            assert state["result"] == "start-failure" and key in state["reason"], state
        guest.up("root")
        wait_until(lambda: "CapBnd" in guest.read("/tmp/root"), "what root has", guest)
        held = {
            key: value.strip() for key, _, value in (x.partition(":") for x in guest.read("/tmp/root").splitlines())
        }
        for field in ("CapEff", "CapBnd"):
            assert not int(held[field], 16) & 1 << 13, held  # CAP_NET_RAW
        assert os.stat(guest.path("/tmp/root")).st_uid == SHIFT
        guest.lcinit("daemon-reload")
        guest.answers()
    canary.assert_untouched()


HOLD = """
import fcntl, time
held = []
for path in ("/held", "/etc/lcinit/services/held.yml"):
    descriptor = os.open(path, os.O_RDWR)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    held.append(descriptor)
signal.signal(signal.SIGIO, signal.SIG_IGN)
say("lease", "taken")
signal.pause()
"""


@pytest.mark.row(44)
@pytest.mark.row(9)
def test_files_that_are_held_never_hold_pid_1(tmp_path: Path) -> None:
    """Leases on a program and on a service file, FIFOs where files are read: others start, and PID 1 answers."""
    root = own_guest(f"{tmp_path}/root")
    give(root, "held", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    give(root, "etc/lcinit/services/held.yml", "command: sleep 1000\nlog: none\n")
    for name in ("variables", "pid"):
        os.mkfifo(f"{root}/{name}")
    no = {"restart": "no", "log": "none", "runlevels": [5]}
    services = {
        "holds": attacks(HOLD),
        "program": {"command": "/held", "start_timeout": 2, **no},
        "variables": {"command": "/bin/true", "environment_file": "/variables", "start_timeout": 2, **no},
        "daemon": {"command": "/bin/true", "type": "forking", "pid_file": "/pid", "start_timeout": 2, **no},
        "log": sh("echo hello; exec sleep 1000", runlevels=[5]) | {"log": "file"},
        "free": sh(STAY, runlevels=[5]),
    }
    with Hostile(services, guest=root, shutdown={"timeout": "3s"}) as guest:
        guest.container.expect("lease: taken", 10)
        guest.run("rm", "-rf", "/var/log/lcinit/log")
        guest.run("mkdir", "-p", "/var/log/lcinit/log")
        guest.run("mkfifo", "/var/log/lcinit/log/current")
        with guest.client() as client:
            client.call("io.lcinit.Services.Start", names=[n for n in services if n != "holds"], wait=False)
            client.call("io.lcinit.Services.Start", names=["free"])
        for _ in range(10):
            guest.answers(0.5)
            time.sleep(0.05)
        guest.up("log")
        began = time.monotonic()
        guest.lcinit("daemon-reload")
        assert time.monotonic() - began < 8
        guest.answers(0.5)
        began = time.monotonic()
        os.kill(guest.pid1, signal.SIGTERM)
        result = outcome(guest.container, 12)
        assert time.monotonic() - began < 9
    assert "unexpected" not in str(result), result
