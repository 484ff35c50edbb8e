"""How soon a service comes again, what its end means, what a changed file costs, which services a runlevel has."""

from __future__ import annotations

import pytest

from lcinit.config.service_values import Service, ServiceLog
from lcinit.linux.signals import SIGKILL, SIGTERM
from lcinit.service.changes import Change, changes, differing
from lcinit.service.exits import Exit, exit_of
from lcinit.service.restarts import Restarts
from lcinit.service.runlevels import members, normal, of_boot
from lcinit.supervisor.reaper import Status

PLAIN = Service(name="a", restart_jitter=0.0)


def delays(service: Service, count: int, lived: float = 0.0, chance: float = 0.5) -> list[float]:
    restarts = Restarts()
    return [restarts.delay(service, lived, chance) for _ in range(count)]


def test_the_first_restart_is_at_once_and_the_next_take_longer_and_longer() -> None:
    assert delays(PLAIN, 6) == pytest.approx([0, 0.2, 0.4, 0.8, 1.6, 3.2])
    assert delays(PLAIN, 40)[-1] == 60.0
    assert delays(PLAIN.replace(restart_delay=1.0, restart_max_delay=2.5), 5) == [0, 1, 2, 2.5, 2.5]
    assert delays(PLAIN.replace(restart_delay=0.0), 5) == [0] * 5


def test_jitter_spreads_them_to_either_side() -> None:
    service = PLAIN.replace(restart_jitter=0.1, restart_delay=10.0)
    assert delays(service, 2, chance=0.0)[1] == pytest.approx(9.0)
    assert delays(service, 2, chance=1.0)[1] == pytest.approx(11.0)


def test_up_for_long_enough_it_begins_anew() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.delay(PLAIN, 0.0, 0.5)
    assert restarts.delay(PLAIN, 59.9, 0.5) > 0
    assert restarts.delay(PLAIN, 60.0, 0.5) == 0
    assert restarts.total == 7


def test_starts_within_the_interval_are_limited() -> None:
    service = PLAIN.replace(start_limit_burst=3, start_limit_interval=10.0)
    restarts = Restarts()
    assert [restarts.started(service, at) for at in (0, 1, 2, 3)] == [True, True, True, False]
    assert restarts.started(service, 10.5)
    restarts.forget()
    assert [restarts.started(service, at) for at in (11, 11, 11, 11)] == [True, True, True, False]


def test_without_a_limit_there_is_none() -> None:
    restarts = Restarts()
    assert all(restarts.started(PLAIN.replace(start_limit_burst=None), 0.0) for _ in range(1000))


@pytest.mark.parametrize(
    ("status", "keys", "oom", "result", "words"),
    [
        (Status(0), {}, 0, "success", "exit code 0"),
        (Status(3), {}, 0, "exit-code", "exit code 3"),
        (Status(3), {"success_exit_status": (3,)}, 0, "success", "exit code 3"),
        (Status(143), {}, 0, "exit-code", "exit code 143"),
        (Status(signal=SIGTERM), {}, 0, "success", "signal SIGTERM"),
        (Status(signal=SIGTERM), {"type": "oneshot"}, 0, "signal", "signal SIGTERM"),
        (Status(signal=SIGKILL), {}, 0, "signal", "signal SIGKILL"),
        (Status(signal=SIGKILL), {}, 1, "oom-kill", "signal SIGKILL, by the kernel for want of memory"),
        (Status(signal=SIGTERM), {}, 1, "success", "signal SIGTERM"),
        (Status(signal=10), {"success_exit_status": ("SIGUSR1",)}, 0, "success", "signal SIGUSR1"),
        (Status(signal=11, core=True), {}, 0, "core-dump", "signal SIGSEGV, core dumped"),
        (Status(signal=11), {}, 0, "signal", "signal SIGSEGV"),
    ],
)
def test_an_end_means_what_the_service_says(
    status: Status, keys: dict[str, object], oom: int, result: str, words: str
) -> None:
    found = exit_of(Service(name="a", **keys), status, oom_kills=oom)  # type: ignore[arg-type]
    assert (found.result, found.words()) == (result, words)
    assert found.code == int(status)


def test_what_prevents_a_restart_is_told_by_code_or_signal() -> None:
    service = Service(name="a", restart_prevent_exit_status=(7, "SIGUSR1"))
    ends = (Status(7), Status(8), Status(signal=10), Status(138))
    assert [exit_of(service, end).prevent for end in ends] == [True, False, True, False]
    assert Exit(result="success").prevent is False


A, B = Service(name="a", command=("x",)), Service(name="b", command=("y",))


def differences(old: dict[str, Service], new: dict[str, Service], **keys: object) -> tuple[Change, ...]:
    facts = {"up": tuple(old), "old_members": frozenset(old), "new_members": frozenset(new), **keys}
    return changes(old, new, **facts)  # type: ignore[arg-type]


def test_what_is_the_same_is_no_change() -> None:
    assert differences({"a": A}, {"a": A.replace()}) == ()


def test_policy_applies_without_a_restart_and_what_the_process_is_does_not() -> None:
    policy = A.replace(restart="always", stop_timeout=1.0, log=ServiceLog(to="file"))
    assert differences({"a": A}, {"a": policy}) == (
        Change(name="a", kind="changed", keys=("stop_timeout", "restart", "log"), effect="none"),
    )
    other = A.replace(command=("z",))
    assert differences({"a": A}, {"a": other})[0].effect == "restart"
    assert differences({"a": A}, {"a": other}, up=())[0].effect == "none"
    assert differing(A, other) == ("command",)


def test_services_come_and_go() -> None:
    assert differences({"a": A}, {"a": A, "b": B}) == (Change(name="b", kind="added", effect="start"),)
    assert differences({"a": A}, {"a": A, "b": B}, new_members=frozenset("a"))[0].effect == "none"
    assert differences({"a": A, "b": B}, {"a": A}) == (Change(name="b", kind="removed", effect="stop"),)
    assert differences({"a": A}, {}, up=())[0].effect == "none"


def test_the_runlevel_gains_and_loses_services() -> None:
    moved = A.replace(runlevels=("5",))
    assert differences({"a": A}, {"a": moved}, new_members=frozenset())[0] == Change(
        name="a", kind="changed", keys=("runlevels",), effect="stop"
    )
    assert differences({"a": A}, {"a": A}, new_members=frozenset())[0].kind == "disabled"
    enabled = differences({"a": A}, {"a": A}, up=(), old_members=frozenset())
    assert enabled == (Change(name="a", kind="enabled", effect="start"),)


def test_a_runlevel_has_its_own_services_and_those_of_the_boot() -> None:
    services = {
        "net": Service(name="net", runlevels=("S",)),
        "web": Service(name="web", runlevels=("3",)),
        "job": Service(name="job"),
        "off": Service(name="off"),
    }
    enabled = ("net", "web", "job", "ghost")
    assert members(services, enabled, "3") == {"net", "web", "job"}
    assert members(services, enabled, "2") == {"net", "job"}
    assert members(services, enabled, "1") == {"net"}
    assert of_boot(services, enabled) == {"net"}
    assert [normal(each) for each in ("S", "s", "1", "5")] == ["1", "1", "1", "5"]
