"""Every kernel call of the set-up may fail, and what the kernel offers beside calls is not the guest's to use.

LCINIT_ALL_FAULTS=1 makes the longer run: every occurrence of every call, with several errors each.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.hostile.attempt import boot, configuration, outcome, own_guest, start
from tests.hostile.faults import Point, boot_with_fault, first_and_last, points, programs_run, read_logs, traced_with
from tests.lab.guests import place_file, remove_tree

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("strace") is None, reason="needs root and strace: it starts and traces containers"
)

ALL = os.environ.get("LCINIT_ALL_FAULTS", "") not in ("", "0")
ERRORS = ("EIO", "ENOMEM", "EPERM", "ENOENT") if ALL else ("EIO",)

RUNS = "echo 'guest: runs'"
# Calls of os and not of lcinit/linux: their errors do not name them, the step that they belong to does.
PLAIN_CALLS = (
    *("mknodat", "mkdirat", "symlinkat", "fchownat", "fchmodat", "fchown", "setgroups", "setresuid", "setresgid"),
    *("chdir", "fchdir", "socketpair", "execve", "recvfrom", "sendto", "setsockopt", "socket", "openat2"),
)
# What may fail without the boot failing: whether something is a terminal; close(2) one by one where close_range(2) is
# missing; which network namespace this is, where "the machine's own" is assumed and nothing is taken.
BEARABLE = re.compile(r'ioctl\(\d+, (TCGETS|FIO\w+)|close_range\(3, 1048575, 0\)|openat2\(\d+, "sys/net/core"')
# With these errors a step has another way, or the manager is known to forbid the call.
OTHER_WAYS = {
    "EPERM": re.compile(r"mknodat|keyctl|socket\(|setsockopt|recvfrom|sendto|fsopen|fsconfig|fsmount|fstatfs|openat2"),
    "ENOENT": re.compile(r"mkdirat|fchownat|openat2|fsopen|fsconfig|fsmount|open_tree"),
}


def complaint(point: Point, error: str, config: str, options: dict[str, Any]) -> str:
    """Boot with the fault; what is wrong with how that ended, empty if nothing is.

    A helper that cannot even answer says so itself, and PID 1 that it got no answer: two lines.
    """
    done, failed = boot_with_fault(config, point, error, **options)
    said = done.errors()
    names = [point.kind.split()[0], point.kind.split()[-1]]
    wrong = []
    if point.kind not in failed:
        wrong.append("was not made to fail")
    if done.said("guest"):
        wrong.append("the guest started")
    if done.status in (0, None):
        wrong.append(f"status {done.status}")
    if not 1 <= len(said) <= (2 if point.process == "helper" else 1) or "Traceback" in str(done):
        wrong.append(f"{len(said)} error lines")
    elif point.call not in PLAIN_CALLS and not any(name in said[0] for name in names):
        wrong.append("the line does not name the call")
    return f"{point.process} {point.line} {error}: {', '.join(wrong)}\n{done}" if wrong else ""


def complaints(found: Iterable[Point], config: str, **options: Any) -> str:
    """The complaints of all boots, two at a time; empty if there are none."""
    found = list(found)
    # The guest's init is looked at twice: before the first step only to refuse it early, where it can be told.
    first_step = next((index for index, point in enumerate(found) if point.call == "unshare"), 0)
    early = [point for point in found[:first_step] if point.call == "openat2" and '"/bin/' in point.line]
    chosen = [point for point in found if not BEARABLE.match(point.line) and point not in early]
    tasks = [
        (point, error)
        for point in chosen
        for error in ERRORS
        if error not in OTHER_WAYS or not OTHER_WAYS[error].match(point.line)
    ]
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda task: complaint(*task, config, options), tasks)
        return "\n\n".join(text for text in results if text)


@pytest.mark.row(41)
def test_no_guest_starts_when_a_call_of_the_set_up_fails() -> None:
    """The whole set-up with an id map, without commands: first and last occurrence of every call."""
    config = configuration(
        RUNS, hostname="guest", mounts=[{"source": "/usr/share", "target": "/mnt"}], initctl=True, network={}
    )
    found = points(config)
    assert {"unshare", "pivot_root", "move_mount", "openat2", "capset", "keyctl"} <= {point.call for point in found}
    wrong = complaints(found if ALL else first_and_last(found), config)
    assert not wrong, wrong


@pytest.mark.row(41)
def test_no_guest_starts_when_a_call_of_the_set_up_without_an_id_map_fails() -> None:
    """What is different there: nothing is locked, so parts of /proc are covered."""
    config = configuration(RUNS, mapped=False)
    found = points(config)
    if not ALL:
        wanted = ("open_tree", "move_mount", "mount_setattr", "openat2", "fsopen", "unshare")
        found = [point for point in first_and_last(found) if point.call in wanted]
    wrong = complaints(found, config)
    assert not wrong, wrong


@pytest.mark.row(41)
def test_no_guest_starts_when_a_call_around_commands_fails() -> None:
    """A loop, a signalfd and the helper's own commands."""
    config = configuration(RUNS, setup={"before": ["true"], "outside": ["true"]}, exec={"before": ["true"]})
    found = points(config)
    if not ALL:
        wanted = ("signalfd4", "pidfd_open", "socketpair", "recvfrom")
        found = [point for point in first_and_last(found) if point.call in wanted]
    assert {"signalfd4", "pidfd_open", "socketpair"} <= {point.call for point in found}
    assert "helper" in {point.process for point in found}
    wrong = complaints(found, config)
    assert not wrong, wrong


@pytest.mark.row(41)
def test_no_guest_starts_without_its_console_or_its_interfaces(tmp_path: object) -> None:
    """A fresh pty, the keeper behind it, and an interface that moves."""
    guest = own_guest(os.path.join(str(tmp_path), "guest"))
    try:
        # a name that says init, so that it gets a pty; it waits for the keeper to carry its words
        place_file(guest, "usr/sbin/s6-svscan", 0o755, f"#!/bin/sh\n{RUNS}\nsleep 0.5\n")
        config = configuration(exec={"command": ["/usr/sbin/s6-svscan"]}, network={"interfaces": ["veth7"]})
        options = {"guest": guest, "init": "/usr/bin/python3", "args": ("-IS", "-c", WITH_INTERFACE)}
        found = points(config, **options)
        kinds = {point.kind for point in found}
        assert {"ioctl TIOCSPTLCK", "ioctl TIOCGPTPEER", "ioctl TIOCGPTN", "setns"} <= kinds
        if not ALL:
            found = [point for point in first_and_last(found) if point.call in ("ioctl", "setns", "sendto", "execve")]
        wrong = complaints(found, config, **options)
        assert not wrong, wrong
    finally:
        remove_tree(guest)


# Makes an interface for lcinit to move, and becomes lcinit.
WITH_INTERFACE = """\
import os, sys
sys.path.append("/usr/lib/lcinit/site")
from lcinit.linux.rtnetlink import Netlink, pack_attributes
with Netlink() as netlink:
    kind = pack_attributes([(1, b"veth")])  # IFLA_INFO_KIND
    body = bytes(16) + pack_attributes([(3, b"veth7\\0"), (18, kind)])  # IFLA_IFNAME, IFLA_LINKINFO
    netlink.request(16, body, 0x600)  # RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL
os.execv("/sbin/init", ["/sbin/init"])
"""


@pytest.mark.row(41)
@pytest.mark.parametrize("name", ["uid_map", "gid_map"])
def test_no_guest_starts_when_its_id_map_cannot_be_written(name: str) -> None:
    """A fault in the helper alone: the file is opened by nobody else."""
    inject = ("-P", f"1/{name}", "-e", "trace=openat2", "-e", "inject=openat2:error=EIO")
    with start(configuration(RUNS), driver=traced_with(*inject)) as container:
        done = outcome(container)
        assert any("(INJECTED)" in line for lines in read_logs(container).values() for line in lines)
    assert done.status == 71
    assert not done.said("guest")
    (line,) = done.errors()
    assert line.startswith("cannot map users 0 1000000 65536")
    assert line.endswith(f"openat2: Input/output error (1/{name})")


@pytest.mark.row(41)
def test_no_guest_starts_when_the_keeper_cannot() -> None:
    """It would have an initctl that nobody reads, or a console that nobody relays."""
    inject = ("-P", "/usr/bin/python3", "-e", "trace=execve", "-e", "inject=execve:error=EIO")
    with start(configuration(RUNS, initctl=True), driver=traced_with(*inject)) as container:
        done = outcome(container)
        assert any("(INJECTED)" in line for lines in read_logs(container).values() for line in lines)
    assert done.status == 71
    assert not done.said("guest")
    assert done.errors() == ["cannot start the keeper: Input/output error (/usr/bin/python3)"]


@pytest.mark.row(41)
def test_a_failed_boot_leaves_no_process_and_no_cgroup(tmp_path: object) -> None:
    config = configuration(RUNS, initctl=True, exec={"before": [["/bin/sh", "-c", "sleep 60 & exit 3"]]})
    with start(config) as container:
        assert outcome(container).status == 3
        with open(os.path.join(container.cgroup, "cgroup.events"), encoding="utf-8") as events:
            assert "populated 0" in events.read()


def test_a_boot_runs_no_program_of_the_mount_tools() -> None:
    config = configuration(
        RUNS,
        hostname="guest",
        initctl=True,
        mounts=[{"source": "/usr/share", "target": "/mnt", "options": "ro"}, {"target": "/var/tmp", "type": "tmpfs"}],
        network={"interfaces": ["veth7"]},
        devices={"include": ["null"], "read_only": True},
    )
    options: dict[str, Any] = {"init": "/usr/bin/python3", "args": ("-IS", "-c", WITH_INTERFACE)}
    with start(config, driver=traced_with("-e", "trace=execve"), **options) as container:
        done = outcome(container)
        logs = read_logs(container)
    assert done.said("guest") == ["runs"], done
    # lcinit itself, its helper as the keeper, and the guest's init
    assert programs_run(logs) == {"/sbin/init", "/usr/bin/python3", "/bin/sh"}


# Opening for writing is what a read-only mount refuses; only what is in the file already is ever written.
WRITTEN = (
    *("proc/sysrq-trigger", "proc/sys/kernel/core_pattern", "proc/sys/kernel/modprobe"),
    *("proc/irq/default_smp_affinity", "sys/kernel/uevent_helper", "sys/power/state"),
    "sys/kernel/mm/transparent_hugepage/enabled",
)
WRITES = """\
for name in NAMES; do
    [ -e /$name ] || { echo "absent: $name"; continue; }
    if (: >>/$name) 2>/dev/null; then echo "opened: $name"; else echo "refused: $name"; fi
done
old=$(cat /proc/sys/kernel/core_pattern)
(printf "%s\\n" "$old" >/proc/sys/kernel/core_pattern) 2>/dev/null && echo "opened: the pattern itself"
echo "kcore: $(head -c 16 /proc/kcore | wc -c)"
echo "keys: $(cat /proc/keys | wc -c)"
echo "timers: $(cat /proc/timer_list 2>/dev/null | wc -c)"
echo "agent: $(find /sys/fs/cgroup -name release_agent | wc -l)"
"""


@pytest.mark.row(42)
def test_a_guest_without_an_id_map_cannot_use_the_machines_proc() -> None:
    done = boot(configuration(WRITES.replace("NAMES", " ".join(WRITTEN)), mapped=False))
    assert done.status == 0, done
    assert not done.said("opened")
    there = {name for name in WRITTEN if os.path.exists(f"/{name}")}
    assert set(done.said("refused")) == there
    assert "proc/sys/kernel/core_pattern" in there
    assert done.said("kcore") == ["0"]
    assert done.said("keys") == ["0"]
    assert done.said("timers") == ["0"]
    assert done.said("agent") == ["0"]
