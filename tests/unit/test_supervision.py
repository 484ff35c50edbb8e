"""What `auto` means for a lcinit that stays, under each manager; docs/tolerant.md has the same tables."""

from __future__ import annotations

import os
import re

import pytest

from lcinit.config.load import parse
from lcinit.config.values import Config
from lcinit.plan.facts import Machine
from lcinit.plan.managers import MANAGERS
from lcinit.plan.supervision import KUBERNETES_TIMEOUT, Supervision, notes, supervision

DOCS = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "tolerant.md")
CAPABLE = Machine(pid=1)

# manager → on_reboot, seconds to stop, what SIGINT and SIGHUP ask for
AUTO = {
    "lxc": ("propagate", 55, "reboot", "reload"),
    "libvirt-lxc": ("propagate", 90, "reboot", "reboot"),
    "systemd-nspawn": ("propagate", 90, "reboot", "reload"),
    "podman": ("restart", 8, "poweroff", "reload"),
    "docker": ("restart", 8, "poweroff", "reload"),
    "runc": ("restart", 90, "poweroff", "reload"),
    "generic": ("restart", 90, "poweroff", "reload"),
}


def config(text: str = "") -> Config:
    return parse(f"exec: {{mode: tolerant}}\n{text}".encode(), "init.yml")


def rules(machine: Machine, manager: str, text: str = "") -> Supervision:
    found = supervision(config(text), machine, manager)
    assert found is not None
    return found


def row(found: Supervision) -> tuple[str, float, str, str]:
    asks = "reboot" if found.int_reboots else "poweroff"
    return found.on_reboot, found.timeout, asks, "reboot" if found.hup_reboots else "reload"


@pytest.mark.parametrize("manager", sorted(MANAGERS))
def test_auto_is_what_the_manager_understands(manager: str) -> None:
    assert row(rules(CAPABLE, manager)) == AUTO[manager]


def test_a_machine_of_its_own_restarts_by_itself() -> None:
    assert row(rules(CAPABLE.replace(first=True), "generic")) == ("propagate", 90, "reboot", "reload")


@pytest.mark.parametrize("manager", sorted(MANAGERS))
def test_what_is_not_pid_1_can_tell_no_manager_anything(manager: str) -> None:
    found = rules(CAPABLE.replace(pid=17), manager)
    assert (found.on_reboot, found.int_reboots, found.hup_reboots, found.may_reboot) == ("restart", False, False, False)


def test_without_the_capability_nobody_calls_reboot() -> None:
    assert rules(CAPABLE.replace(capabilities=frozenset({"sys_boot"})), "lxc").may_reboot
    assert not rules(CAPABLE.replace(capabilities=frozenset({"sys_admin"})), "lxc").may_reboot


@pytest.mark.parametrize("wanted", ["restart", "propagate", "exit"])
def test_what_the_configuration_says_counts_under_every_manager(wanted: str) -> None:
    text = f"exec: {{mode: tolerant, on_reboot: {wanted}, on_exit: restart}}\nshutdown: {{timeout: 3s}}\n"
    for manager in MANAGERS:
        found = supervision(parse(text.encode(), "init.yml"), CAPABLE, manager)
        assert found is not None
        assert (found.on_reboot, found.on_exit, found.timeout) == (wanted, "restart", 3)


def test_a_pod_has_its_own_grace_period() -> None:
    pod = CAPABLE.replace(environment=(("KUBERNETES_SERVICE_HOST", "10.0.0.1"),))
    assert rules(pod, "docker").timeout == KUBERNETES_TIMEOUT
    assert rules(pod, "docker", "shutdown: {timeout: 60s}\n").timeout == 60


def test_a_handoff_has_no_rules() -> None:
    assert supervision(Config(), CAPABLE, "lxc") is None


def test_the_plan_says_where_a_value_comes_from() -> None:
    said = "\n".join(notes(rules(CAPABLE, "lxc"), config(), "lxc"))
    assert "passed on to the manager by reboot(2): on_reboot propagate (auto under lxc)" in said
    assert "a stop may take 55 s (auto under lxc)" in said
    given = config("shutdown: {timeout: 3s}\n")
    assert "a stop may take 3 s; then" in "\n".join(
        notes(rules(CAPABLE, "lxc", "shutdown: {timeout: 3s}\n"), given, "lxc")
    )


def test_the_manual_has_the_same_table() -> None:
    with open(DOCS, encoding="utf-8") as file:
        text = file.read()
    for manager, (on_reboot, timeout, asks, reads) in AUTO.items():
        pattern = rf"^\| `{manager}` \| `{on_reboot}` \| {timeout:g} s \| {asks} \| {reads}"
        assert re.search(pattern, text, re.MULTILINE), pattern


def test_the_plan_promises_a_shared_command_no_reboot_and_no_kill_that_it_does_not_get() -> None:
    text = "exec: {mode: tolerant, pid: shared, command: [/bin/true]%s}\n%s"
    plain = parse((text % ("", "")).encode(), "init.yml")
    found = supervision(plain, CAPABLE, "generic")
    assert found is not None
    said = "\n".join(notes(found, plain, "generic"))
    assert "reboot" not in said
    assert "for as long as the manager waits" in said
    assert "ended lcinit ends" in said
    limited = parse((text % (", on_exit: restart", "shutdown: {timeout: 3s}")).encode(), "init.yml")
    found = supervision(limited, CAPABLE, "generic")
    assert found is not None
    said = "\n".join(notes(found, limited, "generic"))
    assert "3 s, and then it is killed" in said
    assert "started again" in said
