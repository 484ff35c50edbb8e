"""`inject` into a container without a manager: what the command gets, and what it does not."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lcinit.linux.capabilities import has_capability
from tests.namespace.enter_rig import LCINIT, SHIFT, SYSTEM_LCINIT, Rig
from tests.namespace.isolated import needs_root

pytestmark = needs_root

FACTS = r"""
import json, os, resource
def read(name):
    return open("/proc/self/" + name).read()
status = dict(line.split(":", 1) for line in read("status").splitlines())
print(json.dumps({
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "status": {name: value.strip() for name, value in status.items()},
    "environment": dict(os.environ),
    "streams": {fd: os.readlink("/proc/self/fd/" + fd) for fd in "012"},
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
    "cwd": os.getcwd(), "umask": os.umask(0), "cgroup": read("cgroup").splitlines()[-1],
    "namespaces": {name: os.stat("/proc/self/ns/" + name).st_ino for name in os.listdir("/proc/self/ns")},
    "sid": os.getsid(0), "pid": os.getpid(),
    "ignored": status["SigIgn"].strip(), "blocked": status["SigBlk"].strip(),
}))
"""


@pytest.fixture(scope="module", params=[True, False], ids=["mapped", "unmapped"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig(mapped=request.param) as rig:
        yield rig


def facts(rig: Rig, *options: str, **run: object) -> dict[str, Any]:
    command = [*LCINIT, "inject", *options, str(rig.pid), "--", "/usr/bin/python3", "-ISc", FACTS]
    done = subprocess.run(command, capture_output=True, timeout=20, **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_command_is_root_of_the_guest_in_every_namespace_of_it(rig: Rig) -> None:
    found = facts(rig)
    assert found["ids"] == [[0, 0, 0], [0, 0, 0], [0]]
    theirs = {name: os.stat(f"/proc/{rig.pid}/ns/{name}").st_ino for name in found["namespaces"]}
    assert found["namespaces"] == theirs
    assert found["cwd"] == "/"
    assert found["umask"] == 0o022
    assert found["sid"] == found["pid"]


def test_nothing_of_the_caller_comes_along(rig: Rig) -> None:
    extra = [os.open("/", os.O_RDONLY) for _ in range(20)]
    for fd in extra:
        os.set_inheritable(fd, True)
    environment = {**os.environ, "SECRET": "of the caller", "TERM": "xterm", "container": "podman", "LD_DEBUG": "x"}
    environment.pop("LD_DEBUG")
    try:
        found = facts(
            rig, env=environment, close_fds=False, preexec_fn=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        )
    finally:
        for fd in extra:
            os.close(fd)
    assert found["environment"] == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "USER": "root",
        "LOGNAME": "root",
        "TERM": "xterm",
        "container": "podman",
    }
    assert len(found["descriptors"]) == 4  # 0-2 and the directory that is listed
    assert all(found["streams"][fd].startswith("pipe:") for fd in "012")
    # Python itself ignores SIGPIPE and SIGXFSZ
    assert int(found["ignored"], 16) & (1 << signal.SIGUSR1 - 1) == 0
    assert int(found["blocked"], 16) == 0


def test_words_of_the_environment_that_could_do_something_are_left_out(rig: Rig) -> None:
    found = facts(rig, env={**os.environ, "TERM": "../../x\x1b[2J", "container": "a b"})
    assert found["environment"]["TERM"] == "dumb"
    assert found["environment"]["container"] == "lcinit"


def test_the_command_is_in_the_cgroup_of_the_guest(rig: Rig) -> None:
    assert rig.inject("cat", "/proc/self/cgroup").stdout.splitlines()[-1] == b"0::/"
    command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "echo ready; exec sleep 77"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 10
        while b"sleep\x0077" not in b"".join(_command_lines(rig.cgroup)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


def _command_lines(cgroup: str) -> list[bytes]:
    found = []
    with open(f"{cgroup}/cgroup.procs", encoding="utf-8") as file:
        for pid in file.read().split():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as command_line:
                    found.append(command_line.read())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_limits_are_those_of_the_guests_init() -> None:
    # raised beyond the caller's own, lowered below them, and a memory limit that an interpreter could not live with
    init = """
import resource, signal
resource.setrlimit(resource.RLIMIT_NOFILE, (321, 654))
resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))
open("/proc/self/oom_score_adj", "w").write("345")
resource.setrlimit(resource.RLIMIT_AS, (64 << 20, 128 << 20))
signal.pause()
"""
    with Rig(init) as rig:
        while resource.prlimit(rig.pid, resource.RLIMIT_AS)[0] != 64 << 20:
            time.sleep(0.01)
        command = "ulimit -Sn; ulimit -Hn; ulimit -Sv; ulimit -Hc; cat /proc/self/oom_score_adj"
        for own, core in ((resource.RLIM_INFINITY, b"8"), (0, b"8" if has_capability("sys_resource") else b"0")):
            done = rig.inject("sh", "-c", command, preexec_fn=lambda own=own: _limit_core(own))
            assert done.stdout.split() == [b"321", b"654", b"65536", core, b"345"], done.stderr


def _limit_core(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def test_capabilities_are_those_of_the_guests_init() -> None:
    with Rig(drop=(12, 21)) as rig:  # net_admin, sys_admin
        found = facts(rig)["status"]
        with open(f"/proc/{rig.pid}/status", encoding="utf-8") as file:
            bounding = next(line.split()[1] for line in file if line.startswith("CapBnd"))
        assert int(bounding, 16) & (1 << 12 | 1 << 21) == 0
        assert found["CapBnd"] == found["CapPrm"] == found["CapEff"] == bounding
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0


def test_no_new_privileges_comes_along() -> None:
    init = "import ctypes, signal; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); signal.pause()"
    with Rig(init) as rig:
        while "NoNewPrivs:\t1" not in Path(f"/proc/{rig.pid}/status").read_text():
            time.sleep(0.01)
        assert facts(rig)["status"]["NoNewPrivs"] == "1"
    with Rig() as rig:
        assert facts(rig)["status"]["NoNewPrivs"] == "0"


def test_a_filter_of_the_init_that_the_command_has_not_is_told(rig: Rig) -> None:
    # prctl(2), PR_SET_SECCOMP with SECCOMP_MODE_FILTER and one instruction: SECCOMP_RET_ALLOW
    init = """
import ctypes, signal, struct
libc = ctypes.CDLL(None)
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
assert libc.prctl(22, 2, struct.pack("HxxxxxxQ", 1, ctypes.addressof(allow)), 0, 0) == 0
signal.pause()
"""
    with Rig(init) as filtered:
        while "Seccomp:\t2" not in Path(f"/proc/{filtered.pid}/status").read_text():
            time.sleep(0.01)
        done = filtered.inject("true")
    assert done.returncode == 0
    assert b"runs under a seccomp filter, and this command does not" in done.stderr
    assert rig.inject("true").stderr == b""


def test_a_user_is_one_of_the_guests(rig: Rig) -> None:
    found = facts(rig, "-u", "daemon")
    assert found["ids"] == [[1, 1, 1], [1, 1, 1], [1]]
    assert found["environment"]["HOME"] == "/usr/sbin"
    assert int(found["status"]["CapPrm"], 16) == 0
    assert facts(rig, "-u", "4242")["ids"][0] == [4242, 4242, 4242]


def test_an_unknown_user_is_told(rig: Rig) -> None:
    done = subprocess.run([*LCINIT, "inject", "-u", "nobody-such", str(rig.pid)], capture_output=True, timeout=20)
    assert done.returncode == 78
    assert b"no user 'nobody-such' in /etc/passwd" in done.stderr


def test_an_id_that_the_guest_has_not_is_told() -> None:
    with Rig() as rig:
        done = subprocess.run([*LCINIT, "inject", "-u", "70000", str(rig.pid)], capture_output=True, timeout=20)
        assert done.returncode == 71
        assert b"become 70000 (70000:70000) in the guest" in done.stderr
        assert b"its id map has no such id" in done.stderr


def test_streams_belong_to_the_user(rig: Rig) -> None:
    done = rig.inject("sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/stdin", input=b"in\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\nin\n", b"err\n", 0)


def test_pipes_are_byte_exact_both_ways(rig: Rig) -> None:
    data = os.urandom(5_000_000)
    done = rig.inject("sh", "-c", "tee /dev/stderr", input=data)
    assert done.stdout == data
    assert done.stderr == data


def test_a_reader_that_ends_ends_the_writer(rig: Rig) -> None:
    command = " ".join(map(_quote, [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "yes; echo $? >&2"]))
    done = subprocess.run(
        ["sh", "-c", f"{command} | head -n 2"], capture_output=True, timeout=20, stdin=subprocess.DEVNULL
    )
    assert done.stdout == b"y\ny\n"
    assert done.stderr.strip() == b"141"


def test_a_command_that_reads_no_more_ends_its_feeder(rig: Rig) -> None:
    command = " ".join(
        map(_quote, [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "exec 0</dev/null; sleep 1; echo on"])
    )
    done = subprocess.run(["sh", "-c", f"(yes; echo $? >&2) | {command}"], capture_output=True, timeout=20)
    assert done.stdout == b"on\n"
    assert done.stderr.strip() == b"141"


def _quote(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def test_the_end_of_input_is_passed_on(rig: Rig) -> None:
    assert rig.inject("wc", "-c", input=b"12345").stdout.strip() == b"5"


def test_what_the_command_wrote_last_is_not_lost(rig: Rig) -> None:
    for _ in range(5):
        done = rig.inject("sh", "-c", "head -c 60000 /dev/zero; exit 3")
        assert (len(done.stdout), done.returncode) == (60000, 3)


def test_a_child_that_keeps_the_pipes_holds_nothing_up(rig: Rig) -> None:
    started = time.monotonic()
    done = rig.inject("sh", "-c", "sleep 8 & echo done")
    assert done.stdout == b"done\n"
    assert time.monotonic() - started < 6


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("kill -KILL $$", 137), ("kill -USR1 $$", 138)])
def test_the_exit_code_is_the_commands(rig: Rig, command: str, code: int) -> None:
    assert rig.inject("sh", "-c", command).returncode == code


def test_what_cannot_be_run_is_told(rig: Rig) -> None:
    done = rig.inject("no-such-command")
    assert (done.returncode, done.stderr) == (
        127,
        b"lcinit inject: cannot run 'no-such-command': not found in the guest\n",
    )
    done = rig.inject("/etc/passwd")
    assert (done.returncode, done.stderr) == (126, b"lcinit inject: cannot run '/etc/passwd': Permission denied\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on_to_the_command(rig: Rig, number: int) -> None:
    script = f"trap 'echo got; exit 5' {number}; echo ready; while :; do sleep 0.1; done"
    command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"got\n"
        assert process.wait(10) == 5


def test_streams_that_are_sockets_are_given_back_blocking(rig: Rig) -> None:
    """A socket cannot be opened anew; who shares it must not find it changed (fcntl(2), O_NONBLOCK)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"through")
        ours.shutdown(socket.SHUT_WR)
        command = [*LCINIT, "inject", str(rig.pid), "--", "cat"]
        fd = theirs.fileno()
        done = subprocess.run(command, stdin=fd, stdout=fd, stderr=fd, timeout=20)
        assert done.returncode == 0
        assert ours.recv(100) == b"through"
        assert os.get_blocking(theirs.fileno())


def test_a_reader_that_never_reads_can_be_given_up(rig: Rig) -> None:
    command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "echo ready >&2; head -c 100000 /dev/zero"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"ready\n"
        time.sleep(0.3)  # the command has ended by then, and its last output waits for the reader
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


def test_the_end_of_the_guest_is_told() -> None:
    with Rig() as rig:
        command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "echo ready; sleep 60"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == b"ready\n"
            os.kill(rig.pid, signal.SIGKILL)
            assert process.wait(10) == 137
            assert process.stderr.read() == b"lcinit inject: the guest ended, and the command with it\n"


def test_a_caller_that_is_stopped_does_not_hold_up_the_end_of_the_guest() -> None:
    with Rig() as rig:
        command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "echo ready; sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGSTOP)
            os.kill(rig.pid, signal.SIGKILL)
            deadline = time.monotonic() + 5
            while os.waitid(os.P_PID, rig.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                assert time.monotonic() < deadline, "a process that nobody reaps keeps the PID namespace"
                time.sleep(0.02)
            process.kill()


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_a_frozen_guest_is_told(mapped: bool) -> None:
    with Rig(mapped=mapped) as rig:
        with open(f"{rig.cgroup}/cgroup.freeze", "w", encoding="utf-8") as file:
            file.write("1")
        time.sleep(0.1)
        done = rig.inject("true")
        assert done.returncode == 71
        assert b"the guest is frozen" in done.stderr
        with open(f"{rig.cgroup}/cgroup.freeze", "w", encoding="utf-8") as file:
            file.write("0")
        assert rig.inject("true").returncode == 0


def test_a_chrooted_init_leads_into_its_root(guest_root: Callable[[str], str]) -> None:
    root = guest_root("plain")
    with Rig(chroot=root, argv=("/bin/sh", "-c", "sleep 1000"), mapped=False) as rig:
        done = rig.inject("/bin/sh", "-c", "cd ..; ls")
        assert done.stdout.decode().split() == sorted(os.listdir(root))


def test_a_process_of_no_other_namespaces_is_refused() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        done = subprocess.run([*LCINIT, "inject", str(process.pid), "--", "true"], capture_output=True, timeout=20)
        process.kill()
    assert done.returncode == 64
    assert b"is in no other namespaces" in done.stderr


def test_a_process_that_is_not_there_is_told() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    done = subprocess.run([*LCINIT, "inject", str(child.pid), "--", "true"], capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (
        71,
        b"lcinit inject: there is no process %d, or it has ended\n" % child.pid,
    )


def test_a_thread_is_no_process(rig: Rig) -> None:
    done = subprocess.run([*LCINIT, "inject", "0", "--", "true"], capture_output=True, timeout=20)
    assert done.returncode == 64


def test_the_one_who_started_a_container_means_the_container() -> None:
    starter = ["unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--net", "sh", "-c", "echo $$; sleep 60"]
    with subprocess.Popen(starter, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        done = subprocess.run(
            [*LCINIT, "inject", str(process.pid), "--", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"],
            capture_output=True,
            timeout=20,
        )
        process.kill()
    assert done.stdout.startswith(b"sh -c echo"), done.stderr


def test_only_root_may(rig: Rig) -> None:
    command = [*SYSTEM_LCINIT, "inject", str(rig.pid), "true"]
    done = subprocess.run(command, capture_output=True, timeout=20, user=65534, group=65534)
    assert done.returncode == 77
    assert b"only root may enter a container, and this is uid 65534" in done.stderr


def test_root_needs_sys_admin(rig: Rig) -> None:
    drop = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    done = subprocess.run([*drop, *LCINIT, "inject", str(rig.pid), "true"], capture_output=True, timeout=20)
    assert done.returncode == 77
    assert b"CAP_SYS_ADMIN is needed to enter a container" in done.stderr


def test_the_process_that_waits_outside_cannot_be_looked_into(rig: Rig) -> None:
    command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "echo ready; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        outside = [pid for pid in Path(f"{rig.cgroup}/cgroup.procs").read_text().split() if _depth(pid) == 1]
        assert len(outside) == 1
        # a process that is not dumpable has files of the outer root's (proc_pid(5))
        assert os.stat(f"/proc/{outside[0]}").st_uid == (SHIFT if rig.mapped else 0)
        assert os.stat(f"/proc/{outside[0]}/environ").st_uid == 0
        assert os.readlink(f"/proc/{outside[0]}/fd/0") == "/dev/null"
        process.terminate()


def _depth(pid: str) -> int:
    return (
        len(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "NSpid" in line).split()) - 1
    )
