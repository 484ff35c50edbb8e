"""`lcinit logs` where there are services: whose files it reads, in which order it shows them, how it follows them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcinit.control.client import Client
from lcinit.control.service import ControlServer
from lcinit.control.serving import serving
from lcinit.errors import LcinitError
from lcinit.tools.service_logs import root_of
from tests.namespace.control_rig import Rig, wait_until
from tests.namespace.isolated import needs_root
from tests.namespace.service_control_rig import FakeServedBesideServices, FakeServices, service
from tests.unit.test_service_log_reading import SECOND, Written

pytestmark = needs_root

LOGS = {"web": "file", "db": "both", "shy": "console", "mute": "none", "fresh": "file"}


class Services(FakeServices):
    def list(self, _names: tuple[str, ...] | None) -> dict[str, Any]:
        found = [service(name, "running", log=to) for name, to in LOGS.items()]
        return {"services": found, "runlevel": "3", "previous": "N"}


def server(path: str) -> ControlServer:
    served = FakeServedBesideServices()
    return ControlServer(serving(served, Services(served.events)), path=path)


class Guest:
    """A root with a control socket in its place, and the files of services."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = f"{root}/run/lcinit/control"
        os.makedirs(f"{root}/run", exist_ok=True)
        self.made: dict[str, Written] = {}

    def files(self, name: str) -> Written:
        if name not in self.made:
            self.made[name] = Written(str(self.root), name)
            self.made[name].now = int(time.time()) * SECOND - 1000 * SECOND
        return self.made[name]

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lcinit", "logs", "--socket", self.socket, *words]

    def run(self, *words: str) -> tuple[int, str, str]:
        ended = subprocess.run(self.words(*words), capture_output=True, text=True, timeout=20)
        return ended.returncode, ended.stdout, ended.stderr

    def messages(self, *words: str) -> list[str]:
        """What is shown, without the times."""
        code, output, errors = self.run(*words)
        assert (code, errors) == (0, "")
        return [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z (.*)", line)[1] for line in output.splitlines()]  # type: ignore[index]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path / "root")
    with Rig(made.socket, server=server):
        yield made
    for each in made.made.values():
        each.close()


@pytest.fixture
def talk(guest: Guest) -> Guest:
    """Two services in turn, one line a second, with a rotation, before lcinit's own records."""
    for number in range(6):
        for name, later in (("web", 0), ("db", SECOND // 2)):
            written = guest.files(name)
            written.put(b"%s %d\n" % (name.encode(), number), later if number == 0 else SECOND)
            if (name, number) == ("web", 3):
                written.rotate()
    return guest


ALL = [f"{name}: {name} {number}" for number in range(6) for name in ("web", "db")]


def own(guest: Guest, times: int = 1) -> None:
    """Have lcinit say something."""
    for _ in range(times):
        with Client(guest.socket) as client:
            try:
                client.call("Restart")
            except LcinitError:
                pass


OWN = "lcinit: error: control: io.lcinit.Manager.Restart: unexpected: ZeroDivisionError: a bug"


def test_all_lines_are_shown_in_the_order_of_time(talk: Guest) -> None:
    own(talk)
    assert talk.messages() == [*ALL, OWN]


@pytest.mark.parametrize("count", [0, 1, 3, 7, 12, 13, 50])
def test_the_last_lines_of_all(count: int, talk: Guest) -> None:
    own(talk)
    assert talk.messages("-n", str(count)) == [*ALL, OWN][max(0, 13 - count) :]


def test_names_select(talk: Guest) -> None:
    own(talk)
    assert talk.messages("web") == ALL[::2]
    assert talk.messages("web", "-n", "2", "lcinit") == [ALL[-2], OWN]
    assert talk.messages("lcinit") == [OWN]
    assert talk.messages("fresh") == []


def test_since_a_moment(talk: Guest) -> None:
    own(talk)
    second = talk.files("web").now // SECOND
    assert talk.messages("--since", str(second - 1)) == [*ALL[-4:], OWN]
    iso = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second - 1))
    assert talk.messages("--since", iso) == [*ALL[-4:], OWN]
    assert talk.messages("--since", f"{iso}+00:00", "-n", "2") == [ALL[-1], OWN]
    assert talk.messages("--since", "10m") == [OWN]
    assert talk.messages("--since", "1h2m", "db") == ALL[1::2]
    assert talk.messages("--since", "2999-01-01") == []


@pytest.mark.parametrize("when", ["yesterday", "10", "-5m", "10m ago", "٣٣٣٣٣٣٣٣٣", "1e9", "nan", ""])
def test_what_is_no_moment_is_refused(when: str, guest: Guest) -> None:
    code, output, errors = guest.run(f"--since={when}")
    assert (code, output) == (64, "")
    assert "is neither a time that has passed (10m) nor a date nor unix seconds" in errors


def test_as_json(talk: Guest) -> None:
    own(talk)
    talk.files("web").put("\x1b[31m ä\xff".encode() + b"\xff\n")
    code, output, errors = talk.run("--json")
    assert (code, errors) == (0, "")
    assert output.isascii()
    by_service = {each["service"]: each for each in map(json.loads, output.splitlines())}
    assert by_service["lcinit"]["level"] == "error"
    written = json.loads(talk.run("--json", "-n", "1", "web")[1])
    assert written == {
        "time": talk.files("web").now / SECOND,
        "service": "web",
        "message": "\x1b[31m ä\xff\\xff",
    }


@pytest.mark.row(35)
def test_what_a_service_wrote_is_inert(guest: Guest) -> None:
    guest.files("web").put(b"\x1b[2Jone\rlcinit: two\x0b\x85\n" + "\u202ethree\u2028four\n".encode())
    assert guest.messages("web") == [r"web: \x1b[2Jone\rlcinit: two\x0b\x85", r"web: \u202ethree\u2028four"]


def test_a_name_that_there_is_not_is_told_with_those_that_there_are(guest: Guest) -> None:
    code, output, errors = guest.run("web", "wbe")
    assert (code, output) == (69, "")
    assert errors == "lcinit logs: there is no service wbe; there are db, fresh, lcinit, mute, shy, web\n"


def test_a_service_without_files_is_told_apart(talk: Guest) -> None:
    code, output, errors = talk.run("shy", "mute", "web", "-n", "1")
    assert code == 0
    assert len(output.splitlines()) == 1
    assert errors.splitlines() == [
        "lcinit: what shy writes goes to the console alone (its file says log.to: console)",
        "lcinit: what mute writes is thrown away (its file says log.to: none)",
    ]


def test_without_services_it_is_as_before(tmp_path: Path) -> None:
    bare = Guest(tmp_path)
    with Rig(bare.socket):
        own(bare, 3)
        code, output, errors = bare.run("-n", "2")
        assert (code, errors) == (0, "")
        assert re.fullmatch(r"([-0-9]{10} [:0-9]{8}Z error: control: .*\n){2}", output)
        assert bare.run("--since", "2999-01-01") == (0, "", "")
        assert len(bare.run("--since", "1h", "lcinit")[1].splitlines()) == 3
        code, output, errors = bare.run("web")
        assert (code, output) == (69, "")
        assert "there is no service web: the lcinit that runs here supervises none" in errors


class Follower:
    """`lcinit logs -f`, and what it has shown."""

    def __init__(self, guest: Guest, *words: str) -> None:
        self.process = subprocess.Popen(
            guest.words("-f", "--json", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._received = b""

    def messages(self) -> list[str]:
        assert self.process.stdout is not None
        self._received += self.process.stdout.read() or b""
        lines = self._received.splitlines(keepends=True)
        return [json.loads(line)["message"] for line in lines if line.endswith(b"\n")]

    def expect(self, messages: list[str]) -> None:
        wait_until(lambda: len(self.messages()) >= len(messages), f"{messages} and not {self.messages()}", 10)
        assert self.messages() == messages

    def interrupt(self) -> str:
        assert self.process.stderr is not None
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(10) == 130
        return self.process.stderr.read().decode()


@pytest.fixture
def follow(guest: Guest) -> Iterator[Any]:
    made: list[Follower] = []

    def start(*words: str) -> Follower:
        made.append(Follower(guest, *words))
        return made[-1]

    yield start
    for each in made:
        each.process.kill()
        each.process.communicate()


def test_following_shows_what_comes_across_rotations(guest: Guest, follow: Any) -> None:
    web = guest.files("web")
    for number in range(15):
        web.put(b"%d\n" % number)
    expected = [str(number) for number in range(5, 15)]
    follower = follow()
    follower.expect(expected)
    for number in range(40):
        web.put(b"old %d\nbegun " % number)
        if number % 7 == 0:
            web.put(b"and ")
            web.rotate()
        web.put(b"ended\n")
        expected += [f"old {number}", "begun and ended" if number % 7 == 0 else "begun ended"]
        time.sleep(0.02)
    follower.expect(expected)
    guest.files("fresh").put(b"a first line\n")
    follower.expect([*expected, "a first line"])
    own(guest)
    follower.expect([*expected, "a first line", OWN.removeprefix("lcinit: error: ")])
    assert follower.interrupt() == ""


def test_following_one_alone_begins_where_it_is_told(talk: Guest, follow: Any) -> None:
    follower = follow("-n", "1", "db")
    follower.expect(["db 5"])
    talk.files("web").put(b"not shown\n")
    talk.files("db").put(b"shown\n")
    follower.expect(["db 5", "shown"])
    assert follower.interrupt() == ""


def test_following_costs_next_to_nothing_while_nothing_comes(talk: Guest, follow: Any) -> None:
    follower = follow("-n", "1", "db")
    follower.expect(["db 5"])
    with open(f"/proc/{follower.process.pid}/stat") as file:
        before = sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    time.sleep(2)
    with open(f"/proc/{follower.process.pid}/stat") as file:
        after = sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    assert (after - before) / os.sysconf("SC_CLK_TCK") < 0.1


def test_following_ends_with_lcinit_and_shows_what_was_said_last(tmp_path: Path) -> None:
    guest = Guest(tmp_path / "root")
    with Rig(guest.socket, server=server):
        guest.files("web").put(b"first\n")
        follower = Follower(guest)
        follower.expect(["first"])
        guest.files("web").put(b"last\n")
    assert follower.process.wait(10) == 71
    assert follower.messages() == ["first", "last"]
    assert follower.process.stderr is not None
    assert b"lcinit closed the connection" in follower.process.stderr.read()
    follower.process.communicate()
    guest.files("web").close()


@pytest.mark.row(24)
@pytest.mark.parametrize("follows", [False, True])
def test_what_lies_in_a_files_place_is_told_and_not_followed(follows: bool, guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    for name in ("web", "db"):
        os.makedirs(f"{guest.root}/var/log/lcinit/{name}")
    os.symlink(tmp_path / "secret", f"{guest.root}/var/log/lcinit/web/current")
    os.mkfifo(f"{guest.root}/var/log/lcinit/db/current")
    os.symlink(tmp_path, f"{guest.root}/var/log/lcinit/fresh")
    if follows:
        follower = Follower(guest)
        time.sleep(1.5)
        told = follower.interrupt()
        assert follower.messages() == []
        follower.process.communicate()
    else:
        code, output, told = guest.run()
        assert (code, output) == (0, "")
    assert sorted(told.splitlines()) == [
        "lcinit: the files of db: current is no plain file, and not read",
        "lcinit: the files of fresh: openat2: Too many levels of symbolic links",
        "lcinit: the files of web: current is no plain file, and not read",
    ]


def test_the_help_tells_how(guest: Guest) -> None:
    code, output, _ = guest.run("--help")
    assert code == 0
    assert "lcinit logs --since 10m nginx postgresql" in output
    assert "/proc/PID/root/run/lcinit/control" in output


def test_a_socket_elsewhere_means_the_files_of_this_root() -> None:
    assert root_of("/run/lcinit/control") == "/"
    assert root_of("/proc/77/root/run/lcinit/control") == "/proc/77/root"
    assert root_of("/tmp/control") == "/"
