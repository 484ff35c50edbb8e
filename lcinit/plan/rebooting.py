"""What becomes of reboot(2) in a handed-off guest with an id map: answered from outside, or refused. Pure.

The kernel refuses it to such a guest, whose PID namespace belongs to the outside. The keeper can make the call for it
where a seccomp listener can be had and where the keeper itself may make the call (reboot(2), seccomp_unotify(2)).
"""

from __future__ import annotations

from lcinit.config.values import Config
from lcinit.plan import steps as s
from lcinit.plan.facts import Machine
from lcinit.plan.inits import INITS
from lcinit.plan.supervision import Supervision


def answered(config: Config, machine: Machine, rules: Supervision | None, command: str) -> s.AnswerReboot | None:
    """The step that has the guest's reboot(2) answered; None where nobody need, or can (see `refusal`)."""
    if config.id_map is None or rules is not None or refusal(config, machine, rules):
        return None
    if machine.guest is not None and not may_call(machine.guest.init, command):
        return None
    why = "the kernel refuses it to a guest in a PID namespace of the outside"
    return s.AnswerReboot(phase="exec", command=command, machine=machine.first, why=why)


def may_call(kind: str, command: str) -> bool:
    """Whether a guest's command may end by reboot(2): a known init that does, or an unknown one by its name."""
    return INITS[kind].calls_reboot or command.rpartition("/")[2] == "init"


def refusal(config: Config, machine: Machine, rules: Supervision | None) -> str:
    """Why reboot(2) will fail in the guest; empty where it will not: answered, or in a PID namespace of the guest's."""
    if config.id_map is None or (rules is not None and rules.pid == "nested"):
        return ""
    if rules is not None:
        return "lcinit stays PID 1"
    if "sys_boot" in config.capabilities.drop:
        return "capabilities.drop takes CAP_SYS_BOOT away from it"
    return unanswered(machine)


def unanswered(machine: Machine) -> str:
    """Why nobody here can answer the reboot(2) of a guest with an id map; empty where the keeper can."""
    if machine.pid != 1:
        return "lcinit is not PID 1 here"
    if not machine.can("sys_boot"):
        return "this container has no CAP_SYS_BOOT"
    if not machine.can("sys_ptrace"):
        return "without CAP_SYS_PTRACE nobody can tell which process of the guest calls"
    if "pid" in machine.foreign:
        return "this PID namespace belongs to a user namespace above"
    return machine.no_listener


def note(because: str) -> str:
    """For the reader of a plan whose guest cannot reboot."""
    return f"reboot(2) is refused to the guest ({because}): reboot, and runlevel 6, ends it like a poweroff"
