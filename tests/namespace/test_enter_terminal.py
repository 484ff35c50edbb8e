"""`inject` from a terminal: the guest's own terminal, job control, size, and the caller's given back as it was."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from tests.namespace.enter_rig import LCINIT, SHIFT, Rig, Terminal
from tests.namespace.isolated import needs_root

pytestmark = needs_root


@pytest.fixture(scope="module", params=[True, False], ids=["mapped", "unmapped"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig(mapped=request.param) as rig:
        yield rig


def inject(rig: Rig, *argv: str, **options: object) -> Terminal:
    return Terminal(*LCINIT, "inject", str(rig.pid), "--", *argv, **options)  # type: ignore[arg-type]


def shell(rig: Rig, **options: object) -> Terminal:
    """An interactive shell in the guest, at its prompt."""
    terminal = inject(rig, "env", "PS1=[$?]% ", "bash", "--norc", "--noprofile", "+o", "history", "-i", **options)
    terminal.expect(r"\[0\]% ")
    return terminal


def test_the_terminal_is_of_the_guests_devpts_and_its_roots(rig: Rig) -> None:
    owner = SHIFT if rig.mapped else 0
    with inject(rig, "sh", "-c", "tty; stat -c 'owner %u' $(tty); ps -o tty= $$ | xargs; read x") as terminal:
        assert terminal.expect(r"^(/dev/pts/\d+)\r$")[1]
        terminal.expect(r"^owner 0\r$")
        terminal.expect(r"^pts/\d+\r$")
        outer = os.stat(f"/proc/{rig.pid}/root/dev/pts/0")
        assert outer.st_uid == owner
        assert outer.st_dev != os.fstat(terminal.slave).st_dev
        terminal.type("\r")
        assert terminal.wait() == 0


def test_a_guest_without_a_devpts_gives_no_terminal(guest_root: Callable[[str], str]) -> None:
    bare = Rig(chroot=guest_root("plain"), argv=("/bin/sh", "-c", "sleep 1000"), mapped=False)
    with bare as rig, inject(rig, "/bin/sh") as terminal:
        assert terminal.wait() == 71
        assert b"cannot make a terminal in the guest: " in terminal.output
        assert b"redirect standard input or output, so that it needs none" in terminal.output


def test_a_user_owns_the_terminal(rig: Rig) -> None:
    with Terminal(
        *LCINIT, "inject", "-u", "daemon", str(rig.pid), "--", "sh", "-c", "stat -c 'owner %u' $(tty)"
    ) as terminal:
        terminal.expect(r"^owner 1\r$")
        assert terminal.wait() == 0


def test_without_a_command_the_shell_of_the_account_runs_as_a_login_shell(rig: Rig) -> None:
    with Terminal(*LCINIT, "inject", str(rig.pid)) as terminal:
        terminal.type("shopt login_shell; exit 9\r")
        terminal.expect(r"login_shell\s+on\r$")
        assert terminal.wait() == 9


def test_the_size_is_passed_on(rig: Rig) -> None:
    with inject(
        rig, "sh", "-c", "stty size; trap 'stty size' WINCH; echo on; while :; do sleep 0.1; done", size=(33, 101)
    ) as terminal:
        terminal.expect(r"^33 101\r$")
        terminal.expect(r"^on\r$")
        terminal.resize(40, 120)
        terminal.expect(r"^40 120\r$")


def test_a_terminal_without_a_size_stays_without_one(rig: Rig) -> None:
    with inject(rig, "stty", "size", size=(0, 0)) as terminal:
        terminal.expect(r"^0 0\r$")
        assert terminal.wait() == 0


def test_editing_keys_are_those_of_the_callers_terminal(rig: Rig) -> None:
    with Terminal("sh", "-c", f"stty erase ^H intr ^K; exec {_words(rig)} stty -a") as terminal:
        terminal.expect(r"intr = \^K;(.|\n)* erase = \^H;")
        assert terminal.wait() == 0


def _words(rig: Rig) -> str:
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in [*LCINIT, "inject", str(rig.pid), "--"])


def test_ctrl_c_is_for_the_foreground_job(rig: Rig) -> None:
    with shell(rig) as terminal:
        terminal.type("sleep 60\r")
        time.sleep(0.3)
        terminal.type("\x03")
        terminal.expect(r"\[130\]% ")
        terminal.type("exit 4\r")
        assert terminal.wait() == 4


def test_ctrl_z_stops_the_guests_job_and_not_the_caller(rig: Rig) -> None:
    with shell(rig) as terminal:
        terminal.type("sleep 0.7 && echo slept\r")
        time.sleep(0.2)
        terminal.type("\x1a")
        terminal.expect(r"Stopped")
        terminal.expect(r"\[148\]% ")
        terminal.type("fg\r")
        terminal.expect(r"\[0\]% ")
        terminal.type("exit\r")
        assert terminal.wait() == 0


def test_the_terminal_is_raw_meanwhile_and_given_back(rig: Rig) -> None:
    with shell(rig) as terminal:
        assert terminal.attributes()[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == 0  # type: ignore[operator]
        terminal.type("exit\r")
        assert terminal.wait() == 0
        assert terminal.attributes() == terminal.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_hangs_up_and_the_terminal_is_given_back(rig: Rig, number: int) -> None:
    mark = f"/tmp/lcinit-hangup-{os.getpid()}-{number}-{rig.mapped}"
    job = f"trap 'echo hup > {mark}; exit' HUP; echo ready; while :; do sleep 0.1; done"
    try:
        with inject(rig, "sh", "-c", job) as terminal:
            terminal.expect("^ready")
            terminal.process.send_signal(number)
            assert terminal.wait() == 128 + number
            assert terminal.attributes() == terminal.before
        with open(mark, encoding="utf-8") as file:
            assert file.read() == "hup\n"
    finally:
        if os.path.exists(mark):
            os.unlink(mark)


def test_a_closed_window_hangs_up_the_guests_job(rig: Rig) -> None:
    with shell(rig) as terminal:
        terminal.type("sleep 4242\r")
        _await(lambda: _runs(rig, b"sleep\x004242\x00"))
        os.close(terminal.slave)
        os.close(terminal.master)
        terminal.slave = terminal.master = -1
        assert terminal.process.wait(10) == 128 + signal.SIGHUP
        _await(lambda: not _runs(rig, b"sleep\x004242\x00"))


def test_a_caller_that_is_killed_hangs_up_too(rig: Rig) -> None:
    with shell(rig) as terminal:
        terminal.type("sleep 4343\r")
        _await(lambda: _runs(rig, b"sleep\x004343\x00"))
        terminal.process.kill()
        _await(lambda: not _runs(rig, b"sleep\x004343\x00"))


def _runs(rig: Rig, command_line: bytes) -> bool:
    with open(f"{rig.cgroup}/cgroup.procs", encoding="utf-8") as file:
        pids = file.read().split()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as found:
                if found.read() == command_line:
                    return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


def _await(condition: object, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_three_escapes_hang_up(rig: Rig) -> None:
    with inject(rig, "sh", "-c", "trap '' INT; echo ready; sleep 60") as terminal:
        terminal.expect("^ready")
        terminal.type("\x1d\x1d")
        time.sleep(0.8)
        terminal.type("\x1dx\x1d\x1d")
        time.sleep(0.2)
        assert terminal.process.poll() is None
        terminal.type("\x1d")
        assert terminal.wait() == 129
        assert terminal.attributes() == terminal.before


def test_the_way_out_works_while_the_guest_writes_all_the_time(rig: Rig) -> None:
    for _ in range(5):
        with inject(rig, "sh", "-c", "echo ready; exec yes") as terminal:
            terminal.expect("^ready")
            terminal.type("\x1d\x1d\x1d")
            assert terminal.wait() == 129
            assert terminal.attributes() == terminal.before


def test_escapes_that_are_no_way_out_are_typed(rig: Rig) -> None:
    with inject(rig, "sh", "-c", "stty raw -echo; echo ready; head -c 5 | od -An -tx1") as terminal:
        terminal.expect("^ready")
        terminal.type("\x1da\x1d\x1d")
        time.sleep(0.8)
        terminal.type("b")
        terminal.expect("1d 61 1d 1d 62")
        assert terminal.wait() == 0


def test_standard_error_stays_apart_where_it_is_redirected(rig: Rig, tmp_path: object) -> None:
    with (
        open(f"{tmp_path}/errors", "wb") as errors,
        inject(rig, "sh", "-c", "echo out; echo err >&2", stderr=errors) as terminal,
    ):
        terminal.expect(r"^out\r$")
        assert terminal.wait() == 0
    with open(f"{tmp_path}/errors", "rb") as file:
        assert file.read() == b"err\n"


@pytest.mark.parametrize("redirected", ["stdin", "stdout"])
def test_no_terminal_unless_input_and_output_are_one(rig: Rig, redirected: str) -> None:
    pipe = subprocess.DEVNULL if redirected == "stdin" else subprocess.PIPE
    with inject(rig, "sh", "-c", "tty >&2; test -t 1 && echo no >&2; exit 0", **{redirected: pipe}) as terminal:
        terminal.expect(r"^not a tty\r$")
        assert terminal.wait() == 0
        assert b"no" not in terminal.output.replace(b"not", b"")
        if terminal.process.stdout is not None:
            terminal.process.stdout.close()


def test_ctrl_c_without_a_terminal_in_the_guest_ends_the_command(rig: Rig) -> None:
    with inject(rig, "sh", "-c", "echo ready >&2; exec sleep 60", stdout=subprocess.DEVNULL) as terminal:
        terminal.expect("^ready")
        terminal.type("\x03")
        assert terminal.wait() == 130


def test_the_end_of_the_guest_is_told_on_a_terminal_that_works() -> None:
    with Rig() as rig, shell(rig) as terminal:
        os.kill(rig.pid, signal.SIGKILL)
        assert terminal.wait() == 137
        assert b"inject: the guest ended, and the command with it\r\n" in terminal.output
        assert terminal.attributes() == terminal.before


def test_a_lot_of_output_comes_through_whole(rig: Rig) -> None:
    with inject(rig, "sh", "-c", "stty -opost; seq 1 200000; echo end") as terminal:
        terminal.wait(60)
        lines = terminal.output.split()
        assert lines == [b"%d" % number for number in range(1, 200001)] + [b"end"]


def test_a_shell_that_closes_its_terminal_costs_no_cpu(rig: Rig) -> None:
    with inject(rig, "sh", "-c", "echo ready; exec < /dev/null > /dev/null 2>&1; sleep 2; exit 6") as terminal:
        terminal.expect("^ready")
        time.sleep(0.3)
        before = _ticks(terminal.process.pid)
        time.sleep(1)
        assert _ticks(terminal.process.pid) - before <= 5  # of a hundred
        assert terminal.wait() == 6


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_suspended_by_a_signal_it_gives_the_terminal_back_until_it_goes_on(rig: Rig) -> None:
    with shell(rig) as terminal:
        terminal.process.send_signal(signal.SIGTSTP)
        _await(lambda: terminal.attributes() == terminal.before)
        terminal.resize(50, 150)
        terminal.process.send_signal(signal.SIGCONT)
        _await(lambda: terminal.attributes() != terminal.before)
        terminal.type("stty size\r")
        terminal.expect(r"50 150\r$")


@pytest.mark.row(19)
def test_what_the_command_types_into_its_terminal_is_not_typed_into_the_callers(rig: Rig) -> None:
    script = """
import fcntl, termios
for name, request, argument in (("TIOCSTI", termios.TIOCSTI, b"#"), ("TIOCLINUX", 0x541C, b"\\x02" + bytes(20))):
    for fd in (0, 1, 2):
        try:
            fcntl.ioctl(fd, request, argument)
            print(name, fd, "done")
        except OSError as error:
            print(name, fd, error.errno)
import os
try:
    os.open("/dev/tty", os.O_RDWR)
except OSError as error:
    print("tty", error.errno)
print("the end")
input()
"""
    with inject(rig, "/usr/bin/python3", "-ISc", script) as terminal:
        terminal.expect(r"^the end\r$")
        terminal.type("\r")
        assert terminal.wait() == 0
        assert _queued(terminal) == 0


@pytest.mark.row(19)
@pytest.mark.parametrize("terminal_for", ["stdout", "stdin"])
def test_without_a_terminal_in_the_guest_the_callers_is_out_of_reach(rig: Rig, terminal_for: str) -> None:
    script = """
import os
for name in ("/dev/tty", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"):
    try:
        fd = os.open(name, os.O_RDWR | os.O_NONBLOCK)
        os.write(2, f"{name} {os.isatty(fd)}\\n".encode())
    except OSError as error:
        os.write(2, f"{name} {error.errno}\\n".encode())
os.write(2, b"the end\\n")
"""
    redirected = {"stdout": "stdin", "stdin": "stdout"}[terminal_for]
    with inject(rig, "/usr/bin/python3", "-ISc", script, **{redirected: subprocess.DEVNULL}) as terminal:
        found = terminal.expect(r"(?s).*the end")[0]
        assert terminal.wait() == 0
        assert b"True" not in found
        assert b"/dev/tty 6" in found  # ENXIO: no controlling terminal
        assert _queued(terminal) == 0


def _queued(terminal: Terminal) -> int:
    """Bytes in the input queue of the caller's terminal; the line discipline's canonical mode is taken off to count."""
    attributes = termios.tcgetattr(terminal.slave)
    attributes[3] &= ~termios.ICANON
    termios.tcsetattr(terminal.slave, termios.TCSANOW, attributes)
    return struct.unpack("i", fcntl.ioctl(terminal.slave, termios.FIONREAD, bytes(4)))[0]  # type: ignore[no-any-return]
