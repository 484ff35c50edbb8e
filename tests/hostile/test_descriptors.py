"""Rows 5 and 7: what of the outside a guest could hold or reach through a process of lcinit's."""

from __future__ import annotations

import os
import re

import pytest

from tests.hostile.attacker import attack, attack_with_console, command
from tests.hostile.attempt import own_guest, shared_guest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

SHOW = """
say(NAME, sorted(descriptors().items()))
say(NAME + " cwd", os.getcwd())
"""


def show(name: str) -> str:
    return f"NAME = {name!r}\n{SHOW}"


def started_by(code: str) -> dict[str, object]:
    """PID 1 of the container is this Python code, which must exec /sbin/init."""
    return {"init": "/usr/bin/python3", "args": ("-ISc", f"import os\n{code}\nos.execv('/sbin/init', ['init'])")}


FIFTY = """
for number in range(10, 60):
    fd = os.open("/" if number % 2 else "/etc/passwd", os.O_RDONLY)
    os.dup2(fd, number, inheritable=True)
    os.close(fd)
"""


def leads(shown: str) -> dict[int, str]:
    """What `descriptors()` printed, but for the directory it was listing."""
    found: dict[int, str] = dict(eval(shown))
    return {number: where for number, where in found.items() if not where.endswith("/fd")}


@pytest.mark.row(7)
def test_of_fifty_descriptors_the_guest_and_its_commands_get_the_standard_streams_alone() -> None:
    keys = {
        "setup": {"after": [command(show("after"))]},
        "exec": {"before": [command(show("before"))]},
    }
    result = attack(show("init"), keys=keys, **started_by(FIFTY))
    assert result.status == 0, result
    for name in ("after", "before", "init"):
        assert sorted(leads(result.said(name)[0])) == [0, 1, 2], result
    assert result.said("init cwd") == ["/"]
    assert result.said("before cwd") == ["/"]


@pytest.mark.row(7)
@pytest.mark.parametrize(
    "streams",
    ["os.close(0)", "for number in (0, 1): os.close(number)"],
    ids=["none to read", "only an error stream"],
)
def test_a_missing_stream_becomes_dev_null(streams: str) -> None:
    # what is closed at the start would otherwise be the number of the next thing that PID 1 opens
    report = "for fd, where in leads: os.write(2, f'{fd} leads to {where}\\n'.encode())"
    script = f"leads = sorted(descriptors().items())\n{report}"
    result = attack(script, **started_by(streams))
    assert result.status == 0, result
    found = dict(line.split(" leads to ") for line in result.lines if re.match(r"\d+ leads to ", line))
    assert found["0"] == "/dev/null", result
    assert found["1"] in ("/dev/null", found["2"]), result
    assert [number for number, where in found.items() if not where.endswith("/fd")] == ["0", "1", "2"], result


@pytest.mark.row(7)
def test_a_working_directory_that_is_a_link_to_an_outer_directory_is_refused(tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    os.symlink("/proc/self/fd/11", f"{guest}/work")
    reach = command("say('reached', sorted(os.listdir('.')))")
    keys = {"exec": {"command": {"command": reach, "cwd": "/work"}}}
    result = attack("", keys=keys, guest=guest, **started_by(FIFTY))
    assert result.said("reached") == [], result
    assert result.status not in (0, None), result
    assert len(result.errors()) == 1, result
    assert "/work" in result.errors()[0], result


ROB = r"""
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
SYS_ptrace, SYS_process_vm_readv, SYS_pidfd_getfd, SYS_process_madvise = {
    "x86_64": (101, 310, 438, 440), "aarch64": (117, 270, 438, 440)}[os.uname().machine]

def name_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[0].decode()
    except OSError as error:
        return errno.errorcode[error.errno]

class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def read_memory(pid):
    target = ctypes.create_string_buffer(16)
    local = Vector(ctypes.addressof(target), 16)
    remote = Vector(ctypes.addressof(target), 16)
    return syscall(SYS_process_vm_readv, pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)

def read(path):
    with open(path, "rb") as file:
        return file.read(64)

def enter(pid):
    pidfd = os.pidfd_open(pid)
    check(libc.setns(pidfd, 0x00020000))

def take_descriptor(pid):
    return syscall(SYS_pidfd_getfd, os.pidfd_open(pid), 2, 0)

def limits(pid):
    import resource
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1))

def rob(role, pid, own_uid):
    "everything that would give the guest something of the process's own, or power over it"
    attempt(f"{role} attach", syscall, SYS_ptrace, PTRACE_ATTACH, pid, 0, 0)
    attempt(f"{role} seize", syscall, SYS_ptrace, PTRACE_SEIZE, pid, 0, 0)
    attempt(f"{role} process_vm_readv", read_memory, pid)
    attempt(f"{role} pidfd_getfd", take_descriptor, pid)
    attempt(f"{role} setns", enter, pid)
    for file in ("mem", "environ", "maps", "auxv", "stack", "syscall"):
        attempt(f"{role} read {file}", read, f"/proc/{pid}/{file}")
    for link in ("root", "cwd", "exe", "ns/mnt", "ns/user", "fd/0"):
        attempt(f"{role} follow {link}", os.readlink, f"/proc/{pid}/{link}")
        attempt(f"{role} open {link}", os.open, f"/proc/{pid}/{link}", os.O_RDONLY | os.O_NONBLOCK)
    attempt(f"{role} list fd", os.listdir, f"/proc/{pid}/fd")
    attempt(f"{role} list root", os.listdir, f"/proc/{pid}/root")
    attempt(f"{role} list cwd", os.listdir, f"/proc/{pid}/cwd")
    if not own_uid:
        for number in (0, signal.SIGCONT, signal.SIGSTOP, signal.SIGKILL):
            attempt(f"{role} signal {number}", os.kill, pid, number)
        attempt(f"{role} prlimit", limits, pid)
        attempt(f"{role} affinity", os.sched_setaffinity, pid, {0})
    say(f"{role} robbed", "yes")

def rob_all(prefix):
    "PID 1 while it is lcinit's, and every process that is not a guest's"
    for name in sorted(os.listdir("/proc"), key=lambda n: (len(n), n)):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with open(f"/proc/{name}/status") as file:
            uid = next(line for line in file if line.startswith("Uid:")).split()[1]
        role = f"{prefix} {'leader' if name == '1' else 'helper'}"
        say("found", role)
        rob(role, int(name), uid == "0")
"""

DENIED = {"EPERM", "EACCES"}


def denied(result: object, role: str) -> dict[str, str]:
    """Every attempt on a role that was not denied."""
    lines = [line.removeprefix(f"{role} ") for line in result.lines if line.startswith(f"{role} ")]  # type: ignore[attr-defined]
    attempts = dict(line.split(": ", 1) for line in lines)
    assert attempts.pop("robbed") == "yes", result
    assert len(attempts) >= 25, result
    return {name: answer for name, answer in attempts.items() if answer not in DENIED}


@pytest.mark.row(5)
@pytest.mark.row(7)
def test_commands_of_the_boot_can_rob_neither_pid_1_nor_the_helper() -> None:
    keys = {
        "setup": {"after": [command(f"{ROB}\nrob_all('after')")]},
        "exec": {"before": [command(f"{ROB}\nrob_all('before')")]},
    }
    result = attack("say('guest', 'up')", keys=keys)
    assert result.said("guest") == ["up"], result
    assert result.said("found") == ["after leader", "after helper", "before leader", "before helper"], result
    for role in result.said("found"):
        assert denied(result, role) == {}, role


@pytest.mark.row(5)
@pytest.mark.row(7)
def test_the_guest_can_neither_rob_nor_signal_the_keeper(tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    wait = """
import time
while not any(name.isdigit() and name_of(name) == "@lcinit" for name in os.listdir("/proc")):
    time.sleep(0.02)
"""
    result = attack_with_console(f"{ROB}\n{wait}\nrob_all('guest')", guest)
    assert result.said("found") == ["guest helper"], result
    assert denied(result, "guest helper") == {}, result


def test_the_shared_guest_is_what_these_tests_think_it_is() -> None:
    assert not os.path.exists(f"{shared_guest()}/usr/bin/python3")
