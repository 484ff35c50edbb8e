"""Rows 17 and 18: capabilities that would come back at an exec, and the way up the cgroup tree."""

from __future__ import annotations

import os

import pytest

from tests.hostile.attacker import attack, command
from tests.hostile.attempt import SHIFT, own_guest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

CAPABILITIES = """
for line in open("/proc/self/status"):
    if line.startswith("Cap"):
        name, value = line.split()
        say(f"{PREFIX} {name[:-1]}", value)
"""


def show(prefix: str) -> str:
    return f"PREFIX = {prefix!r}\n{CAPABILITIES}"


# what a careless manager may leave in PID 1
RAISED = ("--inh-caps=+chown,+sys_admin", "--ambient-caps=+chown,+sys_admin", "/bin/sh", "-c")
SAY_OWN = "grep -E 'CapInh|CapAmb' /proc/self/status | sed 's/^/manager: /'; exec /sbin/init"


@pytest.mark.row(17)
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_no_capability_is_inheritable_or_ambient_in_the_guest(mapped: bool, tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root", SHIFT if mapped else None)
    keys = {"exec": {"before": [command(show("before"))]}}
    start_raised = {"init": "/usr/bin/setpriv", "args": (*RAISED, SAY_OWN)}
    result = attack(show("guest"), keys=keys, mapped=mapped, guest=guest, **start_raised)
    raised = dict(line.split() for line in result.said("manager"))
    assert int(raised["CapInh:"], 16) and int(raised["CapAmb:"], 16), result
    for prefix in ("before", "guest"):
        assert result.said(f"{prefix} CapInh") == ["0" * 16], result
        assert result.said(f"{prefix} CapAmb") == ["0" * 16], result
        dropped = (16, 17, 25, 30, 32, 33, 37)  # sys_module, sys_rawio, sys_time, audit_control, mac_*, audit_read
        bounding = int(result.said(f"{prefix} CapBnd")[0], 16)
        assert not any(bounding >> number & 1 for number in dropped), result
        assert result.said(f"{prefix} CapPrm")[0] == result.said(f"{prefix} CapBnd")[0], result


CLIMB = """
root = "/sys/fs/cgroup"
own = next(line.strip().split("::")[1] for line in open("/proc/self/cgroup") if line.startswith("0::"))
say("own", own)
mounted = root + (own if own != "/" and "/.." not in own else "")
say("delegated", os.stat(mounted).st_uid)
for name in sorted(os.listdir(mounted)):
    if os.path.isfile(f"{mounted}/{name}") and os.stat(f"{mounted}/{name}").st_uid == 0:
        say("own file", name)

def write(path, text):
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)

def climb(prefix, directory):
    attempt(f"{prefix} join", write, f"{directory}/cgroup.procs", str(os.getpid()))
    attempt(f"{prefix} subtree", write, f"{directory}/cgroup.subtree_control", "+pids")
    attempt(f"{prefix} kill", write, f"{directory}/cgroup.kill", "1")
    attempt(f"{prefix} freeze", write, f"{directory}/cgroup.freeze", "1")
    attempt(f"{prefix} mkdir", os.mkdir, f"{directory}/mine")
    attempt(f"{prefix} chmod", os.chmod, f"{directory}/cgroup.procs", 0o666)
    attempt(f"{prefix} chown", os.chown, directory, 0, 0)

attempt("own child", os.mkdir, f"{mounted}/child")
attempt("own limit", write, f"{mounted}/cgroup.max.depth", "7")
attempt("own freeze", write, f"{mounted}/cgroup.freeze", "0")
if mounted != root:
    climb("parent", os.path.dirname(mounted))
    climb("top", root)
else:
    os.mkdir("/tmp/cgroup")
    attempt("mount", lambda: check(libc.mount(b"none", b"/tmp/cgroup", b"cgroup2", 0, None)))
    say("mounted", sorted(os.listdir("/tmp/cgroup")) == sorted(os.listdir(root)))
    say("above", os.path.samestat(os.stat("/tmp/cgroup"), os.stat(root)))
"""

DELEGATED = {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
# PID 1 shares its cgroup with this one: the guest's is a child of it then
WITH_NEIGHBOUR = {"init": "/bin/sh", "args": ("-c", "sleep 30 & exec /sbin/init")}


@pytest.mark.row(18)
@pytest.mark.parametrize("neighbour", [False, True], ids=["alone", "with a neighbour"])
@pytest.mark.parametrize("new", [True, False], ids=["cgroup namespace", "no cgroup namespace"])
def test_the_guest_gets_the_delegated_cgroup_and_nothing_above_it(new: bool, neighbour: bool, tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    options = WITH_NEIGHBOUR if neighbour else {}
    result = attack(CLIMB, keys={"namespaces": {"cgroup": new}}, guest=guest, **options)
    assert result.status == 0, result
    assert result.said("delegated") == ["0"], result
    with open("/sys/kernel/cgroup/delegate", encoding="utf-8") as file:
        assert DELEGATED <= set(result.said("own file")) <= set(file.read().split()), result
    assert result.said("own child") == ["done"], result
    assert result.said("own limit") == ["EACCES"], result
    assert result.said("own freeze") == ["EACCES"], result
    if new:
        assert result.said("own") == ["/"], result
        assert result.said("mounted") == ["True"], result
        assert result.said("above") == ["True"], result
    elif neighbour:
        assert result.said("own")[0].startswith("/lcinit-"), result
        for where in ("parent", "top"):
            for what in ("join", "subtree", "mkdir"):
                assert result.said(f"{where} {what}") == ["EACCES"], (where, what, str(result))
            for what in ("chmod", "chown"):
                assert result.said(f"{where} {what}") == ["EPERM"], (where, what, str(result))
            for what in ("kill", "freeze"):
                # the hierarchy's own root has no such files
                assert result.said(f"{where} {what}") in (["EACCES"], ["ENOENT"]), (where, what, str(result))
