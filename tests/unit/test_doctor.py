"""The doctor's conclusions and its text, from facts written by hand."""

from __future__ import annotations

import errno
import textwrap

import pytest

from lcinit.config.values import Config, IdMap, IdRange, Network
from lcinit.errors import ConfigError
from lcinit.linux.capabilities import CAPABILITIES
from lcinit.linux.mountinfo import parse_mountinfo
from lcinit.plan.build import build
from lcinit.plan.facts import Cgroup, Console, Interface, Machine
from lcinit.tools.doctor import as_data, as_text, covered, exit_code, type_of
from lcinit.tools.doctor_meanings import NEEDED_CAPABILITIES, TRIALS, USEFUL_CAPABILITIES
from lcinit.tools.doctor_trials import Trial
from lcinit.tools.doctor_verdicts import Examination, Finding, Part, findings, handoff_works
from lcinit.tools.id_ranges import guest_range, mapped_ids, parse_id_map

ALL = "0 0 4294967295\n"
CONFIG = Config(
    id_map=IdMap(
        users=(IdRange(inside=0, outside=1000000, size=65536),),
        groups=(IdRange(inside=0, outside=1000000, size=65536),),
    )
)
MACHINE = Machine(
    kernel=(6, 1),
    manager="lxc",
    container="lxc",
    capabilities=frozenset(CAPABILITIES) - {"sys_boot"},
    interfaces=(Interface(name="eth0", hardware=False),),
    console=Console(terminal=True, own=True, name="/dev/pts/0"),
    cgroup=Cgroup(path="/", alone=True, empty=True, root=False, writable=True),
)
HEALTHY = Examination(
    release="6.1.0",
    machine=MACHINE,
    config=CONFIG,
    plan=build(CONFIG, MACHINE, ("/sbin/init",)),
    trials=tuple(Trial(name=name) for name in TRIALS),
    uid_map=ALL,
    gid_map=ALL,
    file_systems=(("boot-root", "ext4"),),
    controllers=("cpu", "memory"),
    nofile=(1024, 524288),
    parts=(Part(name="yaml"), Part(name="uvloop"), Part(name="aiofiles")),
)


def _with_machine(**changes: object) -> Examination:
    machine = MACHINE.replace(**changes)
    try:
        return HEALTHY.replace(machine=machine, plan=build(CONFIG, machine, ("/sbin/init",)))
    except ConfigError as error:
        return HEALTHY.replace(machine=machine, plan=None, refusal=str(error))


def _failing(name: str, number: int, error: str = "call: cause") -> Examination:
    failed = Trial(name=name, number=number, error=error)
    return HEALTHY.replace(trials=tuple(failed if trial.name == name else trial for trial in HEALTHY.trials))


def _finding(examined: Examination, subject: str) -> Finding:
    found = [f for f in findings(examined) if f.subject == subject]
    assert len(found) == 1
    return found[0]


def test_a_healthy_container_has_only_what_cannot_be_helped() -> None:
    found = findings(HEALTHY)
    assert {f.subject for f in found if f.verdict != "ok"} == {"cap_sys_boot"}
    assert handoff_works(found)
    assert exit_code(HEALTHY, found, config_given=False) == 0
    assert len({f.subject for f in found}) == len(found)


@pytest.mark.parametrize("name", TRIALS)
def test_every_trial_that_fails_is_told_with_its_cause_and_a_remedy(name: str) -> None:
    finding = _finding(_failing(name, errno.EPERM, "call: Operation not permitted"), name)
    assert finding.verdict == ("missing" if TRIALS[name].needed else "weaker")
    assert "call: Operation not permitted" in finding.says
    assert TRIALS[name].lost in finding.says
    assert finding.remedy == TRIALS[name].remedy


@pytest.mark.parametrize("name", [name for name, meaning in TRIALS.items() if meaning.needed])
def test_without_what_is_needed_no_handoff_works(name: str) -> None:
    examined = _failing(name, errno.EINVAL)
    found = findings(examined)
    assert not handoff_works(found)
    assert exit_code(examined, found, config_given=False) == 71


def test_too_few_namespaces_are_the_remedy_for_enospc() -> None:
    assert "max_*_namespaces" in _finding(_failing("user-namespace", errno.ENOSPC), "user-namespace").remedy


def test_without_sys_admin_that_is_the_remedy() -> None:
    examined = _failing("sysfs-inside", errno.EPERM)
    examined = examined.replace(machine=MACHINE.replace(capabilities=frozenset()))
    assert _finding(examined, "sysfs-inside").remedy == "run as root with CAP_SYS_ADMIN"


def test_an_initramfs_needs_no_pivot_root() -> None:
    examined = _failing("pivot_root", errno.EINVAL)
    examined = examined.replace(machine=MACHINE.replace(initramfs=True))
    assert _finding(examined, "pivot_root").verdict == "weaker"
    assert handoff_works(findings(examined))


def test_an_old_kernel_is_missing_something_and_has_no_plan() -> None:
    examined = _with_machine(kernel=(5, 10)).replace(release="5.10.0")
    finding = _finding(examined, "version")
    assert (finding.verdict, finding.remedy) == ("missing", "run Linux 5.12 or later")
    assert _finding(examined, "plan").verdict == "missing"
    assert exit_code(examined, findings(examined), config_given=False) == 71


def test_a_refused_plan_of_a_given_configuration_is_78() -> None:
    examined = HEALTHY.replace(plan=None, refusal="hostname: needs namespaces.uts; set it")
    found = findings(examined)
    assert exit_code(examined, found, config_given=True) == 78
    finding = _finding(examined, "plan")
    assert (finding.says, finding.remedy) == ("hostname: needs namespaces.uts", "set it")


@pytest.mark.parametrize("name", NEEDED_CAPABILITIES)
def test_a_needed_capability_that_is_missing_is_named(name: str) -> None:
    finding = _finding(_with_machine(capabilities=frozenset(CAPABILITIES) - {name}), "capabilities")
    assert finding.verdict == "missing"
    assert name in finding.says
    assert f"CAP_{name.upper()}" in finding.remedy


@pytest.mark.parametrize("name", USEFUL_CAPABILITIES)
def test_a_useful_capability_that_is_missing_tells_what_is_lost(name: str) -> None:
    finding = _finding(_with_machine(capabilities=frozenset(CAPABILITIES) - {name}), f"cap_{name}")
    assert (finding.verdict, finding.says) == ("weaker", USEFUL_CAPABILITIES[name])


def test_reboot_is_answered_or_the_cause_is_told() -> None:
    permitted = _with_machine(capabilities=frozenset(CAPABILITIES))
    assert _finding(permitted, "reboot").verdict == "ok"
    refused = _finding(
        permitted.replace(machine=permitted.machine.replace(no_listener="there is one already")), "reboot"
    )
    assert (refused.verdict, refused.needed) == ("weaker", False)
    assert "there is one already" in refused.says
    assert "exec.mode: tolerant" in refused.remedy


def test_one_id_is_not_enough() -> None:
    finding = _finding(HEALTHY.replace(uid_map="0 1000 1\n", gid_map="0 1000 1\n"), "ids")
    assert (finding.verdict, finding.needed) == ("missing", True)
    assert "subuid(5)" in finding.remedy


def test_few_ids_are_weaker_and_their_map_is_proposed() -> None:
    rootless = "0 1000 1\n1 100000 65536\n"
    finding = _finding(HEALTHY.replace(uid_map=rootless, gid_map="0 1000 1\n1 100000 3\n"), "ids")
    assert finding.verdict == "weaker"
    assert "`id_map: {users: 0 1 3, groups: 0 1 3}` fits" in finding.says
    assert "tty (5)" in finding.says


def test_cgroup_and_console_are_what_the_plan_would_do() -> None:
    assert _finding(HEALTHY, "cgroup").says == "use PID 1's cgroup, owned by the guest's root; PID 1 is alone in it"
    assert "owned by the guest's root" in _finding(HEALTHY, "console").says
    none = _finding(_with_machine(cgroup=None), "cgroup")
    assert (none.verdict, bool(none.remedy)) == ("weaker", True)
    child = _finding(_with_machine(cgroup=MACHINE.cgroup.replace(alone=False)), "cgroup")  # type: ignore[union-attr]
    assert (child.verdict, "child" in child.says) == ("ok", True)


def test_interfaces_that_stay_are_named_with_the_reason() -> None:
    finding = _finding(_with_machine(initial_network=True), "network")
    assert finding.verdict == "weaker"
    assert finding.says == "eth0 stay here (auto: this is the machine's own network namespace)"
    assert _finding(HEALTHY, "network").says.startswith("eth0 would be moved")


def test_an_interface_that_is_named_and_not_there() -> None:
    examined = HEALTHY.replace(config=CONFIG.replace(network=Network(interfaces=("eth9",))))
    assert _finding(examined, "network").verdict == "missing"


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"controllers": None}, "controllers"),
        ({"controllers": ()}, "controllers"),
        ({"covered": ("/proc/kcore",)}, "proc-sys"),
        ({"nofile": (1024, 4096)}, "nofile"),
        ({"parts": (Part(name="uvloop", error="No module named 'uvloop'"),)}, "uvloop"),
    ],
)
def test_weaker_things_do_not_prevent_a_handoff(changes: dict[str, object], subject: str) -> None:
    examined = HEALTHY.replace(**changes)
    finding = _finding(examined, subject)
    assert finding.verdict == "weaker"
    assert finding.remedy
    assert handoff_works(findings(examined))


def test_without_yaml_there_is_no_configuration() -> None:
    examined = HEALTHY.replace(parts=(Part(name="yaml", error="PyYAML without libyaml"),))
    assert _finding(examined, "yaml").verdict == "missing"
    assert not handoff_works(findings(examined))


def test_all_that_is_not_ok_has_a_remedy() -> None:
    worst = Examination(
        release="4.19.0",
        machine=Machine(kernel=(4, 19), container="unheard-of", interfaces=MACHINE.interfaces),
        config=CONFIG,
        plan=None,
        refusal="this is Linux 4.19",
        trials=tuple(Trial(name=name, number=errno.ENOSYS, error="not implemented") for name in TRIALS),
        uid_map="0 1000 1\n",
        gid_map="0 1000 1\n",
        covered=tuple(f"/proc/{n}" for n in range(9)),
        nofile=(256, 256),
        parts=tuple(Part(name=name, error="gone") for name in ("yaml", "uvloop", "aiofiles")),
    )
    found = findings(worst)
    assert all(f.remedy for f in found if f.verdict != "ok")
    assert all(not f.remedy for f in found if f.verdict == "ok")
    assert all("\n" not in f.remedy + f.says for f in found)


GOLDEN = """\
kernel:
  ok       version  Linux 6.1.0
  missing  id-map   writing the id map of a guest: write:
                    Operation not permitted; no guest can be
                    rootless
                    -> give lcinit CAP_SETUID and CAP_SETGID
                       over the ids of the map
privilege:
container:
  weaker   nofile   1024 descriptors a process
                    -> raise it
python:
A handoff with an id map does not work here. Missing: id-map.
"""


def test_the_text_is_aligned_wrapped_and_ends_with_the_conclusion() -> None:
    found = (
        _finding(HEALTHY, "version"),
        _finding(_failing("id-map", errno.EPERM, "write: Operation not permitted"), "id-map"),
        Finding(
            group="container", subject="nofile", verdict="weaker", says="1024 descriptors a process", remedy="raise it"
        ),
    )
    assert as_text(found, 61) == GOLDEN
    assert as_text(found[:1], 80).endswith("A handoff with an id map works here.\n")
    assert as_text((found[0], found[2]), 80).endswith("works here. Weaker than it could be: nofile.\n")


@pytest.mark.parametrize("width", [20, 80, 500])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines = as_text(findings(HEALTHY.replace(covered=("/proc/kcore",))), width).splitlines()
    assert max(map(len, lines)) <= max(60, min(width, 120))


def test_json_has_every_finding_with_its_fields() -> None:
    found = findings(HEALTHY)
    data = as_data(found, 0)
    assert (data["handoff"], data["exit_code"], len(data["findings"])) == (True, 0, len(found))
    assert set(data["findings"][0]) == {"group", "subject", "verdict", "says", "remedy", "needed"}


MOUNTS = parse_mountinfo(
    textwrap.dedent("""\
    20 1 8:1 / / rw - ext4 /dev/sda1 rw
    21 20 0:4 / /proc rw - proc proc rw
    22 21 0:5 /null /proc/kcore rw - tmpfs tmpfs rw
    23 21 0:6 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw
    24 20 0:7 / /sys rw - sysfs sysfs rw
    25 24 0:8 / /sys/fs/cgroup rw - tmpfs tmpfs rw
    26 25 0:9 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
    27 24 0:10 / /sys/kernel/debug rw - debugfs none rw
    28 24 0:11 / /sys/firmware ro - tmpfs tmpfs ro
    29 20 0:12 / /mnt/root rw - overlay none rw
    """)
)


def test_only_mounts_that_hide_something_are_covers() -> None:
    assert covered(MOUNTS) == ("/proc/kcore", "/sys/firmware")


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "ext4"), ("/mnt/root/etc", "overlay"), ("/mnt/rootless", "ext4"), ("/mnt/root", "overlay")]
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert type_of(path, MOUNTS) == kind


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (ALL, (1000000, 65536)),
        ("0 100000 65536\n", (1, 65535)),
        ("0 1000 1\n1 100000 65536\n", (1, 65536)),
        ("0 100000 200000\n", (134464, 65536)),
        ("0 1000 1\n", None),
        ("1000 1000 1\n", (1000, 1)),
        ("", None),
    ],
)
def test_the_range_for_a_guest_never_holds_id_0(text: str, wanted: tuple[int, int] | None) -> None:
    assert guest_range(text) == wanted


def test_ids_are_counted_over_all_ranges() -> None:
    assert mapped_ids(parse_id_map("0 1000 1\n1 100000 65536\n")) == 65537
