"""Plans as text, and the decisions in them one by one.

The golden files in data/plans are made again with `LCINIT_UPDATE_GOLDEN=1 python -m pytest tests/unit/test_plan.py`;
read the difference before committing it.
"""

from __future__ import annotations

import json
import os

import pytest

from lcinit.config import managers as modes
from lcinit.config.load import parse
from lcinit.config.values import Config, IdMap, IdRange, Network
from lcinit.errors import ConfigError, UsageError
from lcinit.plan import show
from lcinit.plan import steps as s
from lcinit.plan.build import Plan, build
from lcinit.plan.facts import Cgroup, Console, Guest, Interface, Machine
from lcinit.plan.guest import command, guest_environment, matches
from lcinit.plan.inits import kind_of, stop_signals
from lcinit.plan.managers import MANAGERS, recognise
from lcinit.plan.network import interfaces_to_move

DATA = os.path.join(os.path.dirname(__file__), "data")
MAP = IdMap(
    users=(IdRange(inside=0, outside=1000000, size=65536),), groups=(IdRange(inside=0, outside=1000000, size=65536),)
)

SHARED = Cgroup(path="/", alone=False, empty=False, root=True, writable=True)
OWN = Cgroup(path="/payload", alone=True, empty=True, root=False, writable=True)
ETH0 = Interface(name="eth0", hardware=False)

MACHINES = {
    "unshare": Machine(cgroup=SHARED, interfaces=(ETH0, Interface(name="wlan0", hardware=False))),
    "lxc": Machine(
        manager="lxc",
        container="lxc",
        container_uuid="1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
        cgroup=OWN,
        console=Console(terminal=True, own=True, name="/dev/pts/0"),
        interfaces=(ETH0,),
        resolv_conf=True,
        environment=(("container", "lxc"), ("SECRET", "x")),
        guest=Guest(init="systemd", resolved="/lib/systemd/systemd"),
    ),
    "qemu": Machine(
        first=True,
        missing=("proc", "sysfs", "devtmpfs"),
        initramfs=True,
        initial_network=True,
        interfaces=(Interface(name="eth0", hardware=True),),
        console=Console(terminal=True, own=False),
        cgroup=SHARED,
    ),
}


def read(name: str) -> bytes:
    with open(os.path.join(DATA, name), "rb") as file:
        return file.read()


CONFIGS = {
    "example": read("example-init.yml"),
    "defaults": b"",
    "mapped": b"id_map: {users: 0 1000000 65536}\nroot: {id_map: true, read_only: true}\ninitctl: true\n",
    "bare": b"root: null\nsetup: none\nexec: [/bin/true]\n",
    "every-key": read("every-key.yml"),
    "nested": b"id_map: {users: 0 1000000 65536}\nroot: {id_map: true}\nexec: {mode: tolerant}\n",
    "shared": b"id_map: {users: 0 1000000 65536}\nexec: {mode: tolerant, pid: shared, command: [/bin/worker]}\n",
    "bare-shared": b"root: null\nsetup: none\nexec: {mode: tolerant, pid: shared, command: [/bin/true]}\n",
}


def plan_of(config: Config, machine: Machine = MACHINES["unshare"]) -> Plan:
    return build(config, machine, command(config, (), override_exec=False))


@pytest.mark.parametrize(
    ("config", "machine"),
    [
        ("example", "unshare"),
        ("example", "lxc"),
        ("defaults", "lxc"),
        ("mapped", "lxc"),
        ("mapped", "qemu"),
        ("bare", "unshare"),
        ("every-key", "unshare"),
        ("nested", "unshare"),
        ("nested", "lxc"),
        ("nested", "qemu"),
        ("shared", "unshare"),
        ("bare-shared", "unshare"),
    ],
)
def test_plan_reads_as_its_golden_file(config: str, machine: str) -> None:
    text = show.as_text(plan_of(parse(CONFIGS[config], "init.yml"), MACHINES[machine]), MACHINES[machine])
    path = os.path.join(DATA, "plans", f"{config}-{machine}.txt")
    if os.environ.get("LCINIT_UPDATE_GOLDEN"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open(path, encoding="utf-8") as file:
        assert text == file.read()


def test_json_holds_every_step_with_what_where_and_why() -> None:
    plan = plan_of(parse(CONFIGS["example"], "init.yml"))
    data = json.loads(json.dumps(show.as_data(plan, 1)))
    assert len(data["steps"]) == len(plan.steps)
    for step in data["steps"]:
        assert {"step", "what", "where", "why", "phase"} <= set(step)


def _asides(plan: Plan) -> list[str]:
    return [step.fstype for step in plan.steps if isinstance(step, s.MountNew) and step.phase == "setup.before"]


def test_what_nobody_mounted_is_mounted_for_the_machines_first_process_alone() -> None:
    config = parse(b"setup: {before: [mount /dev/vda /mnt/root]}\n", "init.yml")
    plan = plan_of(config, MACHINES["qemu"])
    assert _asides(plan) == ["proc", "sysfs", "devtmpfs"]
    assert isinstance(plan.steps[5], s.RunCommand)  # the first command finds all of it
    assert _asides(plan_of(config, MACHINES["qemu"].replace(missing=("devtmpfs",)))) == ["devtmpfs"]
    assert _asides(plan_of(config, MACHINES["qemu"].replace(first=False))) == []


def test_streams_are_opened_again_only_where_the_kernel_found_no_console() -> None:
    silent = MACHINES["qemu"].replace(console=Console(terminal=False, own=False))
    opened = [step for step in plan_of(Config(), silent).steps if isinstance(step, s.OpenConsole)]
    assert len(opened) == 1
    for machine in (MACHINES["qemu"], silent.replace(first=False), silent.replace(missing=("proc",))):
        assert not any(isinstance(step, s.OpenConsole) for step in plan_of(Config(), machine).steps)


def test_an_initramfs_is_covered_before_it_can_be_pivoted_away() -> None:
    def covers(config: Config) -> bool:
        return any(isinstance(step, s.CoverInitramfs) for step in plan_of(config, MACHINES["qemu"]).steps)

    assert covers(Config())
    assert not covers(Config(root=Config().root.replace(mode="chroot")))
    assert not covers(Config(root=Config().root.replace(mode="none")))


def test_the_end_of_the_machines_first_process_with_an_id_map_is_warned_of() -> None:
    unanswered = MACHINES["qemu"].replace(no_listener="there is none")
    assert any("panic" in warning for warning in plan_of(Config(id_map=MAP), unanswered).warnings)
    assert not plan_of(Config(id_map=MAP), MACHINES["qemu"]).warnings
    assert not plan_of(Config(), unanswered).warnings
    assert not plan_of(Config(id_map=MAP)).warnings


def test_phases_come_in_their_order() -> None:
    for text in CONFIGS.values():
        order = [s.PHASES.index(step.phase) for step in plan_of(parse(text, "init.yml")).steps]
        assert order == sorted(order)


def test_everything_that_can_be_is_mounted_before_the_user_namespace() -> None:
    steps = plan_of(Config(id_map=MAP)).steps
    unshare = next(i for i, step in enumerate(steps) if isinstance(step, s.Unshare))
    after = {step.fstype for step in steps[unshare:] if isinstance(step, s.MountNew)}
    assert after == {"sysfs", "mqueue", "cgroup2", "devpts"}


@pytest.mark.parametrize(("shared", "fstype"), [("network", "sysfs"), ("ipc", "mqueue"), ("cgroup", "cgroup2")])
def test_what_belongs_to_a_shared_namespace_is_mounted_outside(shared: str, fstype: str) -> None:
    config = Config(id_map=MAP)
    steps = plan_of(config.replace(namespaces=config.namespaces.replace(**{shared: False}))).steps
    mounts = [step for step in steps if isinstance(step, s.MountNew) and step.fstype == fstype and not step.aside]
    assert [step.side for step in mounts] == ["outside"]


@pytest.mark.parametrize(
    ("machine", "wanted", "moved"),
    [
        (Machine(interfaces=(ETH0,)), "auto", ()),
        (Machine(manager="lxc", interfaces=(ETH0,)), "auto", ("eth0",)),
        (Machine(manager="lxc", interfaces=(ETH0,), initial_network=True), "auto", ()),
        (Machine(manager="lxc", interfaces=(ETH0,), pid=17), "auto", ()),
        (Machine(manager="lxc", interfaces=(ETH0, Interface(name="eth1", hardware=True))), "auto", ()),
        (Machine(interfaces=(ETH0,)), "all", ("eth0",)),
        (Machine(manager="lxc", interfaces=(ETH0,)), "none", ()),
        (Machine(interfaces=(ETH0,)), ("eth0",), ("eth0",)),
    ],
)
def test_interfaces_are_taken_only_where_they_are_the_containers(
    machine: Machine, wanted: str | tuple[str, ...], moved: tuple[str, ...]
) -> None:
    names, reason = interfaces_to_move(Config(network=Network(interfaces=wanted)), machine)
    assert names == moved
    assert reason


def test_a_named_interface_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no interface 'eth7' here"):
        plan_of(Config(network=Network(interfaces=("eth7",))))


@pytest.mark.parametrize(
    ("cgroup", "how"),
    [
        (OWN, "own"),
        (SHARED, "child"),
        (OWN.replace(alone=False), "child"),
        (OWN.replace(empty=False), "child"),
        (OWN.replace(writable=False), "none"),
        (None, "none"),
    ],
)
def test_only_a_cgroup_of_its_own_is_taken(cgroup: Cgroup | None, how: str) -> None:
    taken = [
        step for step in plan_of(Config(id_map=MAP), Machine(cgroup=cgroup)).steps if isinstance(step, s.TakeCgroup)
    ]
    assert [step.how for step in taken] == [how]


def test_an_old_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lcinit needs 5\.12"):
        plan_of(Config(), Machine(kernel=(5, 10)))


@pytest.mark.parametrize(
    ("text", "arguments", "override", "argv"),
    [
        (b"", (), False, ("/sbin/init",)),
        (b"", ("/bin/a", "b"), False, ("/bin/a", "b")),
        (b"exec: [/bin/c, d]", ("e",), False, ("/bin/c", "d", "e")),
        (b"exec: [/bin/c, d]", ("e",), True, ("e",)),
    ],
)
def test_arguments_append_are_or_replace_the_command(
    text: bytes, arguments: tuple[str, ...], override: bool, argv: tuple[str, ...]
) -> None:
    assert command(parse(text, "init.yml"), arguments, override_exec=override) == argv


def test_override_without_a_command_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        command(Config(), (), override_exec=True)


def test_the_guests_environment_holds_what_is_named_and_no_more() -> None:
    machine = Machine(environment=(("SECRET", "x"), ("LANG", "C"), ("TERM", "vt220"), ("PATH", "/evil")))
    given = dict(guest_environment(Config(), machine, "generic"))
    assert given["container"] == "lcinit"
    assert given["TERM"] == "vt220"
    assert given["LANG"] == "C"
    assert "SECRET" not in given
    assert given["PATH"].startswith("/usr/local/sbin:")
    everything = dict(guest_environment(Config(pass_environment="all"), machine, "generic"))
    assert everything["SECRET"] == "x"
    nothing = dict(guest_environment(Config(pass_environment="none", environment=(("A", "1"),)), machine, "generic"))
    assert sorted(nothing) == ["A", "PATH", "TERM", "container"]


@pytest.mark.parametrize(
    ("name", "glob", "covered"),
    [("LC_ALL", "LC_*", True), ("LANG", "LC_*", False), ("A", "A", True), ("AB", "A", False), ("A1B", "A?B", True)],
)
def test_globs(name: str, glob: str, covered: bool) -> None:
    assert matches(name, glob) is covered


@pytest.mark.parametrize(
    ("resolved", "content", "kind"),
    [
        ("/lib/systemd/systemd", b"", "systemd"),
        ("/bin/busybox", b"", "busybox"),
        ("/sbin/init", b"\x7fELF ... sysvinit ...", "sysvinit"),
        ("/sbin/runit-init", b"\x7fELF /run/runit.stopit /run/runit.reboot", "runit"),
        ("/sbin/runit", b"\x7fELF /etc/runit/stopit /etc/runit/reboot", "runit-etc"),
        ("/sbin/init", b"#!/bin/sh\n# not sysvinit\n", "plain"),
        ("/bin/true", b"\x7fELF", "plain"),
    ],
)
def test_the_kind_of_an_init(resolved: str, content: bytes, kind: str) -> None:
    assert kind_of(resolved, content) == kind


def test_exec_stop_overrides_what_is_known() -> None:
    assert stop_signals("systemd", (("reboot", "SIGINT"),)) == {
        "poweroff": "SIGRTMIN+4",
        "halt": "SIGRTMIN+3",
        "reboot": "SIGINT",
    }


@pytest.mark.parametrize(
    ("container", "manager"),
    [
        ("lxc", "lxc"),
        ("lxc-libvirt", "libvirt-lxc"),
        ("systemd-nspawn", "systemd-nspawn"),
        (None, "generic"),
        ("x", "generic"),
    ],
)
def test_managers_are_known_by_what_they_say(container: str | None, manager: str) -> None:
    assert recognise(container) == manager


def test_every_manager_that_can_be_written_is_known_to_the_plan() -> None:
    assert {*modes.MANAGERS, "generic"} == set(MANAGERS)
