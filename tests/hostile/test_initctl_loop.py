"""The FIFO of a supervising lcinit when somebody replaces it, or when there is no room for it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcinit.linux.calls import AT_FDCWD
from lcinit.linux.mount import MOUNT_ATTR_RDONLY, mount_setattr, move_mount, new_mount
from tests.namespace.initctl_server import LOOPS, POWEROFF, REBOOT, Server, wait_until
from tests.namespace.isolated import needs_root, run_isolated


@pytest.fixture(params=LOOPS)
def launch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []
    for name in ("run", "dev"):
        (tmp_path / name).mkdir()

    def launcher(**limits: int) -> Server:
        places = (tmp_path / "run/initctl", tmp_path / "dev/initctl")
        servers.append(Server(request.param, tmp_path / "log", *places, **limits))
        return servers[-1]

    yield launcher
    for server in servers:
        server.stop()


def stands(path: Path) -> bool:
    """Whether a FIFO, 0600, is at the path itself."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600


def is_whole(directory: Path) -> bool:
    """Whether the FIFO is in run and the link to it in dev."""
    try:
        return stands(directory / "run/initctl") and os.readlink(directory / "dev/initctl") == str(
            directory / "run/initctl"
        )
    except OSError:
        return False


def obeys(server: Server, path: Path) -> bool:
    """Whether a request written there is acted on."""
    before = len(server.words())
    try:
        server.write(POWEROFF, path)
    except OSError:
        return False
    return wait_until(lambda: len(server.words()) > before, 2)


@pytest.mark.row(28)
@pytest.mark.parametrize("planted", ["symlink", "file", "directory", "fifo", "nothing", "renamed-over", "moved-away"])
@pytest.mark.parametrize("where", ["run", "dev"])
def test_what_replaces_the_fifo_or_its_link_is_never_opened(
    launch: Callable[..., Server], tmp_path: Path, where: str, planted: str
) -> None:
    server = launch()
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    place = tmp_path / where / "initctl"
    if planted == "renamed-over":
        (tmp_path / where / "other").write_text("x")
        os.rename(tmp_path / where / "other", place)
    elif planted == "moved-away":
        os.rename(place, tmp_path / where / "elsewhere")
    else:
        place.unlink()
        if planted == "symlink":
            place.symlink_to(canary)
        elif planted == "file":
            os.link(canary, place)
        elif planted == "directory":
            place.mkdir()
        elif planted == "fifo":
            os.mkfifo(place, 0o666)
    before = os.stat(canary)
    assert wait_until(lambda: is_whole(tmp_path))
    assert wait_until(lambda: obeys(server, tmp_path / "dev/initctl"))
    after = os.stat(canary)
    assert canary.read_text() == "untouched"
    assert (after.st_uid, after.st_mode, after.st_atime_ns) == (before.st_uid, before.st_mode, before.st_atime_ns)


@pytest.mark.row(28)
def test_a_full_directory_in_the_way_moves_the_fifo_to_the_other_place(
    launch: Callable[..., Server], tmp_path: Path
) -> None:
    server = launch()
    (tmp_path / "run/initctl").unlink()
    (tmp_path / "run/initctl").mkdir()
    (tmp_path / "run/initctl/in").touch()
    assert wait_until(lambda: stands(tmp_path / "dev/initctl"))
    assert wait_until(lambda: obeys(server, tmp_path / "dev/initctl"))
    time.sleep(0.3)
    assert server.sleeps(1)
    shutil.rmtree(tmp_path / "run/initctl")
    assert wait_until((tmp_path / "run/initctl").is_symlink)
    assert obeys(server, tmp_path / "run/initctl")


@pytest.mark.row(28)
def test_a_request_to_the_fifo_that_was_replaced_counts(launch: Callable[..., Server], tmp_path: Path) -> None:
    server = launch()
    time.sleep(0.2)  # so that the next look is not put off
    count = server.write_in_its_pause(REBOOT)
    os.rename(server.fifo, tmp_path / "run/elsewhere")
    assert wait_until(lambda: server.words() == ["poweroff"] * count + ["reboot"])
    assert wait_until(lambda: stands(server.fifo))


@pytest.mark.row(28)
def test_a_storm_of_replacements_ends_with_a_fifo_and_no_descriptor_more(
    launch: Callable[..., Server], tmp_path: Path
) -> None:
    server = launch()
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    descriptors, ticks = server.descriptors(), server.ticks()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for path in (tmp_path / "run/initctl", tmp_path / "dev/initctl"):
            try:
                path.unlink()
                path.symlink_to(canary)
            except OSError:
                pass
    assert server.ticks() - ticks < 40
    assert wait_until(lambda: is_whole(tmp_path))
    assert wait_until(lambda: obeys(server, tmp_path / "dev/initctl"))
    assert canary.read_text() == "untouched"
    assert server.descriptors() == descriptors


@pytest.mark.row(40)
def test_without_any_place_it_says_so_once_and_sleeps(launch: Callable[..., Server], tmp_path: Path) -> None:
    for name in ("run", "dev"):
        (tmp_path / name).rmdir()
        (tmp_path / name).write_text("no directory")
    server = launch()
    assert "at None" in server.heard()
    assert server.sleeps(2)
    for _ in range(3):
        server.process.send_signal(signal.SIGUSR1)  # somebody asks for another look
        time.sleep(0.2)
    lines = server.log.read_text().splitlines()
    assert len(lines) == 1
    assert "no request can come over initctl" in lines[0]
    assert "run/initctl: Not a directory" in lines[0]
    for name in ("run", "dev"):
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    server.process.send_signal(signal.SIGUSR1)
    assert wait_until(lambda: obeys(server, tmp_path / "run/initctl"))
    assert "requests can come over" in server.log.read_text()


@pytest.mark.row(40)
@pytest.mark.parametrize("descriptors", range(6))
def test_with_few_descriptors_it_says_so_and_takes_requests_when_there_are_more(
    launch: Callable[..., Server], tmp_path: Path, descriptors: int
) -> None:
    server = launch(descriptors=descriptors)
    if "at None" in server.heard():
        assert "Too many open files" in server.log.read_text()
        assert os.listdir(tmp_path / "run") == os.listdir(tmp_path / "dev") == []  # no FIFO that nobody reads
    else:
        assert obeys(server, tmp_path / "run/initctl")
    server.process.send_signal(signal.SIGUSR1)
    assert wait_until(lambda: is_whole(tmp_path) and obeys(server, tmp_path / "dev/initctl"))
    assert len(server.log.read_text().splitlines()) <= 3
    time.sleep(0.3)  # its own changes of the directory are seen by now
    assert server.sleeps(0.5)


@pytest.mark.row(40)
@needs_root
@pytest.mark.parametrize("loop", LOOPS)
def test_a_read_only_run_puts_the_fifo_into_dev(loop: str, tmp_path: Path) -> None:
    for name in ("run", "dev"):
        (tmp_path / name).mkdir()

    def isolated() -> None:
        fd = new_mount("tmpfs")
        move_mount(fd, "", AT_FDCWD, str(tmp_path / "run"), 4)
        mount_setattr(AT_FDCWD, str(tmp_path / "run"), 0, attr_set=MOUNT_ATTR_RDONLY)
        server = Server(loop, tmp_path / "log", tmp_path / "run/initctl", tmp_path / "dev/initctl")
        try:
            assert stands(tmp_path / "dev/initctl")
            assert obeys(server, tmp_path / "dev/initctl")
        finally:
            server.stop()

    run_isolated(isolated)
