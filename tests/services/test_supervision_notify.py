"""What services say of themselves (sd_notify(3), a descriptor, a PID file) and what checks find out about them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS
from tests.services.bare import Bare, sh
from tests.services.looking import none_left
from tests.services.rig import wait_until

PRELUDE = """
import os, signal, socket, sys, time
def say(*lines):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto("\\n".join(lines).encode(), os.environ["NOTIFY_SOCKET"])
    s.close()
def stay():
    while True:
        signal.pause()
"""


def says(script: str, **keys: Any) -> dict[str, Any]:
    """A service of type notify that is a Python script."""
    words = ["/usr/bin/python3", "-ISc", PRELUDE + script]
    return {"command": words, "type": "notify", "log": "none", **keys}


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_it_is_up_when_it_says_so_and_its_status_is_shown(loop: str) -> None:
    services = {
        "a": says("say('STATUS=warming up'); time.sleep(0.5); say('READY=1', 'STATUS=serving 3'); stay()"),
        "b": sh("exec sleep 1000", requires="a"),
    }
    with Bare(services, env={"LCINIT_EVENT_LOOP": loop}) as guest:
        early = guest.awaited("a", lambda state: state["status_text"], "telling")
        assert (early["sub"], early["status_text"]) == ("start", "warming up")
        assert guest.service("b")["waits_for"] == ["a"]
        guest.up("b")
        assert guest.service("a")["status_text"] == "serving 3"
        assert "serving 3" in guest.lcinit("status", "a").stdout


def test_main_pid_changes_and_who_may_say_so() -> None:
    fork = """
pid = os.fork()
if pid == 0:
    os.setsid() if {session} else None
    stay()
say('MAINPID=%d' % pid, 'READY=1')
time.sleep(0.5)
os._exit(5)
"""
    services = {
        "moves": says(fork.format(session=False), restart="no"),
        "lies": says("say('MAINPID=1', 'READY=1'); stay()"),
        "child": says("if os.fork() == 0:\n    say('READY=1')\nstay()", start_timeout=1, restart="no"),
        "any": says("if os.fork() == 0:\n    say('READY=1')\nstay()", notify_access="all"),
    }
    with Bare(services) as guest:
        first = guest.up("moves")
        lies = guest.up("lies")
        assert lies["pid"] not in (1, None)
        assert "lies names process 1 as its main one, which is not its own" in guest.console()
        guest.up("any")
        time.sleep(0.7)  # the one that forked has ended with 5, which is nothing to the service
        moved = guest.service("moves")
        assert moved["sub"] == "running" and moved["pid"] == first["pid"], moved
        child = guest.awaited("child", lambda state: state["sub"] == "failed", "failed")
        assert child["result"] == "timeout", child
        guest.call("Kill", name="moves", signal="SIGKILL")
        moved = guest.awaited("moves", lambda state: state["sub"] == "failed", "failed")
        assert moved["result"] in ("signal", "exit-code"), moved


def test_a_watchdog_that_is_not_fed_ends_it_and_one_that_is_does_not() -> None:
    feed = "say('READY=1')\nwhile True:\n    say('WATCHDOG=1'); time.sleep(int(os.environ['WATCHDOG_USEC']) / 3e6)"
    services = {
        "fed": says(feed, watchdog=0.6),
        "hangs": says("say('READY=1'); stay()", watchdog=0.4, restart="on-watchdog", start_limit_burst=2),
        "asks": says("say('READY=1'); time.sleep(0.2); say('WATCHDOG=trigger'); stay()", restart="no"),
    }
    with Bare(services) as guest:
        hangs = guest.awaited("hangs", lambda state: state["sub"] == "failed", "failed")
        assert hangs["result"] == "start-limit-hit" and hangs["restarts"] == 2, hangs
        assert "no WATCHDOG=1 within 0.4 s" in hangs["reason"], hangs
        asks = guest.awaited("asks", lambda state: state["sub"] == "failed", "failed")
        assert (asks["result"], asks["reason"]) == ("watchdog", "it has asked for its watchdog's action")
        fed = guest.service("fed")
        assert fed["sub"] == "running" and fed["restarts"] == 0, fed


HANGS = """
def told(number, _frame):
    with open('/tmp/told', 'a') as file:
        file.write('%s %s\\n' % (os.environ['LCINIT_SERVICE'], signal.Signals(number).name))
    if {code} is not None:
        time.sleep({lingers})
        os._exit({code})
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, told)
if {ignores}:
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
say('READY=1')
{then}
stay()
"""


def hangs(
    code: int | None = 0, *, ignores: bool = False, then: str = "", lingers: float = 0, **keys: Any
) -> dict[str, Any]:
    """A service that ends with `code` at any of three signals and never says that it is alive. Its stop command and
    what stop_post is told are kept in files.
    """
    post = 'echo "$LCINIT_SERVICE $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS" >>/tmp/post'
    around = {"stop": [["touch", "/tmp/stopped"]], "stop_post": [["/bin/sh", "-c", post]]}
    return says(HANGS.format(code=code, ignores=ignores, then=then, lingers=lingers), restart="no", **around, **keys)


def test_what_a_watchdog_sends_and_what_follows() -> None:
    """systemd.kill(5), WatchdogSignal=, and systemd.service(5), TimeoutAbortSec=."""
    fork = "if os.fork() == 0:\n    stay()"
    services = {
        "abort": hangs(watchdog=0.3, limits={"core": 0}),
        "own": hangs(3, watchdog=0.3, watchdog_signal="SIGUSR1"),
        "well": hangs(0, watchdog=0.3, watchdog_signal="SIGUSR1"),
        "deaf": hangs(ignores=True, watchdog=0.5, stop_timeout=1.5),
        "asks": hangs(4, then="say('WATCHDOG=trigger')", watchdog_signal="SIGUSR2"),
        "all": hangs(0, then=fork, lingers=0.5, watchdog=1, watchdog_signal="SIGUSR2", kill_mode="control-group"),
        "asked": hangs(0, watchdog=60, watchdog_signal="SIGUSR1"),
    }
    with Bare(services) as guest:
        assert guest.awaited("deaf", lambda state: state["sub"] == "stop-watchdog", "ended")["state"] == "deactivating"
        for name in services.keys() - {"asked"}:
            state = guest.awaited(name, lambda state: state["sub"] == "failed", "failed")
            assert state["result"] == "watchdog", state
        assert guest.run("ls", "/tmp/stopped", check=False).startswith("2 ")
        assert sorted(guest.read("/tmp/post").splitlines()) == [
            "abort watchdog killed ABRT",
            "all watchdog exited 0",
            "asks watchdog exited 4",
            "deaf watchdog killed KILL",
            "own watchdog exited 3",
            "well watchdog exited 0",
        ]
        guest.asked("Stop", "asked")
        assert guest.service("asked")["result"] == "success"
        told = sorted(guest.read("/tmp/told").splitlines())
        assert told == ["all SIGUSR2", "all SIGUSR2", "asked SIGTERM", "asks SIGUSR2", "own SIGUSR1", "well SIGUSR1"]
        assert guest.run("ls", "/tmp/stopped") == "/tmp/stopped"


def test_another_watchdog_signal_counts_for_one_that_runs() -> None:
    file = "/etc/lcinit/services/a.yml"
    with Bare({"a": {}}, setup={"mode": "none", "before": [["mkdir", "-p", "/etc/lcinit/services"]]}) as guest:
        wait_until(lambda: guest.service("a")["sub"] == "failed", "without a file", guest)
        first = hangs(5, then="while not os.path.exists('/tmp/hang'): time.sleep(0.02); say('WATCHDOG=1')", watchdog=1)
        guest.write(file, json.dumps(first))
        assert guest.lcinit("daemon-reload").returncode == 0
        guest.asked("Start", "a")
        pid = guest.up("a")["pid"]
        guest.write(file, json.dumps({**first, "watchdog_signal": "SIGUSR2"}))
        done = guest.lcinit("daemon-reload")
        assert done.returncode == 0 and "watchdog_signal" in done.stdout, done
        assert guest.service("a")["pid"] == pid and guest.service("a")["restarts"] == 0
        guest.write("/tmp/hang", "")
        guest.awaited("a", lambda state: state["sub"] == "failed", "failed")
        assert guest.read("/tmp/told") == "a SIGUSR2\n"


def test_more_time_may_be_asked_for_on_both_ways() -> None:
    extends = """
def stop(*_):
    for _ in range(4):
        say('EXTEND_TIMEOUT_USEC=400000'); time.sleep(0.2)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
for _ in range(4):
    say('EXTEND_TIMEOUT_USEC=400000'); time.sleep(0.2)
say('READY=1'); stay()
"""
    with Bare({"a": says(extends, start_timeout=0.5, stop_timeout=0.5, restart="no")}) as guest:
        guest.up("a")
        began = time.monotonic()
        guest.asked("Stop", "a")
        assert time.monotonic() - began > 0.7
        assert guest.service("a")["result"] == "success"


def test_a_reload_is_over_when_it_says_so() -> None:
    script = """
def again(*_):
    say('RELOADING=1', 'MONOTONIC_USEC=%d' % (time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))
    time.sleep(0.4)
    say('READY=1', 'STATUS=read again')
signal.signal(signal.SIGHUP, again)
say('READY=1'); stay()
"""
    services = {
        "tells": says(script, reload_signal="SIGHUP"),
        "fails": sh("exec sleep 1000", reload="false"),
        "hangs": sh("exec sleep 1000", reload="sleep 1000", start_timeout=0.4),
    }
    with Bare(services) as guest:
        pid = {name: guest.up(name)["pid"] for name in services}
        guest.call("Kill", name="tells", signal="SIGHUP")  # by itself, as far as lcinit knows
        guest.awaited("tells", lambda state: state["state"] == "reloading", "reloading")
        guest.awaited("tells", lambda state: state["sub"] == "running", "done")
        assert guest.service("tells")["status_text"] == "read again"
        assert guest.lcinit("reload", "tells").returncode == 0
        failed = guest.lcinit("reload", "fails")
        assert failed.returncode != 0, failed
        assert guest.lcinit("reload", "hangs").returncode != 0
        guest.container.expect(r"hangs: its reload took longer than start_timeout \(0\.4 s\)")
        assert {name: guest.service(name)["pid"] for name in services} == pid
        none_left(guest, "\0001000\0sleep")
        assert {state["sub"] for state in guest.services().values()} == {"running"}
        guest.call("Kill", name="hangs", signal="SIGKILL")
        guest.awaited("hangs", lambda state: state["restarts"] == 1, "started again")
        guest.container.expect(r"hangs has ended \(signal SIGKILL\); it is started again")


FORKS = """
pid = os.fork()
if pid:
    time.sleep(0.1)
    os._exit({code})
os.setsid()
if os.fork():
    os._exit(0)
{write}
stay()
"""
WRITE = "open('/run/NAME.pid', 'w').write('%d\\n' % os.getpid())"


def forks(name: str, *, write: str = WRITE, code: int = 0, **keys: Any) -> dict[str, Any]:
    """A daemon that forks twice and then writes its PID."""
    script = FORKS.format(write=write.replace("NAME", name), code=code)
    return {**says(script), "type": "forking", "pid_file": f"/run/{name}.pid", "restart": "no", **keys}


def test_a_daemon_that_forks_is_known_by_its_file() -> None:
    """And what of it goes wrong is told, with nothing of it left."""
    services = {
        "good": forks("good"),
        "code": forks("code", code=3),
        "foreign": forks("foreign", write="open('/run/NAME.pid', 'w').write('1\\n')"),
        "fifo": forks("fifo", write="os.mkfifo('/run/NAME.pid')"),
        "none": forks("none", write="pass"),
    }
    with Bare(services) as guest:
        state = guest.up("good")
        assert int(guest.read("/run/good.pid")) == state["pid"]
        for name, result, reason in (
            ("code", "exit-code", "exit code 3"),
            ("foreign", "protocol", "/run/foreign.pid"),
            ("fifo", "protocol", "/run/fifo.pid"),
            ("none", "protocol", "/run/none.pid"),
        ):
            state = guest.awaited(name, lambda state: state["sub"] == "failed", "failed")
            assert state["result"] == result and reason in state["reason"], state
            none_left(guest, f"run/{name}.pid")
        guest.call("Kill", name="good", signal="SIGSEGV")
        ended = guest.awaited("good", lambda state: state["sub"] == "failed", "failed")
        assert ended["signal"] == "SIGSEGV", ended  # it is PID 1's child by then


LOOPBACK = [
    "/usr/bin/python3",
    "-ISc",
    """
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 0x49))  # SIOCSIFFLAGS: up
""",
]


def test_a_health_check_restarts_or_stops_or_only_says_so() -> None:
    alive = {"interval": 0.1, "timeout": 1, "failures": 2}
    server = """
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', {port})); s.listen()
say('READY=1')
while True:
    c, _ = s.accept()
    gone = os.path.exists('/tmp/sick')
    if c.recv(4096):
        c.sendall(b'HTTP/1.0 %s\\r\\n\\r\\n' % (b'503 no' if gone else b'200 ok'))
    c.close()
"""
    services = {
        "exec": sh("exec sleep 1000", health={"exec": "test ! -e /tmp/sick", **alive}, restart="no"),
        "http": says(server.format(port=8080), health={"http": "http://127.0.0.1:8080/", "action": "stop", **alive}),
        "tcp": says(server.format(port=8081), health={"tcp": "127.0.0.1:8081", **alive}),
        "closed": sh("exec sleep 1000", health={"tcp": "127.0.0.1:9", "action": "none", **alive}),
        "young": sh("exec sleep 1000", health={"exec": "false", **alive, "start_period": 60}),
    }
    with Bare(services, setup={"mode": "none", "before": [LOOPBACK]}) as guest:
        before = {name: guest.up(name)["pid"] for name in services}
        time.sleep(0.8)
        found = guest.services()
        assert {name: state["pid"] for name, state in found.items()} == before
        guest.container.expect("closed is not healthy: Connection refused")
        guest.write("/tmp/sick", "")
        guest.awaited("exec", lambda state: state["restarts"] >= 1, "restarted")
        http = guest.awaited("http", lambda state: state["sub"] in ("failed", "dead"), "stopped")
        assert http["result"] == "health" and "503" in http["reason"] and http["restarts"] == 0, http
        found = guest.services()
        assert all(found[name]["pid"] == before[name] for name in ("tcp", "closed", "young"))
