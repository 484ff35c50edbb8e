"""What a hostile guest plants where its init is asked: never written, never waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.control import stopping
from lcinit.control.initctl import FrameReader
from lcinit.guest.ask import Asker
from lcinit.linux import credentials
from lcinit.linux.process import pidfd_open
from tests.namespace.isolated import needs_root

pytestmark = needs_root

OWNER = (1_000_000, 1_000_000)
RUN_MAX = 2.0  # seconds: nothing here may take longer


class Planted:
    """A guest that is a directory and a sleeping process."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        for name in ("run", "dev", "etc/runit"):
            (root / name).mkdir(parents=True)
        for path in (root, *root.rglob("*")):
            os.chown(path, *OWNER)
        # with handlers for whatever may be sent
        script = "trap : CONT INT TERM USR1; echo up; while :; do sleep 0.05; done"
        self.process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.pid = self.process.pid
        self.pidfd = pidfd_open(self.pid)
        self.root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        self.owner = OWNER
        self.init_kind = kind

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        os.close(self.pidfd)
        os.close(self.root_fd)

    def fifo(self, name: str, owner: tuple[int, int] = OWNER) -> Path:
        """A FIFO of the guest's."""
        path = self.root / name
        os.mkfifo(path, 0o600)
        os.chown(path, *owner)
        return path


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the guest's ids can reach through: tmp_path is root's alone, and would hide what is missing."""
    with tempfile.TemporaryDirectory(prefix="lcinit-ask-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def sysvinit(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    monkeypatch.setattr(stopping, "PATIENCE", 0.5)
    guest = Planted(place / "root", "sysvinit")
    yield guest
    guest.close()


@pytest.fixture
def runit(place: Path) -> Iterator[Planted]:
    guest = Planted(place / "root", "runit-etc")
    yield guest
    guest.close()


def answers_to(guest: Planted, word: str, meanwhile: float = RUN_MAX) -> list[tuple[str, str]]:
    """All answers within `meanwhile` seconds, the last of which is final."""

    async def asked() -> list[tuple[str, str]]:
        loop = asyncio.get_running_loop()
        answers: list[tuple[str, str]] = []
        done = asyncio.Event()

        def report(_word: str, answer: str, detail: str) -> None:
            answers.append((answer, detail))
            done.set()

        asker = Asker(guest, (), loop, report)
        answers.append(asker.ask(word))
        if answers[-1][0] == "held":
            try:
                await asyncio.wait_for(done.wait(), meanwhile)
            except TimeoutError:
                pass
        asker.close()
        return answers

    began = time.monotonic()
    answers = asyncio.run(asked())
    assert time.monotonic() - began < RUN_MAX
    assert os.geteuid() == 0
    return answers


def reader_of(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def received(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""
    finally:
        os.close(fd)


@pytest.mark.parametrize("how", ["link", "parent", "dots"])
def test_a_link_to_a_fifo_of_the_outside_is_not_followed(how: str, sysvinit: Planted, place: Path) -> None:
    outside = place / "outside"
    outside.mkdir()
    os.mkfifo(outside / "initctl", 0o666)
    os.chown(outside / "initctl", *OWNER)
    listening = reader_of(outside / "initctl")
    if how == "parent":
        os.rmdir(sysvinit.root / "run")
        os.symlink(outside, sysvinit.root / "run")
    else:
        target = outside / "initctl" if how == "link" else Path("../../outside/initctl")
        os.symlink(target, sysvinit.root / "run/initctl")
    os.symlink(outside / "initctl", sysvinit.root / "dev/initctl")
    answers = answers_to(sysvinit, "poweroff")
    assert answers == [("cannot", "nobody reads /run/initctl or /dev/initctl")]
    assert received(listening) == b""


def test_a_link_inside_the_guest_is_not_followed_either(sysvinit: Planted) -> None:
    inner = sysvinit.fifo("etc/elsewhere")
    listening = reader_of(inner)
    os.symlink("/etc/elsewhere", sysvinit.root / "run/initctl")
    os.symlink("/etc/elsewhere", sysvinit.root / "dev/initctl")
    assert answers_to(sysvinit, "poweroff")[-1][0] == "cannot"
    assert received(listening) == b""


@pytest.mark.parametrize("kind", ["file", "directory", "device", "socket"])
def test_what_is_no_fifo_is_not_written(kind: str, sysvinit: Planted) -> None:
    for name in ("run/initctl", "dev/initctl"):
        path = sysvinit.root / name
        if kind == "file":
            path.write_bytes(b"canary")
        elif kind == "directory":
            path.mkdir()
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        else:
            os.mknod(path, stat.S_IFSOCK | 0o666)
        os.chown(path, *OWNER)
    assert answers_to(sysvinit, "halt") == [("cannot", "nobody reads /run/initctl or /dev/initctl")]
    if kind == "file":
        assert (sysvinit.root / "run/initctl").read_bytes() == b"canary"


def test_a_fifo_that_the_guests_root_may_not_write_is_not_written_for_it(sysvinit: Planted) -> None:
    listening = reader_of(sysvinit.fifo("run/initctl", owner=(0, 0)))
    other = reader_of(sysvinit.fifo("dev/initctl", owner=(0, 0)))
    assert answers_to(sysvinit, "poweroff")[-1][0] == "cannot"
    assert received(listening) == received(other) == b""


def test_a_fifo_that_nobody_reads_is_tried_again_and_then_the_signal_that_may_do_is_sent(sysvinit: Planted) -> None:
    sysvinit.fifo("run/initctl")
    answers = answers_to(sysvinit, "reboot")
    assert [answer for answer, _ in answers] == ["held", "sent"]
    assert answers[-1][1].startswith("SIGINT")


def test_a_request_is_held_until_the_fifo_has_its_reader(sysvinit: Planted) -> None:
    path = sysvinit.fifo("run/initctl")

    async def asked() -> tuple[list[tuple[str, str]], bytes]:
        loop = asyncio.get_running_loop()
        answers: list[tuple[str, str]] = []
        done = asyncio.Event()
        listening: list[int] = []
        asker = Asker(sysvinit, (), loop, lambda _word, *answer: (answers.append(answer), done.set())[0])  # type: ignore[func-returns-value]
        answers.append(asker.ask("halt"))
        loop.call_later(0.1, lambda: listening.append(reader_of(path)))
        await asyncio.wait_for(done.wait(), RUN_MAX)
        # once more: nothing more is written
        answers.append(asker.ask("halt"))
        asker.close()
        return answers, received(listening[0])

    answers, frames = asyncio.run(asked())
    assert [answer for answer, _ in answers] == ["held", "sent", "sent"]
    requests = FrameReader().feed(frames)
    assert [(request.cmd, request.data) for request in requests] == [(6, b"INIT_HALT=HALT"), (1, b"")]
    assert requests[1].level == "0"


def test_a_full_fifo_does_not_block(sysvinit: Planted) -> None:
    path = sysvinit.fifo("run/initctl")
    listening = reader_of(path)
    writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    answers = answers_to(sysvinit, "poweroff")
    os.close(writing)
    os.close(listening)
    assert answers[-1][0] == "cannot"


def test_without_the_right_to_the_guests_ids_it_is_not_asked_with_more(
    sysvinit: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = reader_of(sysvinit.fifo("run/initctl"))

    def refused(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(credentials, "setfsuid", refused)
    assert answers_to(sysvinit, "poweroff")[-1][0] == "cannot"
    assert received(listening) == b""


FLAGS = ("etc/runit/stopit", "etc/runit/reboot", "run/runit/stopit", "run/runit/reboot")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "foreign"])
def test_a_flag_that_is_no_file_of_the_guests_is_left_alone(kind: str, runit: Planted, place: Path) -> None:
    canary = place / "canary"
    canary.write_bytes(b"")
    canary.chmod(0o644)
    os.chown(canary, *OWNER)
    (runit.root / "run/runit").mkdir()
    for name in FLAGS:
        path = runit.root / name
        if kind == "link":
            path.symlink_to(canary)
        elif kind == "fifo":
            os.mkfifo(path, 0o600)
            os.chown(path, *OWNER)
        elif kind == "directory":
            path.mkdir(0o700)
            os.chown(path, *OWNER)
        else:
            path.write_bytes(b"")
            path.chmod(0o600)
    before = [stat.S_IMODE(os.lstat(runit.root / name).st_mode) for name in FLAGS]
    assert answers_to(runit, "reboot")[-1][0] == "cannot"
    answer, detail = answers_to(runit, "poweroff")[-1]
    assert answer == "sent"
    assert detail.startswith("SIGINT")
    assert [stat.S_IMODE(os.lstat(runit.root / name).st_mode) for name in FLAGS] == before
    assert stat.S_IMODE(canary.stat().st_mode) == 0o644


def test_flags_are_made_as_the_guests_root_and_where_a_link_stands_in_the_place_it_leads_to(runit: Planted) -> None:
    (runit.root / "run/runit").mkdir()
    os.chown(runit.root / "run/runit", *OWNER)
    os.symlink("/run/runit/stopit", runit.root / "etc/runit/stopit")
    assert answers_to(runit, "reboot")[-1] == ("sent", "SIGCONT")
    for name in ("run/runit/stopit", "etc/runit/reboot"):
        made = os.lstat(runit.root / name)
        assert (made.st_uid, made.st_gid) == OWNER
        assert made.st_mode == stat.S_IFREG | 0o100
    assert answers_to(runit, "poweroff")[-1] == ("sent", "SIGCONT")
    assert os.lstat(runit.root / "etc/runit/reboot").st_mode == stat.S_IFREG
    assert os.lstat(runit.root / "run/runit/stopit").st_mode == stat.S_IFREG | 0o100


def test_a_guest_that_has_ended_is_no_error(runit: Planted) -> None:
    os.kill(runit.pid, signal.SIGKILL)
    runit.process.wait()
    assert answers_to(runit, "poweroff") == [("sent", "it has ended")]
