"""The keeper beside a real PID 1, in a PID and mount namespace of their own: the FIFO, the signals, the console."""

import contextlib
import fcntl
import itertools
import os
import pty
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcinit.control.initctl import INIT_CMD_SETENV, Request, runlevel_request

ROOT = str(Path(__file__).parents[2])
KEEPER = [
    "-I",
    "-S",
    "-c",
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from lcinit.control.keeper import main; sys.exit(main(sys.argv[1:]))",
    ROOT,
]
POWEROFF, REBOOT = runlevel_request("0").pack(), runlevel_request("6").pack()

# PID 1 of the tests: starts the keeper with what it was given, says which signals came, and reaps.
PID1 = r"""
import os, signal, sys, time
delay, catch, said, keeper = float(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
pid = os.fork()
if pid == 0:
    os.execv(sys.executable, ["@lcinit", *keeper])
os.write(said, b"keeper\n")
def note(number, frame):
    os.write(said, b"%d\n" % number)
time.sleep(delay)
for name in catch.split(","):
    if name:
        signal.signal(int(name), note)
while True:
    try:
        if os.waitpid(-1, 0)[0] == pid:
            os.write(said, b"keeper ended\n")
    except ChildProcessError:
        time.sleep(1)
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for PID and mount namespaces")


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


class Guest:
    """A PID 1 and its keeper, seen from outside their PID namespace."""

    def __init__(
        self, dev: Path, catch: list[int], delay: float = 0, options: list[str] | None = None, **streams
    ) -> None:
        self.dev = dev
        self.fifo = dev / "initctl"
        handle = os.open(dev, os.O_PATH | os.O_DIRECTORY)
        self.said, said = os.pipe()
        ready, ready_end = os.pipe()
        os.set_blocking(self.said, False)
        options = options or []
        passed = [
            handle,
            said,
            ready_end,
            *(int(value) for name, value in itertools.pairwise(options) if name in ("--console", "--started")),
        ]
        command = [
            "unshare",
            "--pid",
            "--mount",
            "--fork",
            "--mount-proc",
            "--kill-child",
            sys.executable,
            "-I",
            "-c",
            PID1,
        ]
        command += [str(delay), ",".join(map(str, catch)), str(said), *KEEPER]
        command += ["--initctl-dir", str(handle), "--owner", "1234:4321", "--ready", str(ready_end), *options]
        self.log = dev.parent / "log"
        with self.log.open("wb") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": log} | streams
            self.process = subprocess.Popen(command, pass_fds=passed, **streams)
        for fd in (handle, said, ready_end):
            os.close(fd)
        said_ready = select.select([ready], [], [], 10)[0] and os.read(ready, 1) == b"1"
        os.close(ready)
        if not said_ready:
            self.close()
        assert said_ready, self.log.read_text()
        self.text = ""
        assert wait_until(lambda: "keeper" in self.heard())

    def heard(self) -> str:
        """Everything that PID 1 said so far."""
        with contextlib.suppress(BlockingIOError):
            self.text += os.read(self.said, 65536).decode()
        return self.text

    def signals(self) -> list[int]:
        return [int(line) for line in self.heard().splitlines() if line.isdigit()]

    @property
    def pid(self) -> int:
        """The keeper's PID out here."""
        init = int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])
        children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        return next(int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "lcinit-keeper\n")

    def wake_ups(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)

    def ticks(self) -> int:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def alive(self) -> bool:
        return "keeper ended" not in self.heard()

    def write(self, data: bytes) -> None:
        fd = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self.said)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Guest]]:
    guests: list[Guest] = []
    dev = tmp_path / "dev"
    dev.mkdir()

    def starter(catch: list[int] | None = None, **options) -> Guest:
        guests.append(Guest(dev, catch or [], **options))
        return guests[-1]

    yield starter
    for guest in guests:
        guest.close()


SIGNALS = ["--poweroff", "SIGRTMIN+4", "--halt", "SIGRTMIN+3", "--reboot", "SIGRTMIN+5"]
HALT, OFF, AGAIN = signal.SIGRTMIN + 3, signal.SIGRTMIN + 4, signal.SIGRTMIN + 5


def test_the_fifo_is_the_guest_roots_alone(start) -> None:
    status = os.lstat(start().fifo)
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_runlevels_become_the_signals_of_the_guests_init(start) -> None:
    guest = start([HALT, OFF, AGAIN], options=SIGNALS)
    guest.write(REBOOT)
    assert wait_until(lambda: guest.signals() == [AGAIN])
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [AGAIN, OFF])
    guest.write(Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=HALT").pack() + POWEROFF)
    assert wait_until(lambda: guest.signals() == [AGAIN, OFF, HALT])


@pytest.mark.row(27)
def test_broken_frames_cost_nothing_and_hide_no_request(start) -> None:
    guest = start([OFF], options=SIGNALS)
    for broken in (b"x", REBOOT[:383], b"\xff" * 385, b"\0" * 768, b"\1" + REBOOT[1:]):
        guest.write(broken)
        time.sleep(0.02)
    time.sleep(0.5)  # what was written is read by now
    before = guest.ticks()
    time.sleep(2)
    # one of the broken frames asks for a reboot that this init does not listen to: it is looked at four times a second
    assert guest.ticks() <= before + 1
    assert guest.signals() == []
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [OFF])


@pytest.mark.row(27)
def test_a_flood_costs_little_and_is_not_kept(start) -> None:
    guest = start([OFF], options=SIGNALS)
    end = time.monotonic() + 2
    fd = os.open(guest.fifo, os.O_WRONLY | os.O_NONBLOCK)
    before, switches = guest.ticks(), guest.wake_ups()
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            os.write(fd, os.urandom(4096))
        time.sleep(0.0005)
    os.close(fd)
    assert guest.ticks() - before < 20, "more than a tenth of a processor"
    assert guest.wake_ups() - switches < 100
    time.sleep(0.5)
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [OFF])
    assert pss_kib(guest.pid) < 9 * 1024


@pytest.mark.row(28)
@pytest.mark.parametrize("planted", ["symlink", "file", "directory", "fifo", "nothing", "renamed-over", "moved-away"])
def test_a_replaced_fifo_is_made_again_and_what_replaced_it_is_not_touched(start, tmp_path, planted: str) -> None:
    guest = start([OFF], options=SIGNALS)
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    if planted == "renamed-over":
        (guest.dev / "other").write_text("x")
        os.rename(guest.dev / "other", guest.fifo)
    elif planted == "moved-away":
        os.rename(guest.fifo, guest.dev / "elsewhere")
    else:
        os.unlink(guest.fifo)
        if planted == "symlink":
            os.symlink(canary, guest.fifo)
        elif planted == "file":
            os.link(canary, guest.fifo)
        elif planted == "directory":
            guest.fifo.mkdir()
        elif planted == "fifo":
            os.mkfifo(guest.fifo, 0o666)
    before = os.stat(canary)

    def restored() -> bool:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(guest.fifo)
            return stat.S_ISFIFO(status.st_mode) and status.st_uid == 1234
        return False

    assert wait_until(restored)
    assert stat.S_IMODE(os.lstat(guest.fifo).st_mode) == 0o600
    assert canary.read_text() == "untouched"
    assert (os.stat(canary).st_uid, os.stat(canary).st_mode) == (before.st_uid, before.st_mode)
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [OFF])


@pytest.mark.row(28)
def test_a_full_directory_in_the_way_is_survived(start) -> None:
    guest = start([OFF], options=SIGNALS)
    os.unlink(guest.fifo)
    guest.fifo.mkdir()
    (guest.fifo / "in").touch()
    time.sleep(0.5)
    before = guest.ticks()
    time.sleep(0.5)
    assert guest.ticks() - before <= 1
    shutil.rmtree(guest.fifo)
    assert wait_until(guest.fifo.is_fifo, 8)
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [OFF])


@pytest.mark.row(28)
def test_a_storm_of_replacements_ends_with_our_fifo(start) -> None:
    guest = start([OFF], options=SIGNALS)
    canary = guest.dev.parent / "canary"
    canary.write_text("untouched")
    end = time.monotonic() + 2
    before = guest.ticks()
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            os.unlink(guest.fifo)
        with contextlib.suppress(OSError):
            os.symlink(canary, guest.fifo)
    assert guest.ticks() - before < 40
    assert wait_until(lambda: guest.fifo.is_fifo() and not guest.fifo.is_symlink())
    assert canary.read_text() == "untouched"
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [OFF])


def test_a_request_waits_for_a_handler(start) -> None:
    guest = start([OFF], delay=1.5, options=SIGNALS)
    guest.write(POWEROFF)
    time.sleep(0.7)
    assert guest.signals() == []
    assert wait_until(lambda: guest.signals() == [OFF])


def test_an_init_that_shows_no_handler_is_asked_again(start) -> None:
    guest = start([OFF], delay=0.5, options=[*SIGNALS, "--repeat"])
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [OFF])


def test_no_signal_is_sent_before_pid_1_is_the_guests(start) -> None:
    reading, writing = os.pipe()
    guest = start([OFF], options=[*SIGNALS, "--started", str(reading)])
    os.close(reading)
    guest.write(POWEROFF)
    time.sleep(0.5)
    assert guest.signals() == []
    os.close(writing)
    assert wait_until(lambda: guest.signals() == [OFF])


def test_what_a_handed_off_guest_cannot_do_is_said_once(start) -> None:
    guest = start([OFF], options=SIGNALS[:2])
    guest.write(runlevel_request("3").pack() * 50 + REBOOT)
    assert wait_until(lambda: "runlevel 3: not supported" in guest.log.read_text())
    time.sleep(0.3)
    assert len(guest.log.read_text().splitlines()) <= 5
    assert guest.signals() == []


def test_signals_do_not_end_it(start) -> None:
    guest = start([OFF], options=SIGNALS)
    for number in (
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGIO,
    ):
        os.kill(guest.pid, number)
    time.sleep(0.2)
    assert guest.alive()
    guest.write(POWEROFF)
    assert wait_until(lambda: guest.signals() == [OFF])


def pss_kib(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def test_it_sleeps_and_is_small(start) -> None:
    master, slave = pty.openpty()
    guest = start([OFF], options=[*SIGNALS, "--console", str(master)])
    time.sleep(0.5)
    before = guest.wake_ups()
    time.sleep(3)
    assert guest.wake_ups() == before
    assert pss_kib(guest.pid) <= 9 * 1024
    os.close(master)
    os.close(slave)


# the console


class Console:
    """Both outer ends: `terminal` is the user's side of the manager's, `guest` the slave of the guest's pty."""

    def __init__(self, start, catch: list[int] | None = None) -> None:
        self.terminal, manager = pty.openpty()
        fcntl.ioctl(manager, termios.TIOCSWINSZ, struct.pack("=4H", 33, 101, 0, 0))
        master, self.guest = pty.openpty()
        self.name = os.ttyname(self.guest)
        self.keeper = start(catch, options=["--console", str(master)], stdin=manager, stdout=manager)
        os.close(manager)
        os.close(master)

    def size(self) -> tuple[int, int]:
        return struct.unpack("=4H", fcntl.ioctl(self.guest, termios.TIOCGWINSZ, bytes(8)))[:2]


def read_all(fd: int, want: int, seconds: float = 10) -> bytes:
    got = b""
    end = time.monotonic() + seconds
    while len(got) < want and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            got += os.read(fd, 65536)
    return got


def test_bytes_pass_both_ways_and_the_terminal_is_raw(start) -> None:
    console = Console(start)
    os.write(console.guest, b"hello\n")
    assert read_all(console.terminal, 7) == b"hello\r\n"
    lflag = termios.tcgetattr(console.terminal)[3]
    assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG)
    os.write(console.terminal, b"\x04typed\n")
    os.set_blocking(console.guest, True)
    assert os.read(console.guest, 100) == b""  # ^D is the guest's, not ours
    assert os.read(console.guest, 100) == b"typed\n"


def test_the_window_size_is_copied_at_the_start_and_follows(start) -> None:
    console = Console(start)
    assert console.size() == (33, 101)
    fcntl.ioctl(console.terminal, termios.TIOCSWINSZ, struct.pack("=4H", 50, 200, 0, 0))
    assert (
        wait_until(lambda: console.size() == (50, 200))
        or (os.write(console.terminal, b"x"), wait_until(lambda: console.size() == (50, 200)))[1]
    )


def test_a_large_paste_and_a_large_output_arrive_whole(start) -> None:
    console = Console(start)
    attributes = termios.tcgetattr(console.guest)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(console.guest, termios.TCSANOW, attributes)
    sent = os.urandom(300_000).replace(b"\x03", b"a").replace(b"\x1c", b"a").replace(b"\x1a", b"a")
    sent = sent.replace(b"\x11", b"a").replace(b"\x13", b"a").replace(b"\r", b"a").replace(b"\xff", b"a")

    def write(fd: int) -> None:
        view = memoryview(sent)
        while view:
            view = view[os.write(fd, view[:4096]) :]

    for source, sink in ((console.guest, console.terminal), (console.terminal, console.guest)):
        writer = threading.Thread(target=write, args=(source,))
        writer.start()
        received = read_all(sink, len(sent), 20)
        writer.join(10)
        assert received == sent


@pytest.mark.row(26)
def test_a_console_that_is_never_read_does_not_stop_the_guest(start) -> None:
    console = Console(start)
    line = b"x" * 1023 + b"\n"
    begin = time.monotonic()
    for _ in range(8 * 1024):
        os.write(console.guest, line)
    assert time.monotonic() - begin < 20
    assert pss_kib(console.keeper.pid) < 10 * 1024
    got = read_all(console.terminal, 1 << 30, 1)
    assert b"bytes of console output dropped]" in got
    assert got.endswith(b"x\r\n")
    os.write(console.guest, b"still here\n")
    assert read_all(console.terminal, 12).endswith(b"still here\r\n")


def test_a_guest_that_closes_its_console_and_comes_back_is_heard_again(start) -> None:
    console = Console(start)
    os.close(console.guest)
    time.sleep(0.3)
    before = console.keeper.wake_ups(), console.keeper.ticks()
    time.sleep(1)
    assert (console.keeper.wake_ups(), console.keeper.ticks()) == before
    again = os.open(console.name, os.O_RDWR | os.O_NOCTTY)
    os.write(again, b"back\n")
    assert read_all(console.terminal, 6) == b"back\r\n"
    os.write(console.terminal, b"in\n")
    assert os.read(again, 10) == b"in\n"
    os.close(again)


def test_a_manager_that_hangs_up_stops_neither_guest_nor_keeper(start) -> None:
    console = Console(start, [])
    os.close(console.terminal)
    time.sleep(0.3)
    before = console.keeper.wake_ups(), console.keeper.ticks()
    time.sleep(1)
    assert (console.keeper.wake_ups(), console.keeper.ticks()) == before
    for _ in range(300):
        os.write(console.guest, b"y" * 1023 + b"\n")
    assert console.keeper.alive()


@pytest.mark.parametrize("stdin", ["null", "pipe", "closed-pipe", "file"])
def test_without_a_terminal_output_is_written_as_it_is(start, tmp_path, stdin: str) -> None:
    reading, writing = os.pipe()
    if stdin == "closed-pipe":
        os.close(writing)
    (tmp_path / "input").write_bytes(b"from a file\n")
    source = {"null": subprocess.DEVNULL, "file": os.open(tmp_path / "input", os.O_RDONLY)}.get(stdin, reading)
    master, slave = pty.openpty()
    output, out = os.pipe()
    guest = start([], options=["--console", str(master)], stdin=source, stdout=out)
    os.close(out)
    os.close(master)
    if stdin == "pipe":
        os.write(writing, b"from a pipe\n")
        assert os.read(slave, 100) == b"from a pipe\n"
    if stdin == "file":
        assert os.read(slave, 100) == b"from a file\n"
    termios.tcflush(slave, termios.TCIFLUSH)
    os.write(slave, b"one\n")
    assert read_all(output, 1 << 20, 0.5).endswith(b"one\r\n")
    time.sleep(0.3)
    before = guest.wake_ups()
    time.sleep(0.7)
    assert guest.wake_ups() == before
    os.close(output)
    for _ in range(300):
        os.write(slave, b"z" * 1023 + b"\n")
    assert guest.alive()


@pytest.mark.parametrize(
    "arguments", [["--owner", "1"], ["--pid", "x"], ["--poweroff", "SIGNONE"], ["--console"], ["--nothing", "1"]]
)
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *KEEPER, *arguments], capture_output=True, timeout=10)
    assert done.returncode == 64
    assert b"usage: keeper" in done.stderr
