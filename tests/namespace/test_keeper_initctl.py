"""telinit and `initctl serve` as users run them: real FIFOs, real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.control.initctl import INIT_CMD_SETENV, FrameReader, Request, runlevel_request
from lcinit.errors import SystemFailure
from lcinit.tools.initctl_client import default_fifo, send

ROOT = str(Path(__file__).parents[2])
LCINIT = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from lcinit.cli.main import main; sys.exit(main(sys.argv))",
    ROOT,
]


def lcinit(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LCINIT, *map(str, args)], capture_output=True, text=True, timeout=20)


class Reader:
    """An init's end of the FIFO."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def requests(self) -> list[Request]:
        return FrameReader().feed(os.read(self.fd, 65536))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path / "initctl")
    yield made
    os.close(made.fd)


@pytest.mark.parametrize("command", ["telinit", "initctl"])
@pytest.mark.parametrize("level", ["0", "6", "s", "Q"])
def test_the_runlevel_arrives_as_one_exact_frame(reader: Reader, tmp_path: Path, command: str, level: str) -> None:
    done = lcinit(command, "--fifo", tmp_path / "initctl", level)
    assert (done.returncode, done.stderr) == (0, "")
    assert reader.requests() == [runlevel_request(level)]


def test_variables_and_the_sleep_time_come_first_and_along(reader: Reader, tmp_path: Path) -> None:
    done = lcinit("telinit", "--fifo", tmp_path / "initctl", "-t", "7", "-e", "INIT_HALT=HALT", "-e", "INIT_X", "0")
    assert done.returncode == 0, done.stderr
    assert reader.requests() == [
        Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=HALT\0INIT_X"),
        runlevel_request("0", 7),
    ]


@pytest.mark.parametrize(
    "arguments", [["x"], ["10"], [""], [], ["-t", "x", "0"], ["-e", "INIT_X=" + "y" * 400, "0"], ["0", "6"]]
)
def test_a_wrong_command_line_is_64_and_sends_nothing(reader: Reader, tmp_path: Path, arguments: list[str]) -> None:
    done = lcinit("telinit", "--fifo", tmp_path / "initctl", *arguments)
    assert done.returncode == 64
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(BlockingIOError):
        reader.requests()


def test_a_fifo_that_nobody_reads_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "initctl")
    done = lcinit("telinit", "--fifo", tmp_path / "initctl", "0")
    assert done.returncode == 71
    assert "no init is reading it" in done.stderr


@pytest.mark.row(28)
def test_what_is_no_fifo_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("untouched")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        done = lcinit("telinit", "--fifo", tmp_path / name, "0")
        assert done.returncode == 71
        assert "is not a FIFO" in done.stderr
    assert (tmp_path / "file").read_text() == "untouched"


def test_the_default_is_the_first_that_is_a_fifo_links_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    names = [str(tmp_path / name) for name in ("missing", "file", "link", "fifo")]
    assert default_fifo(names) == names[2]
    with pytest.raises(SystemFailure, match="no init takes requests"):
        default_fifo(names[:2])


def test_a_full_fifo_is_given_up_after_a_while(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcinit.tools.initctl_client.PATIENCE", 0.3)
    os.write(reader.fd, bytes(65536))
    with pytest.raises(SystemFailure, match="does not read"):
        send([runlevel_request("0")], str(tmp_path / "initctl"))


def test_a_fifo_that_is_emptied_meanwhile_takes_the_request(reader: Reader, tmp_path: Path) -> None:
    os.write(reader.fd, bytes(65536))
    threading.Timer(0.3, lambda: os.read(reader.fd, 65536)).start()
    send([runlevel_request("0")], str(tmp_path / "initctl"))
    assert reader.requests() == [runlevel_request("0")]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for chroot")
def test_a_link_inside_a_guest_cannot_name_a_fifo_of_the_outside(tmp_path: Path) -> None:
    guest = tmp_path / "guest"
    (guest / "dev").mkdir(parents=True)
    outer, inner = tmp_path / "fifo", guest / "fifo"
    (guest / "dev" / "initctl").symlink_to(f"{tmp_path}/fifo")
    (guest / "dev" / "good").symlink_to("/fifo")
    canary, meant = Reader(outer), Reader(inner)
    child = os.fork()
    if child == 0:
        os.chroot(guest)
        signal.pause()
        os._exit(0)
    try:
        root = f"/proc/{child}/root"
        deadline = time.monotonic() + 5
        while os.readlink(root) == "/" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lcinit("telinit", "--fifo", f"{root}/dev/initctl", "0").returncode == 71
        assert lcinit("telinit", "--fifo", f"{root}/dev/good", "6").returncode == 0
        assert meant.requests() == [runlevel_request("6")]
        with pytest.raises(BlockingIOError):
            canary.requests()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# the server


@pytest.fixture
def init() -> Iterator[subprocess.Popen[str]]:
    """A program that says which of its signals came."""
    body = 'for s in TERM USR1 USR2; do trap "echo $s" $s; done; echo ready; while :; do sleep 0.05; done'
    process = subprocess.Popen(["/bin/bash", "-c", body], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


def serve(fifo: Path, pid: int, *options: str) -> subprocess.Popen[str]:
    command = [*LCINIT, "initctl", "serve", "--pid", str(pid), "--fifo", str(fifo), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 10
    while not fifo.is_fifo() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_serve_turns_runlevels_into_signals_and_takes_its_fifo_away(tmp_path: Path, init) -> None:
    fifo = tmp_path / "initctl"
    server = serve(fifo, init.pid, "--reboot", "SIGUSR1")
    assert lcinit("telinit", "--fifo", fifo, "0").returncode == 0
    assert init.stdout.readline() == "TERM\n"
    assert lcinit("telinit", "--fifo", fifo, "6").returncode == 0
    assert init.stdout.readline() == "USR1\n"
    server.terminate()
    assert server.wait(10) == 0
    assert not fifo.exists()


def test_serve_ends_with_its_init(tmp_path: Path, init) -> None:
    server = serve(tmp_path / "initctl", init.pid)
    init.kill()
    init.wait()
    assert server.wait(10) == 0
    assert not (tmp_path / "initctl").exists()


def test_serve_refuses_what_is_not_its_own(tmp_path: Path, init) -> None:
    fifo = tmp_path / "initctl"
    (tmp_path / "file").write_text("untouched")
    assert lcinit("initctl", "serve", "--pid", init.pid, "--fifo", tmp_path / "file").returncode == 71
    assert (tmp_path / "file").read_text() == "untouched"
    server = serve(fifo, init.pid)
    second = lcinit("initctl", "serve", "--pid", init.pid, "--fifo", fifo)
    assert (second.returncode, "is served already" in second.stderr) == (71, True)
    server.terminate()
    assert server.wait(10) == 0


def test_serve_takes_the_place_of_one_that_was_killed(tmp_path: Path, init) -> None:
    fifo = tmp_path / "initctl"
    server = serve(fifo, init.pid)
    server.kill()
    server.wait()
    assert fifo.is_fifo()
    server = serve(fifo, init.pid)
    deadline = time.monotonic() + 10
    while lcinit("telinit", "--fifo", fifo, "0").returncode and time.monotonic() < deadline:
        time.sleep(0.05)
    assert init.stdout.readline() == "TERM\n"
    server.terminate()
    assert server.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--pid", "x"], 64),
        (["--pid", "0"], 64),
        (["--pid", "4194303"], 71),
        (["--poweroff", "SIGNONE"], 64),
        (["more"], 64),
    ],
)
def test_serve_with_a_wrong_command_line(tmp_path: Path, arguments: list[str], code: int) -> None:
    options = [] if "--pid" in arguments else ["--pid", str(os.getpid())]
    done = lcinit("initctl", "serve", "--fifo", tmp_path / "initctl", *options, *arguments)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
