"""`lcinit attach` and `lcinit console` beside a lcinit that supervises a guest."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.hostile.attempt import ID_MAP, configuration, start
from tests.lab import guests
from tests.lab.container import Container
from tests.namespace.enter_rig import LCINIT, PYTHON, Terminal
from tests.namespace.isolated import needs_root

pytestmark = needs_root

# an init that says its lines, echoes what is typed, reaps, and ends when it is asked to
INIT = """
trap 'echo stopping; exit 0' TERM
echo first line
echo up as $$
while :; do if read -r line; then echo "typed <$line> $(stty size)"; else sleep 0.1; fi; done
"""


@pytest.fixture(scope="module", params=[True, False], ids=["mapped", "unmapped"])
def guest(request: pytest.FixtureRequest) -> Iterator[Container]:
    config = configuration(INIT, mapped=request.param, exec={"mode": "tolerant", "stop": {"poweroff": "SIGTERM"}})
    with start(config, console="pty") as running:
        running.expect(r"^up as 1\r*$", 20)
        yield running


def inside(guest: Container) -> list[str]:
    """What runs a command as root in the container, outside of the guest, as `podman exec` does."""
    return ["nsenter", "--target", str(guest.pid1()), "--all", "--root", "--wd", "--", "lcinit"]


def attach(guest: Container, *argv: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 20, **options}
    if "input" in options:
        del options["stdin"]
    return subprocess.run([*inside(guest), "attach", *argv], **options)  # type: ignore[call-overload,no-any-return]


def test_a_command_runs_in_the_guest_as_its_root(guest: Container) -> None:
    script = "id -u; cat /proc/self/cgroup | tail -n 1; cat /proc/1/comm; echo $container; pwd"
    done = attach(guest, "--", "/bin/sh", "-c", script)
    assert done.stdout.decode().split() == ["0", "0::/", "sh", "lcinit", "/"], done
    assert done.returncode == 0
    theirs = os.readlink(f"/proc/{guest.guest_pid1()}/ns/mnt")
    assert attach(guest, "--", "readlink", "/proc/self/ns/mnt").stdout.decode().strip() == theirs


def test_pipes_and_exit_codes(guest: Container) -> None:
    done = attach(guest, "--", "/bin/sh", "-c", "cat; echo err >&2; exit 23", input=b"through\0\xff")
    assert (done.stdout, done.stderr, done.returncode) == (b"through\0\xff", b"err\n", 23)
    assert attach(guest, "nothing-of-this-name").returncode == 127


def test_without_a_command_it_is_a_shell_on_a_terminal_of_the_guests(guest: Container) -> None:
    with Terminal(*inside(guest), "attach") as terminal:
        terminal.type("tty; echo $((6 * 7)); exit 3\r")
        terminal.expect(r"/dev/pts/[1-9]\d*\r$")
        terminal.expect(r"42\r$")
        assert terminal.wait() == 3


def test_what_cannot_be_run_is_told(guest: Container) -> None:
    assert attach(guest, "-u", "no-such-user").returncode == 78
    assert attach(guest, "--no-such-option").returncode == 64


def test_that_no_lcinit_is_there_is_told(guest: Container) -> None:
    done = subprocess.run(
        [*inside(guest), "attach", "--socket", "/nowhere"], capture_output=True, timeout=20, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 71
    assert b"no lcinit supervises a guest here: nobody serves /nowhere" in done.stderr


def test_another_pid_namespace_is_refused(guest: Container) -> None:
    """From outside, the guest's number would mean another process."""
    socket = f"/proc/{guest.pid1()}/root/run/lcinit/control"
    done = subprocess.run(
        [*LCINIT, "attach", "--socket", socket, "--", "true"], capture_output=True, timeout=20, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 71
    assert b"counts processes in another PID namespace; use `lcinit inject %d`" % guest.pid1() in done.stderr
    done = subprocess.run(
        [*LCINIT, "inject", str(guest.guest_pid1()), "--", "cat", "/proc/1/comm"],
        capture_output=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout == b"sh\n"


def test_the_console_shows_what_was_before_and_takes_what_is_typed(guest: Container) -> None:
    with Terminal(*inside(guest), "console", size=(31, 97)) as terminal:
        terminal.expect(r"^first line\r$")
        terminal.expect(r"^up as 1\r$")
        terminal.type("hello\r")
        terminal.expect(r"^typed <hello> 31 97\r$")
        guest.expect(r"^typed <hello> 31 97\r*$", 10)
        terminal.resize(40, 100)
        time.sleep(0.3)
        terminal.type("again\r")
        terminal.expect(r"^typed <again> 40 100\r$")
        terminal.type("\x1d\x1d\x1d")
        assert terminal.wait() == 0
        assert b"lcinit console: detached" in terminal.output
        assert terminal.attributes() == terminal.before


def test_two_look_at_the_console_at_once(guest: Container) -> None:
    with Terminal(*inside(guest), "console") as one, Terminal(*inside(guest), "console") as other:
        for each in (one, other):
            each.expect(r"^up as 1\r$")
        one.type("from one\r")
        other.expect(r"^typed <from one> ")
        one.type("\x1d\x1d\x1d")
        assert one.wait() == 0
        other.type("from other\r")
        other.expect(r"^typed <from other> ")


def test_the_console_without_a_terminal(guest: Container) -> None:
    command = [*inside(guest), "console"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"from a pipe\n")
        process.stdin.close()
        shown = b""
        deadline = time.monotonic() + 10
        while b"typed <from a pipe>" not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(process.stdout.fileno(), 4096)
        process.terminate()


def test_the_guests_end_ends_a_shell_in_it_and_the_console_goes_on_with_the_next() -> None:
    config = configuration(INIT, exec={"mode": "tolerant", "on_exit": "restart"})
    with start(config, console="pty") as running:
        running.expect(r"^up as 1\r*$", 20)
        with Terminal(*inside(running), "console") as console, Terminal(*inside(running), "attach") as shell:
            console.expect(r"^up as 1\r$")
            shell.type("echo $((6 * 7))\r")
            shell.expect(r"42\r$")
            os.kill(running.guest_pid1(), signal.SIGKILL)
            assert shell.wait() == 137
            assert b"lcinit attach: the guest ended, and the command with it" in shell.output
            assert shell.attributes() == shell.before
            console.expect(r"^up as 1\r$")
            console.type("to the next\r")
            console.expect(r"^typed <to the next> ")


@pytest.mark.parametrize("name", ["systemd252"])
def test_a_systemd_guest_is_entered(name: str, boot_root: str) -> None:
    config = configuration(mapped=False, exec={"mode": "tolerant"})
    with start(config, guest=guests.guest(name), console="pty") as running:
        deadline = time.monotonic() + 20
        while True:
            done = attach(running, "--", "systemctl", "is-system-running", "--wait")
            if done.returncode == 0 and b"running" in done.stdout:
                break
            assert time.monotonic() < deadline, done
            time.sleep(0.2)
        done = attach(running, "--", "cat", "/proc/self/cgroup", "/proc/1/comm")
        assert done.stdout.splitlines()[-2:] == [b"0::/init.scope", b"systemd"]
        with Terminal(*inside(running), "attach", "-u", "daemon", "--", "/bin/sh") as shell:
            shell.type("id -un; stat -c %U $(tty); exit\r")
            shell.expect(r"daemon\r$")
            shell.expect(r"daemon\r$")
            assert shell.wait() == 0
        done = attach(running, "--", "systemctl", "poweroff")
        assert done.returncode in (0, 137), done
        assert running.wait(30).status is not None


# Answers Status as it is told to: a value for each call, the last one from then on.
FORGED = r"""
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
answers = json.loads(sys.argv[2])
print("ready", flush=True)
while True:
    client, _ = server.accept()
    if client.recv(65536):
        guest = answers.pop(0) if len(answers) > 1 else answers[0]
        status = {"pid": os.getpid(), "state": "restarting", "guest": guest}
        client.sendall(json.dumps({"parameters": {"status": status}}).encode() + b"\0")
    client.close()
"""


def asked_of_a_forgery(answers: list[object]) -> tuple[int, bytes, int]:
    """The exit code and the error of an attach to a server that gives these answers, and the server's PID."""
    path = f"/tmp/lcinit-forged-{os.getpid()}-{time.monotonic_ns()}"
    server = subprocess.Popen([PYTHON, "-c", FORGED, path, json.dumps(answers)], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        done = subprocess.run([*LCINIT, "attach", "--socket", path, "--", "true"], capture_output=True, timeout=20)
        return done.returncode, done.stderr, server.pid
    finally:
        server.kill()
        server.communicate()
        os.unlink(path)


@pytest.mark.row(21)
def test_a_process_that_is_no_child_of_who_answers_is_not_entered(guest: Container) -> None:
    code, error, server = asked_of_a_forgery([{"pid": guest.guest_pid1(), "started": 1.0}])
    assert code == 71
    assert re.search(rb"process \d+ is not a child of lcinit \(%d\)" % server, error), error


@pytest.mark.row(21)
def test_a_guest_that_was_started_anew_meanwhile_is_not_entered(guest: Container) -> None:
    pid = guest.guest_pid1()
    code, error, _ = asked_of_a_forgery([{"pid": pid, "started": 1.0}, {"pid": pid, "started": 2.0}])
    assert (code, error) == (71, b"lcinit attach: the guest was started anew just now; try again\n")


def test_that_there_is_no_guest_is_told() -> None:
    code, error, _ = asked_of_a_forgery([None])
    assert (code, error) == (71, b"lcinit attach: there is no guest to enter: it is restarting\n")


def test_the_map_is_the_guests(guest: Container) -> None:
    mapped = attach(guest, "--", "cat", "/proc/self/uid_map").stdout.split()
    with open(f"/proc/{guest.guest_pid1()}/uid_map", encoding="utf-8") as file:
        outer = file.read().split()
    assert mapped[0] == b"0" and outer[0] == "0"
    assert (outer[1] != "0") == (outer[2] == ID_MAP["users"].split()[2])
