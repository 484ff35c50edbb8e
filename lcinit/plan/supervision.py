"""What lcinit does while it stays: how long a stop may take, what a reboot of the guest means, how it ends. Pure."""

from __future__ import annotations

from lcinit.config.values import Config
from lcinit.plan.facts import Machine
from lcinit.plan.managers import MANAGERS
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    OnReboot = Literal["restart", "propagate", "exit"]

KUBERNETES_TIMEOUT = 27.0
"""Seconds: the default grace period of a pod is 30 s (kubernetes.io, "Pod Lifecycle")."""


class Supervision(Record):
    """The resolved rules of one tolerant mode.

    `on_reboot` is never "auto" any more. `timeout` in seconds runs from a stop request to the kill. `int_reboots`: what
    SIGINT asks for, `hup_reboots` the same for SIGHUP. `may_reboot`: PID 1 tells its own manager by reboot(2) where the
    kernel lets it. `relay`: the guest has a pty of its own as console.
    """

    pid: Literal["nested", "shared"]
    on_reboot: OnReboot
    on_exit: Literal["exit", "restart"]
    timeout: float
    int_reboots: bool
    hup_reboots: bool
    may_reboot: bool
    first: bool


def supervision(config: Config, machine: Machine, manager: str) -> Supervision | None:
    """The rules for a configuration on a machine; None after a handoff, when nobody is there to follow any."""
    if config.exec.mode != "tolerant":
        return None
    known = MANAGERS[manager]
    is_pid1 = machine.pid == 1
    restarts = is_pid1 and (known.restarts or machine.first)
    wanted = config.exec.on_reboot
    return Supervision(
        pid=config.exec.pid,
        on_reboot=("propagate" if restarts else "restart") if wanted == "auto" else wanted,
        on_exit=config.exec.on_exit,
        timeout=config.shutdown.timeout if config.shutdown.timeout is not None else _timeout(machine, manager),
        int_reboots=is_pid1 and (known.int_reboots or machine.first),
        hup_reboots=is_pid1 and known.hup_reboots,
        may_reboot=is_pid1 and machine.can("sys_boot"),
        first=machine.first,
    )


def _timeout(machine: Machine, manager: str) -> float:
    """A little less than what the manager waits before it kills the container."""
    if any(name == "KUBERNETES_SERVICE_HOST" for name, _ in machine.environment):
        return KUBERNETES_TIMEOUT
    return MANAGERS[manager].stop_timeout


def notes(rules: Supervision, config: Config, manager: str) -> list[str]:
    """The rules in words, for the plan's reader."""
    auto = f" (auto under {manager})" if config.exec.on_reboot == "auto" else ""
    reboot = {
        "restart": "starts it again in place",
        "propagate": "is passed on to the manager by reboot(2)",
        "exit": "ends the container",
    }[rules.on_reboot]
    given = "" if config.shutdown.timeout is not None else f" (auto under {manager})"
    if config.services is not None:
        return [
            f"a reboot {'starts the services again in place' if rules.on_reboot == 'restart' else reboot}: on_reboot "
            f"{rules.on_reboot}{auto}",
            f"stopping the services may take {rules.timeout:g} s{given}; then everything is killed",
            "further processes of lcinit's own: a spawner, a writer of logs, and now and then a reader of files",
        ]
    if rules.pid == "shared":
        return _notes_of_a_command(rules, config)
    said = [
        f"a reboot of the guest {reboot}: on_reboot {rules.on_reboot}{auto}",
        f"a stop may take {rules.timeout:g} s{given}; then everything in the guest is killed",
    ]
    if config.exec.on_reboot == "auto":
        told = ", ".join(each.name for each in MANAGERS.values() if each.restarts)
        said.append(f"on_reboot auto is propagate under {told} and for a machine's first process, else restart")
    if rules.on_exit == "restart":
        said.append("a guest that ends by itself is started again, at growing intervals: on_exit restart")
    return said


def _notes_of_a_command(rules: Supervision, config: Config) -> list[str]:
    """The same for a command that shares PID 1: it is no init, and what is forwarded to it is all that it is told."""
    timeout = config.shutdown.timeout
    limit = "for as long as the manager waits" if timeout is None else f"{timeout:g} s, and then it is killed"
    after = (
        "it is started again, at growing intervals: on_exit restart" if rules.on_exit == "restart" else "lcinit ends"
    )
    return [f"the command may take its time after a stop signal: {limit}", f"when the command has ended {after}"]
