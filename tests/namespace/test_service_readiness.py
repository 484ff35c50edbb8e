"""Services that say on $NOTIFY_SOCKET that they are ready, by the program that does (systemd-notify(1))."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import time
from typing import Any

import pytest

from lcinit.errors import SystemFailure
from lcinit.service.notifications import Notification
from lcinit.service.notify import PATH, NotifySocket
from tests.hostile.attempt import BOTH_LOOPS
from tests.namespace.isolated import needs_root
from tests.namespace.readiness_rig import NOBODY, as_pid1, ended, started, until

pytestmark = needs_root

PLACE = os.path.dirname(PATH)


class Heard(list[tuple[int, int, Notification]]):
    """What came, and the open socket."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = NotifySocket(lambda *message: self.append(message))
        self.socket.start(asyncio.get_running_loop())

    def said(self) -> list[Notification]:
        return [notification for _, _, notification in self if not notification.barrier]


def systemd_notify(*arguments: str) -> subprocess.Popen[bytes]:
    return started("systemd-notify", *arguments, env={"NOTIFY_SOCKET": PATH})


def shell_that_notifies(**options: int) -> subprocess.Popen[bytes]:
    environment = {"NOTIFY_SOCKET": PATH, "PATH": os.environ["PATH"]}
    return started("sh", "-c", "systemd-notify --ready; exit $?", env=environment, **options)


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--ready",), Notification(ready=True)),
        (("--ready", "--pid=4711", "--status=at work"), Notification(ready=True, main_pid=4711, status="at work")),
        (("--no-block", "--ready"), Notification(ready=True)),
        (("WATCHDOG=1", "WATCHDOG_USEC=500000"), Notification(watchdog=True, watchdog_usec=500_000)),
        (("STOPPING=1", "STATUS=the end"), Notification(stopping=True, status="the end")),
        (("RELOADING=1", "MONOTONIC_USEC=1"), Notification(reloading=True, monotonic_usec=1)),
    ],
)
def test_systemd_notify_is_understood_and_does_not_wait(
    arguments: tuple[str, ...], expected: Notification, loop: str
) -> None:
    async def body() -> None:
        heard = Heard()
        began = time.monotonic()
        process = systemd_notify(*arguments)
        assert await ended(process) == 0
        assert time.monotonic() - began < 4  # it gives up its barrier after five
        await until(heard.said, "the notification")
        assert heard.said() == [expected]
        assert [notification.barrier for _, _, notification in heard].count(True) == ("--no-block" not in arguments)
        heard.socket.close()

    as_pid1(body, loop)


def test_any_user_is_heard_and_known() -> None:
    async def body() -> None:
        heard = Heard()
        shell = shell_that_notifies(user=NOBODY, group=NOBODY)
        assert await ended(shell) == 0
        [(pid, uid, said)] = [message for message in heard if not message[2].barrier]
        assert (uid, said.ready) == (NOBODY, True)
        assert pid != shell.pid  # who has no privilege cannot speak in the name of its shell
        heard.socket.close()

    as_pid1(body)


def test_systemd_notify_of_root_speaks_for_the_shell_that_called_it() -> None:
    async def body() -> None:
        heard = Heard()
        shell = shell_that_notifies()
        assert await ended(shell) == 0
        assert [pid for pid, _, said in heard if said.ready] == [shell.pid]
        heard.socket.close()

    as_pid1(body)


def test_what_came_before_the_start_is_heard_and_nothing_after_the_end() -> None:
    async def body() -> None:
        heard: list[Any] = []
        listener = NotifySocket(lambda *message: heard.append(message))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"READY=1", PATH)
            listener.start(asyncio.get_running_loop())
            await until(lambda: heard, "the notification")
            listener.close()
            listener.close()
            with pytest.raises(FileNotFoundError):
                sender.sendto(b"READY=1", PATH)
        assert heard == [(os.getpid(), 0, Notification(ready=True))]
        assert listener.fileno() == -1

    as_pid1(body)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_the_socket_is_everybodys_and_its_directory_roots(umask: int) -> None:
    async def body() -> None:
        os.umask(umask)
        heard = Heard()
        directory, place = os.stat(PLACE), os.stat(PATH)
        assert (stat.S_IMODE(directory.st_mode), stat.S_IMODE(place.st_mode)) == (0o755, 0o666)
        assert os.umask(umask) == umask
        heard.socket.close()
        os.chmod(PLACE, 0o777)
        Heard().socket.close()
        assert stat.S_IMODE(os.stat(PLACE).st_mode) == 0o755

    as_pid1(body)


def test_a_stale_socket_is_replaced_and_another_ones_is_left() -> None:
    async def body() -> None:
        os.mkdir(PLACE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
            stale.bind(PATH)
        heard = Heard()
        assert await ended(systemd_notify("--ready")) == 0
        os.unlink(PATH)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
            another.bind(PATH)
            heard.socket.close()
            assert stat.S_ISSOCK(os.lstat(PATH).st_mode)

    as_pid1(body)


def _served(kind: int) -> socket.socket:
    os.mkdir(PLACE)
    other = socket.socket(socket.AF_UNIX, kind)
    other.bind(PATH)
    if kind == socket.SOCK_STREAM:
        other.listen()
    return other


def _in_the_directory(make: Any) -> Any:
    def inside() -> None:
        os.mkdir(PLACE)
        make()

    return inside


IN_THE_WAY = {
    "directory is a file": (lambda: os.close(os.open(PLACE, os.O_CREAT)), "it is no directory; remove it"),
    "directory is a link": (lambda: os.symlink("/etc", PLACE), "it is no directory; remove it"),
    "directory is a FIFO": (lambda: os.mkfifo(PLACE), "it is no directory; remove it"),
    "directory is another's": (
        _in_the_directory(lambda: os.chown(PLACE, 1000, 0)),
        "the directory belongs to uid 1000; remove it",
    ),
    "a file": (_in_the_directory(lambda: os.close(os.open(PATH, os.O_CREAT))), "there is something else; remove it"),
    "a link": (_in_the_directory(lambda: os.symlink("/etc/passwd", PATH)), "there is something else; remove it"),
    "a FIFO": (_in_the_directory(lambda: os.mkfifo(PATH)), "there is something else; remove it"),
    "a directory": (_in_the_directory(lambda: os.mkdir(PATH)), "there is something else; remove it"),
    "a served socket": (lambda: _served(socket.SOCK_DGRAM), "another process receives there; end it and remove the"),
    "a stream": (lambda: _served(socket.SOCK_STREAM), "another process receives there; end it and remove the socket"),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_stands_in_the_way_is_said_and_left_alone(what: str) -> None:
    def entries() -> list[Any]:
        found = []
        for place in ("/run", PLACE, PATH):
            try:
                status = os.lstat(place)
                found.append((status.st_ino, status.st_mode, status.st_uid, status.st_nlink))
            except OSError as error:
                found.append(error.errno)
        return found

    async def body() -> None:
        make, message = IN_THE_WAY[what]
        made = make()
        before = entries()
        began = time.monotonic()
        with pytest.raises(SystemFailure) as caught:
            NotifySocket(lambda *_: None)
        assert time.monotonic() - began < 1
        assert str(caught.value).startswith("cannot make the notification socket ")
        assert message in str(caught.value)
        assert entries() == before
        if isinstance(made, socket.socket):
            made.close()

    as_pid1(body)


def test_a_place_that_is_not_there_is_said() -> None:
    async def body() -> None:
        with pytest.raises(SystemFailure, match="/run/none/lcinit/notify: openat2: No such file or directory"):
            NotifySocket(lambda *_: None, path="/run/none/lcinit/notify")
        os.mkdir("/run/full")
        assert await ended(started("mount", "-t", "tmpfs", "-o", "ro", "none", "/run/full")) == 0
        with pytest.raises(SystemFailure, match="Read-only file system"):
            NotifySocket(lambda *_: None, path="/run/full/lcinit/notify")

    as_pid1(body)


def test_no_link_on_the_way_is_followed() -> None:
    async def body() -> None:
        path = "/run/guest/run/lcinit/notify"
        os.makedirs("/run/guest/run")
        os.makedirs("/run/elsewhere")
        NotifySocket(lambda *_: None, path=path).close()
        os.rename("/run/guest/run", "/run/guest/old")
        os.symlink("/run/elsewhere", "/run/guest/run")
        with pytest.raises(SystemFailure, match="symbolic links"):
            NotifySocket(lambda *_: None, path=path)
        assert os.listdir("/run/elsewhere") == []

    as_pid1(body)
