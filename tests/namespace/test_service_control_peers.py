"""Who is served where lcinit is in a user namespace with an id map, as it is with exec.pid: shared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from lcinit.linux import namespaces, process
from tests.namespace.control_rig import BOTH_LOOPS, Rig, report, wait_until
from tests.namespace.identities import (
    ORDINARY,
    answer_as,
    nobody_else,
    open_to_all,
    pid_1_of_another,
    reachable_path,
    root_of,
    user,
)
from tests.namespace.isolated import needs_root

pytestmark = [needs_root, pytest.mark.row(20), pytest.mark.parametrize("loop", BOTH_LOOPS)]

FIRST, SIZE = 1000000, 65536
NOBODY = 65534  # the overflow uid, and a uid that the map has
AS_ROOT = root_of(f"0 {FIRST} {SIZE}")


@pytest.fixture
def place() -> Iterator[str]:
    """A path for the socket of the mapped root, whose directory everybody can reach."""
    for path in reachable_path():
        os.mkdir(os.path.dirname(path), 0o700)
        os.chown(os.path.dirname(path), FIRST, FIRST)
        yield path
        shutil.rmtree(os.path.dirname(path))


def _mapped() -> None:
    """For a server: root of a mapped user namespace, in the test's own PID namespace."""
    import uvloop  # noqa: F401 - while its file can be read

    AS_ROOT()


def _mapped_pid_1() -> None:
    """And PID 1 of a PID namespace."""
    import uvloop  # noqa: F401

    pid_1_of_another()
    AS_ROOT()
    process.set_pdeathsig(9)  # the ids have changed, which took it away


def _inside(rig: Rig, then: Callable[[], None]) -> Callable[[], None]:
    """Become `then` in the server's user namespace and PID namespace."""

    def become() -> None:
        with open(f"/proc/{rig.pid}/task/{rig.pid}/children") as file:
            children = file.read().split()
        pidfd = process.pidfd_open(int(children[0]) if children else rig.pid)
        if children:
            namespaces.setns(pidfd, namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS)
        namespaces.setns(pidfd, namespaces.CLONE_NEWUSER)
        os.close(pidfd)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            os._exit(0)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        process.set_dumpable(True)  # as a program is that was executed there
        then()
        process.set_dumpable(True)

    return become


SERVERS = pytest.mark.parametrize("before", [_mapped, _mapped_pid_1], ids=["same-pid-namespace", "its-own"])


@SERVERS
def test_root_inside_and_root_outside_are_served(place: str, loop: str, before: Callable[[], None]) -> None:
    with Rig(place, loop, before) as rig:
        for identity in (nobody_else, _inside(rig, nobody_else)):
            answer = answer_as(identity, rig)
            assert answer == {"closed": False, "parameters": {"status": report()}}, rig.said()


@SERVERS
def test_others_cannot_reach_it(place: str, loop: str, before: Callable[[], None]) -> None:
    with Rig(place, loop, before) as rig:
        for identity in (user(), user(NOBODY), _inside(rig, user()), _inside(rig, user(NOBODY))):
            assert answer_as(identity, rig)["failed"].startswith("PermissionError")


@SERVERS
@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (user(), f"has uid {ORDINARY}"),
        (user(NOBODY), f"has uid {NOBODY}"),  # it is shown as those are that have no uid here
        (root_of("0 0 1"), "is root of another user namespace"),
        (root_of(f"0 {NOBODY} 1"), f"has uid {NOBODY}"),
        (root_of("0 1 9"), "has uid 1"),
    ],
    ids=["ordinary", "nobody", "root-of-one-below", "nobody-as-root-of-one-below", "ordinary-as-root-of-one-below"],
)
def test_who_is_below_is_told_apart_though_the_socket_is_open_to_all(
    place: str, loop: str, before: Callable[[], None], then: Callable[[], None], reason: str
) -> None:
    with Rig(place, loop, before) as rig:
        open_to_all(rig)
        answer = answer_as(_inside(rig, then), rig)
        assert (answer.get("error"), answer.get("closed")) == ("io.lcinit.Manager.AccessDenied", True), answer
        wait_until(lambda: reason in rig.said(), reason)
        assert answer_as(nobody_else, rig)["parameters"]


def test_who_entered_without_a_uid_is_not_taken_for_root_outside(place: str, loop: str) -> None:
    """It has a number here and belongs to lcinit's user namespace: it is told from who is above by that alone."""
    with Rig(place, loop, _mapped) as rig:
        open_to_all(rig)

        def entered() -> None:
            pidfd = process.pidfd_open(rig.pid)
            namespaces.setns(pidfd, namespaces.CLONE_NEWUSER)
            os.close(pidfd)

        assert answer_as(entered, rig)["error"] == "io.lcinit.Manager.AccessDenied"


def test_a_user_namespace_beside_it_without_a_map_is_no_proof(place: str, loop: str) -> None:
    """Nothing tells yet where that one belongs."""
    with Rig(place, loop, _mapped) as rig:
        open_to_all(rig)
        answer = answer_as(lambda: namespaces.unshare(namespaces.CLONE_NEWUSER), rig)
        assert answer["error"] == "io.lcinit.Manager.AccessDenied"
