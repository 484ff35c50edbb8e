"""`lcinit demo`: it shows a rootless guest, and whatever ends it, nothing of it stays."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from lcinit.boot import cgroups
from lcinit.config.load import parse
from lcinit.linux import capabilities, files
from lcinit.tools import demo_report
from lcinit.tools.demo_guest import Shape, configuration
from tests.namespace.isolated import needs_root, run_isolated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_root

COMMAND = (sys.executable, "-m", "lcinit", "demo")
PATIENCE = 10.0


def demo(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def cgroups_left(of: int) -> list[str]:
    """What stands in this process' cgroup of the demo that had this PID."""
    hierarchy = cgroups.open_hierarchy()
    try:
        own = files.open_in_root(hierarchy, cgroups.own_path() or "/", os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(hierarchy)
    try:
        return [name for name in os.listdir(own) if name.startswith(f"lcinit-demo-{of}-")]
    finally:
        os.close(own)


def guests() -> set[str]:
    """PIDs of processes whose root has the demonstration's init, and of lcinit that is on its way there."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if b"/etc/demo-init" in words:
            found.add(name)
    return found


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_it_shows_a_rootless_guest_and_ends_with_0() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    begun = time.monotonic()
    done = demo()
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun < 10
    text = " ".join(done.stdout.split())
    assert "1: lcinit has handed PID 1 over" in text
    assert "the map is 0 1000000 65536" in text or "outside: the map is 0 " in text
    assert re.search(r"/usr \S+ ro nosuid nodev", text)
    assert "write to /usr refused: Read-only file system" in text
    assert "make a node of the machine's disk refused: Operation not permitted" in text
    assert "look through lcinit's /proc/PID/root refused: Permission denied" in text
    assert "WORKED" not in text
    assert "ended with status 0" in text
    assert "processes 1 demo-init: the guest sees neither lcinit nor the machine" in text
    assert re.search(r"reboot SIGRTMIN\+5 to lcinit: its init was asked, and was up again after [0-9]+ ms", text)
    assert re.search(r"poweroff SIGTERM to lcinit: the guest was gone after [0-9]+ ms, status 0", text)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_phases_of_the_plan_are_shown_with_their_times() -> None:
    lines = demo().stdout.splitlines()
    assert [line.split()[0] for line in lines if re.fullmatch(r"  [a-z.]+ +[0-9]+ ms.*", line)] == [
        "setup.before",
        "setup",
        "root",
    ]
    steps = demo("--steps").stdout
    assert "map users 0 " in steps
    assert "pivot into the guest root" in steps


def test_its_configuration_is_shown_and_valid() -> None:
    done = demo("--show-config")
    assert done.returncode == 0
    config = parse(done.stdout.encode(), "shown")
    assert config.id_map is not None
    assert config.initctl is True
    assert [mount.target for mount in config.mounts] == ["/usr"]
    assert parse(configuration(Shape(users=1, groups=2, size=3), steps=True).encode(), "steps").log.level == "debug"
    assert parse(configuration(Shape(users=1, groups=2, size=3), stays=True).encode(), "stays").exec.mode == "tolerant"


def test_the_shell_runs_in_the_guest() -> None:
    done = demo("--shell", input="cat /proc/self/uid_map; echo pid $PPID; touch /usr/x; exit\n")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^ +0 +[1-9][0-9]+ +[0-9]+\r?$", done.stdout, re.MULTILINE)
    assert re.search(r"^(\x1b\[\?2004l\r)?pid 1\r?$", done.stdout, re.MULTILINE)
    assert "Read-only file system" in done.stdout


def test_the_end_of_input_ends_the_shell() -> None:
    assert demo("--shell", stdin=subprocess.DEVNULL).returncode == 0


class OnTerminal:
    """A demo with --shell on a terminal of its own; `said` is what the terminal shows."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (33, 99))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*COMMAND, "--shell"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        self.said = ""

    def expect(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.said):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not said but {self.said!r}"
            if select.select([self.master], [], [], left)[0]:
                self.said += os.read(self.master, 65536).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self.slave)
        os.close(self.master)


def test_the_shell_has_a_terminal_of_the_same_size_and_gives_the_callers_back() -> None:
    terminal = OnTerminal()
    try:
        terminal.expect("ctrl-D ends")
        terminal.type("stty size\n")
        terminal.expect("[\\r\\n]33 99")
        terminal.type("sleep 100\n")
        terminal.expect("sleep 100")
        time.sleep(0.2)
        terminal.type("\x03echo still $((40 + 2))\n")  # ctrl-C ends the command, not the guest
        terminal.expect("still 42")
        terminal.type("exit\n")
        wait_until(lambda: terminal.process.poll() is not None)
        assert terminal.process.returncode == 0
        assert termios.tcgetattr(terminal.slave) == terminal.before
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("signo", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_it_and_nothing_stays(signo: int, code: int) -> None:
    def inside() -> None:
        terminal = OnTerminal()
        try:
            terminal.expect("ctrl-D ends")
            assert guests()
            assert cgroups_left(terminal.process.pid)
            terminal.process.send_signal(signo)
            assert terminal.process.wait(PATIENCE) == code
            wait_until(lambda: not guests())
            wait_until(lambda: not cgroups_left(terminal.process.pid))
            if signo != signal.SIGKILL:
                assert termios.tcgetattr(terminal.slave) == terminal.before
        finally:
            terminal.close()

    run_isolated(inside, pid=True)


def test_a_kill_at_any_moment_leaves_nothing() -> None:
    def inside() -> None:
        for delay in range(0, 200, 20):
            process = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay / 1000)
            process.kill()
            process.wait(PATIENCE)
            wait_until(lambda: not guests())
            wait_until(lambda: not cgroups_left(process.pid))  # noqa: B023

    run_isolated(inside, pid=True, timeout=60)


def test_without_root_it_names_sudo() -> None:
    # everything is imported first: others may not be able to read this interpreter's library
    script = (
        "import os, sys, argparse, locale, shutil, lcinit.cli.demo, lcinit.tools.demo; "
        "from lcinit.cli.main import main; "
        "os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3); sys.exit(main(['lcinit', 'demo']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 77
    assert "sudo lcinit demo" in done.stderr


@pytest.mark.parametrize("name", ["sys_admin", "setuid", "chown"])
def test_without_a_needed_capability_it_names_the_doctor_and_leaves_nothing(name: str) -> None:
    def inside() -> None:
        capabilities.drop_bounding([capabilities.CAPABILITIES[name]])
        done = demo()
        assert done.returncode in (71, 77)
        assert "lcinit doctor" in done.stderr
        assert not guests()

    run_isolated(inside, pid=True)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(closed: str) -> None:
    def inside() -> None:
        process = subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND], stdout=subprocess.DEVNULL)
        assert process.wait(30) == 0
        assert not cgroups_left(process.pid)
        assert not guests()

    run_isolated(inside, pid=True)


def test_output_that_cannot_be_written_is_one_line_and_leaves_nothing() -> None:
    def inside() -> None:
        with open("/dev/full", "w") as full:
            done = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 71
        assert "Traceback" not in done.stderr
        assert "No space left on device" in done.stderr
        assert not guests()

    run_isolated(inside, pid=True)


REPORT = (
    "pid\t1",
    "uid\t0",
    "uid_map\t         0    1000000      65536",
    "hostname\tdemo",
    "capabilities\t000001ffffffffff",
    "mount\t1 2 0:3 / /usr ro,nosuid,nodev shared:1 - ext4 /dev/vda rw",
    "noise that is no report",
    *(f"try {name}\trefused: no" for name in demo_report.ATTEMPTS),
    "ready\t",
)


def test_an_attempt_that_succeeds_is_told_and_counted() -> None:
    assert demo_report.broken(demo_report.parse(list(REPORT))) == []
    lines = [line.replace("refused: no", "WORKED") if "usr-write" in line else line for line in REPORT]
    report = demo_report.parse(lines)
    assert demo_report.broken(report) == ["write to /usr"]
    assert "IT WORKED, and must not" in demo_report.refused(report)


def test_an_attempt_that_was_not_reported_counts_as_a_success() -> None:
    report = demo_report.parse([line for line in REPORT if "usr-write" not in line])
    assert demo_report.broken(report) == ["write to /usr"]
