"""The control socket against peers that it must not believe, that eat its room, or that speak nonsense."""

from __future__ import annotations

import array
import json
import os
import random
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.control import peer
from lcinit.control.varlink import DEPTH_LIMIT, MESSAGE_LIMIT
from lcinit.errors import LcinitError
from lcinit.linux import namespaces
from tests.namespace.control_rig import BOTH_LOOPS, Rig, report, wait_until
from tests.namespace.identities import (
    ORDINARY,
    STATUS,
    answer_as,
    connect,
    nobody_else,
    open_to_all,
    pid_1_of_another,
    reachable_path,
    root_of,
    user,
)
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root

GUEST_ROOT = 1000000


@pytest.fixture(params=BOTH_LOOPS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with Rig(str(tmp_path / "lcinit" / "control"), request.param) as running:
        yield running


def _all(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    data = b""
    try:
        while received := client.recv(65536):
            data += received
    except ConnectionResetError:
        pass
    return data


@pytest.fixture
def reachable() -> Iterator[str]:
    yield from reachable_path()


@pytest.mark.row(20)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_root_of_its_own_user_namespace_alone_is_served(reachable: str, loop: str) -> None:
    with Rig(reachable, loop) as rig:
        open_to_all(rig)
        _judge_four(rig)


def _judge_four(rig: Rig) -> None:
    assert answer_as(nobody_else, rig) == {"closed": False, "parameters": {"status": report()}}
    refused = {
        "an ordinary user": user(),
        "the guest's root": root_of(f"0 {GUEST_ROOT} 65536"),
        "root of a namespace whose root is the outer one": root_of("0 0 1"),
    }
    for who, identity in refused.items():
        answer = answer_as(identity, rig)
        assert answer.get("error") == "io.lcinit.Manager.AccessDenied", f"{who}: {answer}"
        assert answer["closed"], who
        assert "root of lcinit's own user namespace alone" in answer["parameters"]["message"]
    said = rig.said()
    assert f"has uid {ORDINARY}" in said
    assert f"has uid {GUEST_ROOT}" in said
    assert said.count("a client is refused") == 2  # of the third it was not said again so soon


@pytest.mark.row(20)
def test_a_process_that_ended_is_not_believed_for_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that connected is gone and its socket may be held by another: the number can be anybody's by now."""
    own = peer.own_namespace()
    with _accepted_from_the_dead() as accepted:
        assert "cannot be" in peer.refusal(accepted, own)
    # and when its number has passed to a process of lcinit's own namespace
    monkeypatch.setattr(peer, "_namespace", lambda *_: own.namespace)
    with _accepted_from_the_dead() as accepted:
        reason = peer.refusal(accepted, own)
    assert "has ended" in reason or "cannot be held" in reason


def _accepted_from_the_dead() -> socket.socket:
    """The server's end of a connection whose client has ended and was reaped."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"\0lcinit-test-{os.getpid()}-{time.monotonic_ns()}")
    listener.listen()
    child = os.fork()
    if child == 0:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(listener.getsockname())
        os._exit(0)
    accepted, _ = listener.accept()
    os.waitpid(child, 0)
    listener.close()
    return accepted


@pytest.mark.row(20)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_root_of_an_outer_pid_namespace_is_served_and_others_of_it_are_not(reachable: str, loop: str) -> None:
    with Rig(reachable, loop, pid_1_of_another) as rig:
        open_to_all(rig)
        assert answer_as(nobody_else, rig)["parameters"] == {"status": report()}
        assert answer_as(user(), rig)["error"] == "io.lcinit.Manager.AccessDenied"
        assert answer_as(root_of(f"0 {GUEST_ROOT} 65536"), rig)["error"] == "io.lcinit.Manager.AccessDenied"


@pytest.mark.row(20)
def test_a_procfs_of_another_pid_namespace_is_not_asked(tmp_path: Path) -> None:
    def body() -> None:
        namespaces.unshare(namespaces.CLONE_NEWPID)
        child = os.fork()
        if child == 0:  # PID 1 there, while /proc is still that of here
            try:
                peer.own_namespace()
            except OSError as error:
                os._exit(3 if "shows another PID namespace" in str(error) else 4)
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

    run_isolated(body)


@pytest.mark.row(30)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_five_hundred_idle_clients_keep_nobody_out(tmp_path: Path, loop: str) -> None:
    with Rig(str(tmp_path / "lcinit" / "control"), loop) as rig:
        before = rig.descriptors()
        idle = []
        for number in range(500):
            idle.append(connect(rig))
            if number % 2:
                idle[-1].sendall(b'{"method":')
        try:
            started = time.monotonic()
            with rig.client() as client:
                assert client.call("Status") == {"status": report()}
            assert time.monotonic() - started < 1
            assert rig.descriptors() - before <= 64
            assert len(rig.said().splitlines()) <= 5
        finally:
            for each in idle:
                each.close()
        wait_until(lambda: rig.descriptors() == before, "their descriptors are free")


@pytest.mark.row(30)
def test_followers_leave_room_and_those_that_follow_are_not_closed_for_the_idle(rig: Rig) -> None:
    following = [rig.client() for _ in range(48)]
    streams = [client.stream("Events", follow=True) for client in following]
    with rig.client() as client:
        client.call("Thaw")
    for stream in streams:
        assert next(stream)["events"][0]["kind"] == "thawed"
    with rig.client() as one_more, pytest.raises(LcinitError, match="as many clients as may be follow lcinit already"):
        next(one_more.stream("Logs", follow=True))
    with rig.client() as one_more, pytest.raises(LcinitError, match="as many clients"):
        one_more.upgrade("OpenConsole")
    idle = [connect(rig) for _ in range(100)]
    with rig.client() as client:
        client.call("Poweroff")
    for stream in streams:
        assert next(stream)["events"][0]["kind"] == "stop-asked"
    for connected in idle:
        connected.close()
    for client in following:
        client.close()


@pytest.mark.row(30)
def test_who_does_not_read_makes_room_and_costs_little_memory(rig: Rig) -> None:
    with rig.client() as client:
        client.call("Status")
    before = _resident(rig)
    deaf = [connect(rig) for _ in range(64)]
    for each in deaf:
        each.setblocking(False)
        try:
            for _ in range(200):
                each.send(STATUS * 200)
        except (BlockingIOError, BrokenPipeError):
            pass
    with rig.client() as client:
        assert client.call("Status") == {"status": report()}
    ticks = -1
    while ticks != (ticks := rig.cpu_ticks()):  # until it has done all that it does for them
        time.sleep(0.3)
    # for each what it sent, up to the cap of a message, and one reply
    assert _resident(rig) - before < 64 * (2 * MESSAGE_LIMIT + 4096)
    for each in deaf:
        each.close()


def _resident(rig: Rig) -> int:
    with open(f"/proc/{rig.pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.row(31)
def test_descriptors_that_are_sent_are_never_held(rig: Rig) -> None:
    with connect(rig) as client:
        client.sendall(STATUS)
        assert client.recv(65536)
        before = rig.descriptors()
        null = os.open("/dev/null", os.O_RDONLY)
        rights = array.array("i", [null] * 253)  # SCM_MAX_FD
        counts = []
        for _ in range(20):
            client.sendmsg([STATUS], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            assert client.recv(65536).startswith(b'{"parameters"')
            counts.append(rig.descriptors())
        os.close(null)
    assert counts == [before] * 20


def _nonsense(seed: int) -> bytes:
    """One message of many kinds of brokenness, or one that is valid."""
    chance = random.Random(seed)
    kind = seed % 8
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 400)) + b"\0"
    if kind == 1:
        return chance.choice((b"[", b'{"a":', b'{"parameters":[', b'"\\')) * chance.randrange(1, 20000) + b"\0"
    if kind == 2:
        depth = chance.choice((DEPTH_LIMIT - 3, DEPTH_LIMIT, 1000, 9000))
        return b'{"method":"io.lcinit.Manager.Status","parameters":{"x":' + b"[" * depth + b"]" * depth + b"}}\0"
    if kind == 3:
        return STATUS[: chance.randrange(len(STATUS))] + b"\0"
    if kind == 4:
        broken = bytearray(STATUS)
        broken[chance.randrange(len(broken))] = chance.randrange(256)
        return bytes(broken)
    if kind == 5:
        return b"x" * chance.choice((MESSAGE_LIMIT - 1, MESSAGE_LIMIT, MESSAGE_LIMIT + 1, 3 * MESSAGE_LIMIT)) + b"\0"
    if kind == 6:
        value = chance.choice(("1" * 5000, "1e999", "-0", "NaN", '"\\ud800"', '"\\u0000\x7f"', "null", "true"))
        return b'{"method":"io.lcinit.Manager.Signal","parameters":{"signal":' + value.encode() + b"}}\0"
    return b'{"method":"%s"}\0' % chance.choice((b".", b"..", b"a.b", b"io.lcinit.Manager.", b".Status", b"\xc3\xa9.x"))


@pytest.mark.row(32)
def test_nonsense_ends_its_own_connection_at_most(rig: Rig) -> None:
    with rig.client() as witness:
        for seed in range(800):
            with connect(rig) as client:
                try:
                    client.sendall(_nonsense(seed))
                    client.shutdown(socket.SHUT_WR)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                for reply in _all(client).split(b"\0")[:-1]:
                    assert set(json.loads(reply)) <= {"error", "parameters"}, (seed, reply)
        assert witness.call("Status") == {"status": report()}
    said = rig.said()
    assert "did not speak varlink" in said
    assert "unexpected" not in said
    assert len(said.splitlines()) < 20


@pytest.mark.row(32)
def test_a_deep_message_is_refused_without_a_parser(rig: Rig) -> None:
    """Within the length cap, and so deep that a parser which recurses would come to the end of its stack."""
    with connect(rig) as client:
        client.sendall(b'{"method":"a.b","parameters":' + b'{"a":' * 12000 + b"\0")
        assert _all(client) == b""
    assert f"it nests deeper than {DEPTH_LIMIT}" in rig.said()
