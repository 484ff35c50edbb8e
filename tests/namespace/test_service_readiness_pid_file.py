"""PID files: those that services write, and what else may stand at their place."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lcinit.service.pid_file import NoPid, read_pid
from tests.namespace.isolated import needs_root
from tests.namespace.readiness_rig import NOBODY, as_pid1, ended, read, started

pytestmark = needs_root


class Root:
    """A guest's root with a /run, by its handle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "run").mkdir()
        self.handle = os.open(path, os.O_PATH | os.O_DIRECTORY)
        self.asked: list[int] = []

    def read(self, path: str = "/run/x.pid", *, uid: int = 0, members: tuple[int, ...] = (42,)) -> int:
        def belongs(pid: int) -> bool:
            self.asked.append(pid)
            return pid in members

        before = len(os.listdir("/proc/self/fd"))
        try:
            return read_pid(self.handle, path, uid=uid, belongs=belongs)
        finally:
            assert len(os.listdir("/proc/self/fd")) == before

    def why_not(self, path: str = "/run/x.pid", *, uid: int = 0) -> str:
        began = time.monotonic()
        with pytest.raises(NoPid) as caught:
            self.read(path, uid=uid)
        assert time.monotonic() - began < 1
        return str(caught.value)

    def write(self, content: bytes) -> Path:
        file = self.path / "run" / "x.pid"
        file.write_bytes(content)
        return file


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@pytest.mark.parametrize(
    "content", [b"42", b"42\n", b" 42 \r\n", b"0042\n", b"42\n/var/lib/postgresql\n5432\n" + b"x" * 10_000]
)
def test_the_first_line_is_the_number(root: Root, content: bytes) -> None:
    root.write(content)
    assert root.read() == 42


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "/run/x.pid is empty"),
        (b"\n42\n", "/run/x.pid is empty"),
        (b"x", '/run/x.pid holds no number but "x"'),
        (b"-42", '/run/x.pid holds no number but "-42"'),
        (b"0", '/run/x.pid holds no number but "0"'),
        (b"42 43", '/run/x.pid holds no number but "42 43"'),
        (b"99999999", '/run/x.pid holds no number but "99999999"'),
        (b"\x1b[2J\xff", '/run/x.pid holds no number but "\\x1b[2J�"'),
        (b"4" * 100_000, f'/run/x.pid holds no number but "{"4" * 37}..."'),
        (b" " * 100 + b"42", f'/run/x.pid holds no number but "{" " * 37}..."'),
    ],
)
def test_what_is_no_number_is_said(root: Root, content: bytes, why: str) -> None:
    root.write(content)
    assert root.why_not() == why
    assert root.asked == []


@pytest.mark.row(53)
def test_a_process_that_is_not_the_services_is_refused(root: Root) -> None:
    root.write(b"43\n")
    assert root.why_not() == "process 43, which /run/x.pid names, is not one of the service's"
    assert root.asked == [43]


@pytest.mark.row(53)
def test_only_root_and_the_services_user_may_say_so(root: Root) -> None:
    file = root.write(b"42\n")
    os.chown(file, 1000, 0)
    assert root.why_not() == "/run/x.pid belongs to uid 1000, who is neither root nor the service's user"
    assert root.why_not(uid=1001) == "/run/x.pid belongs to uid 1000, who is neither root nor the service's user"
    assert root.asked == []
    assert root.read(uid=1000) == 42
    os.chown(file, 0, 0)
    assert root.read(uid=1000) == 42


@pytest.mark.row(53)
def test_links_stay_in_the_root(root: Root) -> None:
    root.write(b"42\n")
    (root.path / "var").mkdir()
    (root.path / "var" / "run").symlink_to("/run")
    assert root.read("/var/run/x.pid") == 42
    assert root.read("../../var/run/../run/x.pid") == 42
    (root.path / "run" / "out").symlink_to("/etc/hostname")
    assert root.why_not("/run/out") == "there is no /run/out"
    (root.path / "run" / "loop").symlink_to("loop")
    assert "Too many levels" in root.why_not("/run/loop")
    (root.path / "run" / "magic").symlink_to(f"/proc/self/fd/{root.handle}")
    subprocess.run(["mkdir", root.path / "proc"], check=True)
    assert root.why_not("/run/magic") == "there is no /run/magic"


@pytest.mark.row(53)
def test_magic_links_are_not_followed() -> None:
    async def body() -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        file = os.open("/run/secret", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(file, b"42\n")
        os.symlink(f"/proc/self/fd/{file}", "/run/x.pid")
        with pytest.raises(NoPid, match="symbolic links"):
            read_pid(root, "/run/x.pid", belongs=lambda _: True)
        os.close(file)
        os.close(root)

    as_pid1(body)


def _listening(place: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))


IN_THE_WAY: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "there is no /run/x.pid"),
    "a FIFO": (os.mkfifo, "/run/x.pid is no regular file"),
    "a directory": (os.mkdir, "/run/x.pid is no regular file"),
    "a socket": (_listening, "/run/x.pid cannot be opened: openat2: No such device or address"),
    "a device": (lambda place: os.mknod(place, 0o020666, os.makedev(1, 5)), "/run/x.pid is no regular file"),
    "a file as directory": (lambda place: place.parent.rmdir() or place.parent.touch(), "/run/x.pid cannot be opened"),
}


@pytest.mark.row(53)
@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_is_no_file_is_said_and_waits_for_nobody(root: Root, what: str) -> None:
    make, why = IN_THE_WAY[what]
    make(root.path / "run" / "x.pid")
    assert root.why_not().startswith(why)


@pytest.mark.row(53)
def test_a_lease_holds_nobody_up(root: Root) -> None:
    """Who holds a write lease is asked to give it back, and an open that waits would wait for that (fcntl(2))."""
    file = root.write(b"42\n")
    ready, hold = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            import signal

            signal.signal(signal.SIGIO, signal.SIG_IGN)
            fd = os.open(file, os.O_RDWR)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            os.write(hold, b"1")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"1"
        assert root.why_not() == "/run/x.pid is held by somebody, or moved about all the time"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(hold)
    assert root.read() == 42


@pytest.mark.parametrize("user", [0, NOBODY])
def test_a_daemon_that_forks_is_found(user: int) -> None:
    async def body() -> None:
        os.chmod("/run", 0o777)
        script = "(exec sleep 100 >/dev/null) & sleep 0.1; echo $! >/run/x.pid"
        daemon = started("sh", "-c", script, user=user, group=user)
        assert await ended(daemon) == 0
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        pid = read_pid(root, "/run/x.pid", uid=user, belongs=lambda pid: os.path.exists(f"/proc/{pid}"))
        os.close(root)
        assert read(f"/proc/{pid}/cmdline") == b"sleep\x00100\x00"
        os.kill(pid, 9)

    as_pid1(body)
