"""What PID 1 was started with stays outside: environment, session keyring, signals, umask; its limits go on."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.hostile.attempt import boot, configuration, start
from tests.lab.container import descendants

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

SECRET = "outer-secret-of-the-manager"
SYS_ADD_KEY, SYS_KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]

# Runs as the container's PID 1, leaves much behind that an exec passes on, and becomes lcinit.
BEFORE = f"""\
import ctypes, os, resource, signal
call = ctypes.CDLL(None).syscall
assert call({SYS_KEYCTL}, 1, None) > 0  # KEYCTL_JOIN_SESSION_KEYRING
assert call({SYS_ADD_KEY}, b"user", b"outer", b"{SECRET}", {len(SECRET)}, -3) > 0  # KEY_SPEC_SESSION_KEYRING
resource.setrlimit(resource.RLIMIT_NOFILE, (777, 4000))
resource.setrlimit(resource.RLIMIT_STACK, (6 << 20, 7 << 20))
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
os.umask(0o077)
os.chdir("/usr")
os.execv("/sbin/init", ["/sbin/init"])
"""
# What a program in the guest finds in its session keyring, by the possession that keyctl(2) needs.
FIND_KEY = f"""\
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
found = call({SYS_KEYCTL}, 10, -3, b"user", b"outer", 0)  # KEYCTL_SEARCH
buffer = ctypes.create_string_buffer(100)
read = call({SYS_KEYCTL}, 11, found, buffer, 100) if found > 0 else -1  # KEYCTL_READ
print("WHO-key:", buffer.value.decode() if read > 0 else "none")
"""
LOOK = f"""\
env | sed 's/^/WHO-env: /'
/usr/bin/python3 -ISc '{FIND_KEY}'
echo "WHO-open: $(ulimit -Sn) $(ulimit -Hn)"
echo "WHO-stack: $(ulimit -Ss) $(ulimit -Hs)"
echo "WHO-umask: $(umask)"
echo "WHO-cwd: $(pwd)"
grep -E '^Sig(Blk|Ign):' /proc/self/status | sed 's/^/WHO-signals: /;s/\\t/ /'
"""


def look(who: str) -> str:
    return LOOK.replace("WHO", who)


def with_python(**keys: Any) -> str:
    """A configuration of a guest with the boot root's /usr, for its Python."""
    keys.setdefault("mounts", [{"source": "/usr", "target": "/usr", "options": "ro"}])
    return configuration(**keys)


MANAGERS_OWN: dict[str, Any] = {"init": "/usr/bin/python3", "args": ("-IS", "-c", BEFORE)}


@pytest.mark.row(37)
@pytest.mark.parametrize("mapped", [True, False], ids=["id map", "no id map"])
def test_nothing_that_pid_1_was_started_with_reaches_the_guest(mapped: bool) -> None:
    config = with_python(script=look("init"), mapped=mapped, exec={"before": [["/bin/sh", "-c", look("before")]]})
    done = boot(config, env={"OUTER_SECRET": SECRET, "LC_ALL": "C.UTF-8"}, **MANAGERS_OWN)
    assert done.status == 0, done
    assert SECRET not in str(done)
    for who in ("init", "before"):  # what runs in the guest root before its init is the guest's already
        assert done.said(f"{who}-key") == ["none"]
        environment = dict(line.split("=", 1) for line in done.said(f"{who}-env"))
        assert environment.keys() - {"PWD", "OLDPWD", "_", "SHLVL"} == {"PATH", "TERM", "LC_ALL", "container"}
        assert environment["container"] == "lcinit"
        assert done.said(f"{who}-open") == ["777 4000"]
        assert done.said(f"{who}-stack") == ["6144 7168"]
        assert done.said(f"{who}-umask") == ["0022"]
        assert done.said(f"{who}-cwd") == ["/"]
        assert done.said(f"{who}-signals") == ["SigBlk: 0000000000000000", "SigIgn: 0000000000000000"]


@pytest.mark.row(37)
def test_a_process_that_stays_beside_the_guest_knows_no_secret() -> None:
    """The keeper serves initctl for as long as the guest lives, and the guest shares its PID namespace."""
    config = configuration("sleep 30 & echo 'guest: runs'; wait", initctl=True)
    with start(config, env={"OUTER_SECRET": SECRET}) as container:
        container.expect("^guest: runs")
        first = container.pid1()
        processes = [first, *descendants(first)]
        assert len(processes) == 3  # the shell, its sleep, the keeper
        for pid in processes:
            with open(f"/proc/{pid}/environ", "rb") as environment, open(f"/proc/{pid}/cmdline", "rb") as words:
                assert SECRET.encode() not in environment.read() + words.read()


@pytest.mark.row(37)
@pytest.mark.parametrize(
    ("wanted", "passed"),
    [("none", set()), ("all", {"OUTER_SECRET", "OUTER_NAME"}), (["OUTER_N*"], {"OUTER_NAME"}), (["outer_*"], set())],
    ids=["none", "all", "glob", "other case"],
)
def test_the_environment_passes_what_is_named_and_no_more(wanted: Any, passed: set[str]) -> None:
    config = configuration("env | sed 's/^/env: /'", pass_environment=wanted)
    done = boot(config, env={"OUTER_SECRET": SECRET, "OUTER_NAME": "a"})
    names = {line.partition("=")[0] for line in done.said("env")}
    assert {name for name in names if name.startswith("OUTER")} == passed


@pytest.mark.row(37)
def test_limits_of_the_configuration_are_the_guests() -> None:
    script = 'echo "open: $(ulimit -Sn) $(ulimit -Hn)"; echo "core: $(ulimit -c)"'
    done = boot(configuration(script, limits={"nofile": "99:100", "core": 0}))
    assert done.said("open") == ["99 100"]
    assert done.said("core") == ["0"]
