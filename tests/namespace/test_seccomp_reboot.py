"""Who in a handed-off guest may end it by reboot(2), and what becomes of all other calls."""

from __future__ import annotations

import errno
import os
import select
import threading
import time

import pytest

from lcinit.boot import probe
from lcinit.control.rebooting import RebootCalls
from lcinit.linux import namespaces, process, seccomp
from lcinit.linux.signals import SIGHUP, SIGINT, SIGKILL
from tests.namespace.isolated import needs_root, run_isolated
from tests.namespace.reboot_rig import (
    CAD_OFF,
    CAD_ON,
    HALT,
    KEXEC,
    POWER_OFF,
    RESTART,
    RESTART2,
    SW_SUSPEND,
    Guest,
    answered,
    forked,
    note_reboots,
    reboot,
    without_sys_boot,
)

pytestmark = needs_root


def test_the_guests_root_ends_it() -> None:
    script = lambda: [reboot(command) for command in (RESTART, RESTART2, HALT, POWER_OFF)]  # noqa: E731
    assert answered(script) == ([0, 0, 0, 0], [RESTART, RESTART, HALT, POWER_OFF], [])


def test_a_thread_may_call_as_its_process_may() -> None:
    def script() -> list[int]:
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(reboot(HALT)))
        thread.start()
        thread.join()
        return results

    assert answered(script) == ([0], [HALT], [])


def test_ctrl_alt_del_is_heard_without_effect() -> None:
    assert answered(lambda: [reboot(CAD_ON), reboot(CAD_OFF)]) == ([0, 0], [], [])


@pytest.mark.row(47)
def test_what_is_the_machines_and_wrong_magic_numbers_are_refused() -> None:
    calls = [(KEXEC,), (SW_SUSPEND,), (7,), (RESTART, 1), (RESTART, 0xFEE1DEAD, 2)]
    assert answered(lambda: [reboot(*call) for call in calls]) == ([errno.EINVAL] * len(calls), [], [])


@pytest.mark.row(47)
def test_nobody_without_the_capability_ends_the_guest() -> None:
    def script() -> list[int]:
        without_sys_boot()
        own = [reboot(command) for command in (RESTART, HALT, POWER_OFF, CAD_OFF, KEXEC)]
        os.setresuid(1000, 1000, 1000)
        return [*own, reboot(RESTART, 1), reboot(RESTART)]

    assert answered(script) == ([errno.EPERM] * 7, [], [])


@pytest.mark.row(47)
def test_all_capabilities_of_a_nested_user_namespace_are_none_here() -> None:
    def script() -> int:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        return reboot(POWER_OFF)

    assert answered(script) == (errno.EPERM, [], [])


@pytest.mark.row(47)
def test_a_namespace_made_from_inside_does_not_lend_its_capabilities_to_the_pid_namespace_above() -> None:
    def from_own_user_namespace() -> int:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        return reboot(POWER_OFF)

    def script() -> int:
        namespaces.unshare(namespaces.CLONE_NEWPID)  # owned by the guest's user namespace
        return forked(from_own_user_namespace)

    assert answered(script) == (errno.EPERM, [], [])


@pytest.mark.parametrize("own_user", [False, True], ids=["the-guests-user-namespace", "its-own-user-namespace"])
@pytest.mark.parametrize(("command", "death"), [(RESTART, SIGHUP), (POWER_OFF, SIGINT), (HALT, SIGINT)])
def test_a_container_in_the_guest_ends_itself_alone(command: int, death: int, own_user: bool) -> None:
    def body() -> None:
        def script() -> int:
            namespaces.unshare(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWUSER * own_user)
            return forked(lambda: reboot(command))

        guest = Guest(script)
        said: list[str] = []
        calls = RebootCalls(guest.listener, guest.namespace, machine=False, say=said.append)
        assert guest.answer(calls) == -death
        assert said == []

    run_isolated(body, pid=True)  # with the real reboot(2): were it made here, this PID 1 would end


def test_a_container_in_the_guest_without_the_capability_does_not_end() -> None:
    def incapable() -> int:
        without_sys_boot()
        return reboot(RESTART)

    def script() -> int:
        namespaces.unshare(namespaces.CLONE_NEWPID)
        return forked(incapable)

    assert answered(script) == (errno.EPERM, [], [])


@pytest.mark.row(47)
@pytest.mark.parametrize(("pid", "machine"), [(False, False), (True, True)])
def test_a_machine_is_only_ended_for_its_own_first_process(pid: bool, machine: bool) -> None:
    assert answered(lambda: [reboot(RESTART), reboot(POWER_OFF)], pid=pid, machine=machine) == (
        [errno.EPERM, errno.EPERM],
        [],
        [],
    )


@pytest.mark.row(47)
def test_a_number_that_may_be_another_process_by_now_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "is_waiting", lambda _listener, _identity: False)
    assert answered(lambda: reboot(POWER_OFF)) == (errno.EPERM, [], [])


def test_a_caller_that_was_killed_is_no_trouble() -> None:
    def body() -> None:
        made: list[int] = []
        note_reboots(made)

        def script() -> int:
            children = []
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    without_sys_boot()
                    while True:
                        reboot(RESTART)
                children.append(pid)
            time.sleep(0.3)  # nobody answers yet: all wait in the call
            for pid in children[::2]:
                os.kill(pid, SIGKILL)
                os.waitpid(pid, 0)
            time.sleep(0.3)  # from here on they are answered
            for pid in children[1::2]:
                os.kill(pid, SIGKILL)  # whatever becomes of their calls just now
                os.waitpid(pid, 0)
            return reboot(HALT)

        guest = Guest(script)
        time.sleep(0.45)
        said: list[str] = []
        calls = RebootCalls(guest.listener, guest.namespace, machine=False, say=said.append)
        assert guest.answer(calls) == 0
        assert made == [HALT]
        assert said == []

    run_isolated(body, pid=True)


@pytest.mark.parametrize("received", [True, False])
def test_a_call_that_is_not_waiting_any_more_is_answered_to_nobody(received: bool) -> None:
    def body() -> None:
        pipe, dead = os.pipe(), os.pipe()

        def script() -> int:
            pid = os.fork()
            if pid == 0:
                reboot(RESTART)
            os.read(pipe[0], 1)
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
            os.write(dead[1], b"d")
            return os.read(pipe[0], 1) == b"e"  # the listener hangs up with the last who could call

        guest = Guest(script)
        select.select([guest.listener], [], [])
        call = seccomp.receive(guest.listener) if received else None
        if call is not None:
            assert seccomp.is_waiting(guest.listener, call.id)
        os.write(pipe[1], b"k")
        assert os.read(dead[0], 1) == b"d"
        if call is not None:
            assert not seccomp.is_waiting(guest.listener, call.id)
            assert not seccomp.answer(guest.listener, call.id, errno.EPERM)
        else:
            assert seccomp.receive(guest.listener) is None
        os.write(pipe[1], b"e")
        assert guest.result() is True

    run_isolated(body, pid=True)


def test_a_listener_above_is_found_before_anything_is_done() -> None:
    def body() -> None:
        procfs = namespaces.open_procfs()
        assert probe._no_listener(procfs) == ""
        process.set_no_new_privs()
        listener = seccomp.listen(seccomp.notify_program(()))
        assert "a seccomp listener already" in probe._no_listener(procfs)
        os.close(listener)

    run_isolated(body, pid=True)
