"""The control socket with a real server process, under both loops: calls, streams, the console, and where it stands."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lcinit import __version__
from lcinit.control import service
from lcinit.control.client import Client, NotServed
from lcinit.control.service import ControlServer
from lcinit.control.serving import serving
from lcinit.errors import LcinitError
from tests.namespace.control_rig import BOTH_LOOPS, FakeSupervised, Rig, guest_server, later_server, report, wait_until
from tests.namespace.isolated import needs_root, run_isolated

if TYPE_CHECKING:
    from lcinit.control.service import Serving

pytestmark = needs_root


@pytest.fixture(params=[(loop, guest_server) for loop in BOTH_LOOPS] + [("asyncio", later_server)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    loop, server = request.param
    with Rig(str(tmp_path / "lcinit" / "control"), loop, server=server) as running:
        yield running


def _raw(rig: Rig) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(rig.path)
    peer.settimeout(5)
    return peer


def _replies(peer: socket.socket, count: int) -> list[Any]:
    data = b""
    while data.count(b"\0") < count:
        received = peer.recv(65536)
        assert received, f"closed after {data!r}"
        data += received
    return [json.loads(each) for each in data.split(b"\0")[:count]]


def _events(rig: Rig) -> list[tuple[str, dict[str, Any]]]:
    with rig.client() as client:
        return [(event["kind"], event["facts"]) for event in client.call("Events")["events"]]


def test_status_and_plan_are_what_lcinit_says(rig: Rig) -> None:
    with rig.client() as client:
        assert client.call("Status") == {"status": report()}
        assert client.call("Plan") == {"plan": {"steps": [{"step": "mount-proc"}]}}


def test_the_socket_is_for_root_alone(rig: Rig) -> None:
    assert stat.S_IMODE(os.stat(rig.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(rig.path)).st_mode) == 0o700


def test_the_socket_goes_with_the_server(tmp_path: Path) -> None:
    path = str(tmp_path / "control" / "socket")
    with Rig(path) as rig:
        assert os.path.exists(path)
    assert not os.path.lexists(path)
    assert rig.status == 0


def test_requests_say_whom_they_come_from(rig: Rig) -> None:
    with rig.client() as client:
        client.call("Poweroff")
        client.call("Reboot", at_once=True)
        assert client.call("Signal", signal="HUP") == {"signalled": 1}
        assert client.call("Signal", signal="SIGRTMIN+3", whom="all") == {"signalled": 7}
        client.call("Thaw")
        client.call("SetConsoleSize", rows=50, columns=132)
    assert _events(rig) == [
        ("stop-asked", {"request": "poweroff", "origin": "control", "at_once": False}),
        ("stop-asked", {"request": "reboot", "origin": "control", "at_once": True}),
        ("signalled", {"number": signal.SIGHUP, "whom": "init"}),
        ("signalled", {"number": 37, "whom": "all"}),
        ("thawed", {}),
        ("resized", {"rows": 50, "columns": 132}),
    ]


@pytest.mark.parametrize(
    ("method", "parameters", "message", "hint", "code"),
    [
        ("Halt", {}, "cannot halt: the guest does not run", "it ended with exit code 3", 71),
        ("Freeze", {}, "cannot freeze: there is no cgroup.freeze here", "it needs cgroup2", 71),
        ("Reexec", {}, "cannot do Reexec: Exec format error (/sbin/init)", "", 71),
        ("Restart", {}, "lcinit failed at io.lcinit.Manager.Restart with ZeroDivisionError", "this is a fault", 70),
        ("Signal", {"signal": "SIGNONE"}, "lcinit does not take this signal for Signal", "", 64),
        ("Signal", {"signal": "HUP", "whom": "some"}, "lcinit does not take this whom for Signal", "", 64),
        ("SetLogLevel", {"level": "loud"}, "lcinit does not take this level for SetLogLevel", "", 64),
        ("Poweroff", {"later": True}, "lcinit does not take this later for Poweroff", "", 64),
        ("SetConsoleSize", {"rows": 0, "columns": 80}, "lcinit does not take this rows for SetConsoleSize", "", 64),
        ("Levitate", {}, "the lcinit that runs here has no Levitate", "it may be of another version", 71),
        ("org.example.Other", {}, "the lcinit that runs here has no org.example.Other", "it may be", 71),
        ("Logs", {"follow": True}, "lcinit answers Logs with org.varlink.service.ExpectedMore", "", 71),
        ("OpenConsole", {}, "lcinit answers OpenConsole with org.varlink.service.ExpectedUpgrade", "", 71),
    ],
)
def test_what_cannot_be_done_is_told_and_the_connection_goes_on(
    rig: Rig, method: str, parameters: dict[str, Any], message: str, hint: str, code: int
) -> None:
    with rig.client() as client:
        with pytest.raises(LcinitError) as caught:
            client.call(method, **parameters)
        assert (caught.value.message, caught.value.exit_code) == (message, code)
        assert caught.value.hint.startswith(hint)
        assert client.call("Status") == {"status": report()}


def test_an_unexpected_error_is_in_the_log(rig: Rig) -> None:
    with rig.client() as client:
        with pytest.raises(LcinitError):
            client.call("Restart")
        messages = [(record["level"], record["message"]) for record in client.call("Logs")["records"]]
    assert messages == [("error", "control: io.lcinit.Manager.Restart: unexpected: ZeroDivisionError: a bug")]


def test_introspection_gives_the_interface_files(rig: Rig) -> None:
    with rig.client() as client:
        info = client.call("org.varlink.service.GetInfo")
        assert info["interfaces"] == ["io.lcinit.Manager", "org.varlink.service"]
        assert (info["product"], info["version"]) == ("lcinit", __version__)
        for interface in info["interfaces"]:
            text = client.call("org.varlink.service.GetInterfaceDescription", interface=interface)["description"]
            assert f"\ninterface {interface}\n" in text


def test_every_method_of_the_interface_is_served_and_no_other(rig: Rig) -> None:
    from lcinit.control.answers import Interfaces
    from lcinit.control.manager import INTERFACE, Manager

    interfaces = Interfaces()
    Manager(None, lambda: True).serve_in(interfaces)  # type: ignore[arg-type]
    text = interfaces._texts[INTERFACE]
    described = {line.split("(")[0].removeprefix("method ") for line in text.splitlines() if line.startswith("method ")}
    assert set(interfaces._methods[INTERFACE]) == described


def test_calls_in_one_packet_are_answered_in_order(rig: Rig) -> None:
    with _raw(rig) as peer:
        names = ["Status", "Levitate", "Plan"] * 50
        peer.sendall(b"".join(b'{"method":"io.lcinit.Manager.%s"}\0' % name.encode() for name in names))
        replies = _replies(peer, len(names))
    kinds = [
        "error" if "error" in reply else next(iter(reply["parameters"])).capitalize().replace("Error", "")
        for reply in replies
    ]
    assert kinds == ["Status", "error", "Plan"] * 50


def test_more_calls_than_are_held_at_once_are_all_answered(rig: Rig) -> None:
    call = b'{"method":"io.lcinit.Manager.Plan"}\0'
    count = 5 * 65536 // len(call)
    with _raw(rig) as peer:
        sender = threading.Thread(target=peer.sendall, args=(call * count,))
        sender.start()
        time.sleep(0.3)  # it is held up: nobody reads the replies
        replies = _replies(peer, count)
        sender.join(5)
    assert all("plan" in reply["parameters"] for reply in replies)


def test_a_client_that_shuts_its_side_down_gets_its_replies(rig: Rig) -> None:
    with _raw(rig) as peer:
        peer.sendall(b'{"method":"io.lcinit.Manager.Status"}\0' * 40)
        peer.shutdown(socket.SHUT_WR)
        data = b""
        while received := peer.recv(65536):
            data += received
    assert data.count(b"\0") == 40


def test_oneway_is_done_and_not_answered(rig: Rig) -> None:
    with _raw(rig) as peer:
        peer.sendall(b'{"method":"io.lcinit.Manager.Thaw","oneway":true}\0{"method":"io.lcinit.Manager.Plan"}\0')
        assert "plan" in _replies(peer, 1)[0]["parameters"]
    assert _events(rig) == [("thawed", {})]


def test_a_byte_at_a_time_is_a_call_too(rig: Rig) -> None:
    with _raw(rig) as peer:
        for byte in b'{"method":"io.lcinit.Manager.Plan"}\0':
            peer.sendall(bytes((byte,)))
        assert "plan" in _replies(peer, 1)[0]["parameters"]


def test_events_follow_from_a_number_on(rig: Rig) -> None:
    with rig.client() as asking, rig.client() as following:
        asking.call("Thaw")
        asking.call("Poweroff")
        stream = following.stream("Events", after=1, follow=True)
        first = next(stream)
        asking.call("Reboot")
        second = next(stream)
    assert [event["facts"]["request"] for event in first["events"]] == ["poweroff"]
    assert [(event["seq"], event["facts"]["request"]) for event in second["events"]] == [(3, "reboot")]
    assert (first["missed"], second["missed"]) == (0, 0)


def test_a_follower_that_falls_behind_is_told_how_much_it_missed(rig: Rig) -> None:
    with rig.client() as asking, rig.client() as following:
        stream = following.stream("Logs", follow=True)
        for _ in range(8):
            asking.call("Signal", signal="USR1", whom="all")
        asking.call("SetLogLevel", level="error")
        seen, missed = 0, 0
        while seen + missed < 8 * 2500:
            reply = next(stream)
            seen += len(reply["records"])
            missed += reply["missed"]
            assert len(reply["records"]) <= 100
    assert seen + missed == 8 * 2500
    assert missed > 0
    assert seen >= 1000  # what is kept is given


def test_log_records_that_do_not_fit_into_one_reply_are_the_newest(rig: Rig) -> None:
    with rig.client() as client:
        client.call("Signal", signal="USR1", whom="all")
        answer = client.call("Logs")
        assert [record["message"] for record in answer["records"]] == [f"line {n}" for n in range(1500, 2500)]
        assert answer["missed"] == 1500
        last = answer["records"][-1]["seq"]
        assert client.call("Logs", after=last) == {"records": [], "missed": 0}


def test_a_follower_that_leaves_is_forgotten(rig: Rig) -> None:
    with rig.client() as first:
        first.call("Status")
        before = rig.descriptors() - 1
    with rig.client() as following, rig.client() as asking:
        stream = following.stream("Events", follow=True)
        asking.call("Thaw")
        next(stream)
        assert rig.descriptors() == before + 2
    wait_until(lambda: rig.descriptors() == before, "the server closes the connections")
    with rig.client() as client:
        client.call("Thaw")


def test_console_shows_what_was_and_what_is_and_takes_typing(rig: Rig) -> None:
    client = rig.client()
    peer, received = client.upgrade("OpenConsole")
    with peer:
        peer.settimeout(5)
        peer.sendall(b"hello\r")
        while b"HELLO\r" not in received:
            received += peer.recv(4096)
    assert received == b"seen before\r\nHELLO\r"
    wait_until(lambda: ("tap-closed", {}) in _events(rig), "the console is released")


def test_console_of_a_guest_that_reads_slowly_gets_all_that_is_typed(rig: Rig) -> None:
    with rig.client() as asking:
        asking.call("Signal", signal="HUP", whom="all")
    peer, received = rig.client().upgrade("OpenConsole")
    with peer:
        peer.settimeout(5)
        peer.sendall(b"abcdefgh")
        while not received.endswith(b"GH"):
            received += peer.recv(4096)
    assert received == b"seen before\r\nABCDEFGH"


def test_console_that_is_not_read_loses_output_and_is_told_how_much(rig: Rig) -> None:
    peer, received = rig.client().upgrade("OpenConsole")
    with peer, rig.client() as asking:
        asking.call("Signal", signal="USR2", whom="all")  # 4 MiB
        peer.settimeout(5)
        while b"dropped]\r\n" not in received[-60:]:
            received += peer.recv(1 << 20)
        asking.call("Signal", signal="WINCH", whom="all")
        while not received.endswith(b"and on\r\n"):
            received += peer.recv(4096)
    shown, _, notice = received.partition(b"\r\n[lcinit: ")
    dropped = int(notice.split()[0])
    assert len(shown) - len(b"seen before\r\n") + dropped == 64 * 65536
    assert dropped > 1 << 20
    assert notice.endswith(b" bytes of console output dropped]\r\nand on\r\n")


def test_an_idle_server_is_not_woken(rig: Rig) -> None:
    with rig.client() as client, rig.client() as following:
        client.call("Status")
        client.call("Thaw")
        next(following.stream("Events", follow=True))
        time.sleep(0.2)
        before = rig.switches(), rig.cpu_ticks()
        time.sleep(2)
        assert (rig.switches(), rig.cpu_ticks()) == before


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "lcinit" / "control")
    os.mkdir(os.path.dirname(path), 0o755)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with Rig(path) as rig:
        with rig.client() as client:
            client.call("Status")
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        with pytest.raises(AssertionError, match="another lcinit serves it; one lcinit supervises"), Rig(path):
            pass
        with rig.client() as client:
            client.call("Status")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "lcinit" / "control")
    os.mkdir(os.path.dirname(path), 0o700)
    if kind == "file":
        Path(path).write_text("somebody's")
    else:
        os.symlink("/nowhere", path)
    with pytest.raises(AssertionError, match="there is something else; remove it"), Rig(path):
        pass
    assert os.path.lexists(path)


def test_a_directory_that_is_a_link_or_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.symlink("elsewhere", tmp_path / "linked")
    with pytest.raises(AssertionError, match="it is no directory"), Rig(str(tmp_path / "linked" / "control")):
        pass
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 1234, 1234)
    with pytest.raises(AssertionError, match="belongs to uid 1234"), Rig(str(foreign / "control")):
        pass
    assert os.listdir(tmp_path / "elsewhere") == os.listdir(foreign) == []


def test_a_longer_path_than_a_socket_address_holds_is_served(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = str(directory / "lcinit" / "control")
    with Rig(path):
        assert stat.S_ISSOCK(os.stat(path).st_mode)


def test_nobody_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotServed, match=r"nobody serves .*/control; it does with exec.mode: tolerant") as caught:
        Client(str(tmp_path / "control"))
    assert caught.value.exit_code == 71


def test_a_server_that_lets_nobody_in_is_a_clear_error(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(path)
        full.listen(0)
        with Client(path), pytest.raises(LcinitError, match=r"takes no client on .* within 0 s; try again"):
            Client(path, timeout=0.2)


def test_a_server_that_does_not_answer_is_a_clear_error(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        mute.listen()
        with Client(path, timeout=0.2) as client, pytest.raises(LcinitError, match="says nothing on"):
            client.call("Status")


@pytest.mark.row(40)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_no_room_for_the_socket_is_told_and_tried_again(tmp_path: Path, loop: str) -> None:
    def body() -> None:
        from lcinit.control import service
        from lcinit.linux import mount

        small = str(tmp_path / "small")
        os.mkdir(small)
        filesystem = mount.new_mount("tmpfs", {"nr_inodes": "2"})
        mount.move_mount(filesystem, "", -100, small, 0)
        os.close(filesystem)
        Path(small, "last").touch()

        def hurry() -> None:
            service._FIRST_RETRY = 0.05

        with Rig(f"{small}/lcinit/control", loop, hurry) as rig:
            wait_until(lambda: "No space left on device" in rig.said(), "the message")
            assert "cannot make the control socket" in rig.said()
            assert "trying again in" in rig.said()
            mount_again = mount.new_mount("tmpfs", {})
            mount.move_mount(mount_again, "", -100, small, 0)
            os.close(mount_again)

            def served() -> bool:
                try:
                    with rig.client() as client:
                        client.call("Status")
                except NotServed:
                    return False
                return True

            wait_until(served, "it is served when there is room")

    run_isolated(body)


def test_one_that_is_served_later_is_closed_and_removed_before_anybody_came(tmp_path: Path) -> None:
    path = tmp_path / "lcinit" / "control"
    with Rig(str(path), server=later_server):
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "is not served now: Too many open files in system"),
        (ValueError("unforeseen"), "was to be served: ValueError: unforeseen"),
    ],
)
def test_a_first_client_that_cannot_be_served_is_served_in_the_end(
    failure: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_FIRST_RETRY", 0.2)
    refusals = [failure]

    def server(path: str) -> ControlServer:
        serve = serving(FakeSupervised())

        def serve_or_not(descriptor: int) -> Serving:
            if refusals:
                raise refusals.pop()
            return serve(descriptor)

        return ControlServer(serve_or_not, path=path, later=True)

    with Rig(str(tmp_path / "lcinit" / "control"), server=server) as rig:
        with rig.client() as client:
            assert client.call("Status") == {"status": report()}
        assert rig.said().count(said) == 1


@pytest.mark.row(40)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_no_descriptor_left_is_survived_and_told(tmp_path: Path, loop: str) -> None:
    def few() -> None:
        first = os.open("/", os.O_PATH)
        highest = first + 90  # whatever is open below
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
        for _ in range(66):
            os.open("/", os.O_PATH)

    with Rig(str(tmp_path / "lcinit" / "control"), loop, few) as rig:
        before = rig.descriptors()
        peers = [_raw(rig) for _ in range(60)]
        try:
            with rig.client() as client:
                assert client.call("Status") == {"status": report()}
            assert "a client cannot be let in: Too many open files" in rig.said()
            ticks = rig.cpu_ticks()
            time.sleep(0.5)
            assert rig.cpu_ticks() - ticks < 10, "it is woken without end"
        finally:
            for peer in peers:
                peer.close()
        wait_until(lambda: rig.descriptors() == before, "the descriptors are free again")
    assert len(rig.output.splitlines()) < 20
