"""What a plan says of reboot(2) in a handed-off guest: answered wherever that can be, and else which inits may come."""

from __future__ import annotations

import pytest

from lcinit.config.values import Config, IdMap, IdRange
from lcinit.errors import ConfigError
from lcinit.plan import steps as s
from lcinit.plan.build import Plan, build
from lcinit.plan.facts import Guest, Machine
from lcinit.plan.inits import INITS

RANGES = (IdRange(inside=0, outside=1000000, size=65536),)
MAPPED = Config(id_map=IdMap(users=RANGES, groups=RANGES))
ALL = frozenset({"sys_admin", "sys_boot", "sys_ptrace"})
# machine on which the call cannot be answered, and a word of the cause
UNANSWERED = [
    pytest.param(Machine(no_listener="the manager has a seccomp listener"), "seccomp listener", id="no-listener"),
    pytest.param(Machine(capabilities=ALL - {"sys_boot"}), "CAP_SYS_BOOT", id="no-sys-boot"),
    pytest.param(Machine(capabilities=ALL - {"sys_ptrace"}), "CAP_SYS_PTRACE", id="no-sys-ptrace"),
    pytest.param(Machine(pid=4711), "not PID 1", id="not-pid-1"),
    pytest.param(Machine(foreign=frozenset({"pid"})), "user namespace above", id="foreign"),
]


def plan_of(config: Config, machine: Machine) -> Plan:
    return build(config, machine, ("/sbin/init",))


def answer_of(plan: Plan) -> s.AnswerReboot | None:
    found = [step for step in plan.steps if isinstance(step, s.AnswerReboot)]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("kind", sorted(INITS))
def test_any_init_may_come_with_an_id_map_where_the_keeper_answers(kind: str) -> None:
    plan = plan_of(MAPPED, Machine(capabilities=ALL, guest=Guest(init=kind, resolved=f"/sbin/{kind}")))
    assert answer_of(plan) is plan.steps[-2]  # after exec.before, whose commands are not the guest's
    assert not [note for note in plan.notes if "reboot" in note]


def test_a_plain_command_gets_no_keeper_for_what_it_never_calls() -> None:
    plain = Machine(guest=Guest(init="plain", resolved="/bin/true"))
    assert answer_of(build(MAPPED, plain, ("/bin/true",))) is None
    assert answer_of(build(MAPPED, plain, ("/opt/init",))) is not None
    assert answer_of(build(MAPPED, Machine(), ("/bin/true",))) is not None  # what it is, only the boot finds


@pytest.mark.parametrize("kind", sorted(INITS))
@pytest.mark.parametrize(("machine", "cause"), UNANSWERED)
def test_inits_that_need_reboot_are_refused_where_nobody_answers(kind: str, machine: Machine, cause: str) -> None:
    machine = machine.replace(guest=Guest(init=kind, resolved=f"/sbin/{kind}"))
    assert answer_of(plan_of(Config(), machine)) is None
    if INITS[kind].ends_without_reboot:
        plan = plan_of(MAPPED, machine)
        assert answer_of(plan) is None
        said = plan.warnings if machine.no_listener else plan.notes
        assert any("reboot(2) is refused" in line and cause in line for line in said)
    else:
        with pytest.raises(ConfigError, match=cause) as refused:
            plan_of(MAPPED, machine)
        assert "exec.mode: tolerant" in refused.value.hint


@pytest.mark.parametrize(("machine", "cause"), UNANSWERED)
def test_an_init_that_only_the_boot_finds_is_checked_then_with_the_same_cause(machine: Machine, cause: str) -> None:
    check = next(step for step in plan_of(MAPPED, machine).steps if isinstance(step, s.CheckInit))
    assert check.needs_no_reboot
    assert cause in check.why


def test_only_a_guest_with_an_id_map_that_is_handed_over_needs_an_answer() -> None:
    assert answer_of(plan_of(Config(), Machine())) is None
    tolerant = MAPPED.replace(exec=MAPPED.exec.replace(mode="tolerant"))
    assert answer_of(plan_of(tolerant, Machine())) is None


def test_a_guest_without_the_capability_is_answered_by_the_kernel() -> None:
    config = MAPPED.replace(capabilities=MAPPED.capabilities.replace(drop=("sys_boot",)))
    assert answer_of(plan_of(config, Machine())) is None
    with pytest.raises(ConfigError, match=r"capabilities\.drop"):
        plan_of(config, Machine(guest=Guest(init="sysvinit", resolved="/sbin/init")))


def test_the_machines_first_process_says_that_the_machine_ends() -> None:
    answer = answer_of(plan_of(MAPPED, Machine(first=True)))
    assert answer is not None
    assert answer.machine
    assert "machine" in answer.what()
    other = answer_of(plan_of(MAPPED, Machine()))
    assert other is not None
    assert not other.machine
