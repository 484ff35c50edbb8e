"""One command that shares lcinit's PID namespace: its end, its signals, its terminal, its identity, its restarts."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from lcinit.linux.signals import SIGRTMIN, signal_name
from tests.hostile.attacker import command, python_configuration
from tests.hostile.attempt import BOTH_LOOPS, Outcome, boot, configuration, outcome, start
from tests.lab.managers import DRIVERS

SHARED = {"mode": "tolerant", "pid": "shared"}
BARE = {"root": None, "setup": "none"}  # a plain container init
EXIT_CODES = [*range(0, 256, 17), 1, 2, 126, 127, 128, 129, 130, 137, 143, 254]


def bare(script: str, **keys: object) -> str:
    """A configuration that runs a shell's script in the boot root."""
    exec_keys = {**SHARED, "command": ["/bin/sh", "-c", script], **dict(keys.pop("exec", {}))}  # type: ignore[call-overload]
    return configuration(mapped=False, **BARE, exec=exec_keys, **keys)  # type: ignore[arg-type]


def in_guest(script: str, **keys: object) -> str:
    """A configuration that runs a shell's script in the guest root, with an id map."""
    return configuration(script, exec={**SHARED, **dict(keys.pop("exec", {}))}, **keys)  # type: ignore[call-overload,arg-type]


ONE_AFTER_THE_OTHER = """
for code in %s; do
    echo "{root: null, setup: none, exec: {mode: tolerant, pid: shared, command: [sh, -c, '$code']}}" >/tmp/c.yml
    unshare --pid --fork --mount-proc lcinit init --config /tmp/c.yml
    echo "code: $code = $?"
done
"""


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_every_exit_code_and_every_death_by_a_signal_is_passed_on(loop: str) -> None:
    deaths = {f"kill -{n} $$": 128 + n for n in (1, 2, 3, 6, 9, 11, 13, 14, 15, 24, 31, 34, 50, 64)}
    expected = {f"exit {code}": code for code in EXIT_CODES} | deaths
    words = " ".join(f"'{word}'" for word in expected)
    script = ONE_AFTER_THE_OTHER % words
    with start("{}", init="/bin/sh", args=("-c", script), env={"LCINIT_EVENT_LOOP": loop}) as container:
        result = outcome(container, 60)
    found = {word: int(code) for word, _, code in (line.rpartition(" = ") for line in result.said("code"))}
    assert found == expected, result


@pytest.mark.parametrize("manager", ["unshare", "runc", "nspawn", "lxc"])
def test_it_is_a_plain_container_init_under_every_manager(manager: str) -> None:
    script = "echo pid $$ of $PPID; (sleep 0.1 &); sleep 0.3; echo zombies $(cat /proc/*/stat | grep -c ') Z '); exit 7"
    result = boot(bare(script), driver=DRIVERS[manager], console="pty")
    assert re.search(r"^pid \d+ of 1$", "\n".join(result.lines), re.MULTILINE), result
    assert "zombies 0" in result.lines, result
    assert result.status == (0 if manager == "lxc" else 7), result  # lxc-start's own status does not tell


def test_a_guest_needs_nothing_but_the_command() -> None:
    result = boot(in_guest("command -v python3 || echo none; echo $$ $PPID; cat /proc/self/uid_map; exit 5"))
    assert "none" in result.lines, result
    assert re.search(r"^\d+ 1$", "\n".join(result.lines), re.MULTILINE), result
    assert result.status == 5


TELL = """
import select
got = []
numbers = set(range(1, 65)) - {9, 19, 32, 33}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
say("ready", "yes")
while True:
    info = signal.sigwaitinfo(numbers)
    say("got", info.si_signo)
    if info.si_signo == signal.SIGQUIT:
        sys.exit(3)
"""
KEPT = {signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGIO, signal.SIGPIPE}
TRANSLATED = {signal.SIGPWR, SIGRTMIN + 3, SIGRTMIN + 4}


@pytest.mark.parametrize("stop", [None, "SIGUSR1"])
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_signals_are_passed_on_as_the_table_says(loop: str, stop: str | None) -> None:
    keys = {**SHARED, "command": command(TELL), **({"stop": {"poweroff": stop}} if stop else {})}
    stop_signal = signal.SIGUSR1 if stop else signal.SIGTERM
    with start(python_configuration("", exec=keys), env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^ready")
        pid = container.pid1()
        wanted = []
        for number in [n for n in range(1, 65) if n not in (9, 19, 32, 33, signal.SIGQUIT)]:
            os.kill(pid, number)
            if number in KEPT:
                continue
            wanted.append(int(stop_signal if number in TRANSLATED else number))
            deadline = time.monotonic() + 5
            while len(Outcome(None, container.console().decode().splitlines()).said("got")) < len(wanted):
                assert time.monotonic() < deadline, f"{signal_name(number)} did not arrive: {container.console()!r}"
                time.sleep(0.002)
        os.kill(pid, signal.SIGQUIT)
        result = outcome(container, 10)
    assert [int(n) for n in result.said("got")] == [*wanted, signal.SIGQUIT], result
    assert result.status == 3


GROUP = "trap 'echo parent' USR2; (trap 'echo child; exit' USR2; echo up; while :; do sleep 0.05; done) & wait; wait"


@pytest.mark.parametrize(("to", "said"), [("group", {"parent", "child"}), ("process", {"parent"})])
def test_signals_go_to_the_command_or_to_its_group(to: str, said: set[str]) -> None:
    with start(in_guest(GROUP, exec={"forward_to": to})) as container:
        container.expect("^up")
        time.sleep(0.2)
        os.kill(container.pid1(), signal.SIGUSR2)
        time.sleep(0.5)
        lines = set(container.console().decode().splitlines())
    assert lines & {"parent", "child"} == said


TERMINAL = """
say("foreground", os.tcgetpgrp(0) == os.getpgrp())
say("leader", os.getpgrp() == os.getpid())
def interrupted(*_):
    say("interrupted", "yes")
    sys.exit(6)
signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGWINCH, lambda *_: say("resized", os.get_terminal_size(0).columns))
say("ready", "yes")
while True:
    signal.pause()
"""


@pytest.mark.parametrize("manager", ["unshare", "nspawn", "lxc", "runc"])
def test_control_c_and_a_resize_reach_the_command_on_a_terminal(manager: str) -> None:
    import fcntl
    import struct
    import termios

    config = configuration(mapped=False, **BARE, exec={**SHARED, "command": command(TERMINAL)})
    with start(config, driver=DRIVERS[manager], console="pty") as container:
        container.expect("^ready")
        fcntl.ioctl(container._console_fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
        container.expect("^resized: 132")
        container.send(b"\x03")
        result = outcome(container, 10)
    assert result.said("foreground") == ["True"], result
    assert result.said("leader") == ["True"], result
    assert "interrupted: yes" in str(result), result
    assert result.status == (0 if manager == "lxc" else 6), result


def test_the_command_has_its_user_groups_limits_directory_and_environment() -> None:
    script = "id -u; id -g; id -G; ulimit -n; pwd; echo $GREETING"
    keys = {"user": 7, "group": 8, "groups": [9]}
    program = {"command": ["/bin/sh", "-c", script], "cwd": "/tmp", "environment": {"GREETING": "hello"}}
    config = configuration(None, exec={**SHARED, **keys, "command": program}, limits={"nofile": "100:200"})
    result = boot(config)
    assert result.status == 0, result
    assert [line for line in result.lines if not line.startswith("lcinit")][:6] == [
        "7",
        "8",
        "8 9",
        "100",
        "/tmp",
        "hello",
    ]


def test_a_command_that_ends_by_itself_is_started_again_until_it_is_asked_to_stop() -> None:
    with start(in_guest("echo began; exit 9", exec={"on_exit": "restart"})) as container:
        place = 0
        for wait in (1, 2):
            place = container.expect(rf"exit code 9; it is started again in {wait} s", 10, start=place).end()
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        result = outcome(container, 3)
        assert time.monotonic() - began < 1.5
    assert result.status == 9
    assert result.lines.count("began") == 2, result


def test_a_command_that_is_asked_to_stop_is_not_started_again() -> None:
    script = "trap 'exit 11' TERM; echo up; while :; do sleep 0.05; done"
    with start(in_guest(script, exec={"on_exit": "restart"})) as container:
        container.expect("^up")
        os.kill(container.pid1(), signal.SIGPWR)
        assert container.wait(5).status == 11


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_deadline_kills_a_command_that_ignores_its_stop_signal(loop: str) -> None:
    script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"
    with start(in_guest(script, shutdown={"timeout": "1s"}), env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("^up")
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        result = outcome(container, 5)
    assert 0.9 < time.monotonic() - began < 2
    assert result.status == 137
    assert any("has not ended within 1 s: killing it" in line for line in result.lines), result


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_a_stop_request_during_a_command_of_the_setup_ends_lcinit_and_that_command(signal_name: str) -> None:
    config = configuration(
        None, exec={**SHARED, "command": "/bin/true"}, setup={"mode": "auto", "before": ["sh -c 'echo up; sleep 1000'"]}
    )
    with start(config) as container:
        container.expect("^up")
        began = time.monotonic()
        number = getattr(signal, signal_name)
        os.kill(container.pid1(), number)
        result = outcome(container, 5)
    assert time.monotonic() - began < 1
    assert result.status == 128 + number
    assert len(result.errors()) == 1, result


def test_a_command_that_cannot_be_run_ends_as_in_a_shell() -> None:
    for program, status in (("/nowhere", 127), ("/etc/passwd", 126)):
        result = boot(configuration(None, exec={**SHARED, "command": program}))
        assert result.status == status, result
        assert len(result.errors()) == 1, result


def test_orphans_have_no_hold_on_the_end() -> None:
    result = boot(in_guest("setsid sleep 1000 & (sleep 1000 &); exit 12"))
    assert result.status == 12, result
