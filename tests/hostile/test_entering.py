"""Rows 5, 6, 21 and 22: what a guest may try against lcinit and against those who enter it."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attacker import python_configuration
from tests.hostile.attempt import Outcome, start
from tests.namespace.enter_rig import LCINIT, PYTHON, ROOT, SYSTEM_LCINIT, Rig

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces")

ATTACHES = 200
SECRET = "of-the-caller-and-nobody-else"

# The guest's PID 1: for every number that the next process may get it tries all there is, from before its birth on.
SEIZER = r"""
import ctypes, errno, json, os, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long
SEIZE, INTERRUPT, CONT, TRACEEXEC = 0x4206, 0x4207, 7, 0x10
PROGRAM = "/usr/bin/true"
seen, denied, won, robbed = set(), 0, [], []
running = True
def stop(*_):
    global running
    running = False
signal.signal(signal.SIGTERM, stop)

def call(number, *arguments):
    result = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result

def seize(pid):
    # in the last part of an exec a process has the new program's memory and nothing of the old: it may be seized then
    if libc.ptrace(SEIZE, pid, None, TRACEEXEC) == -1:
        raise OSError(ctypes.get_errno(), "")
    libc.ptrace(INTERRUPT, pid, None, None)
    while True:
        _, status = os.waitpid(pid, 0x40000000)
        if not os.WIFSTOPPED(status):
            return False
        if status >> 16 == 128 and before(pid):  # PTRACE_EVENT_STOP
            won.append("seized")
        libc.ptrace(CONT, pid, None, None)

def environ(pid):
    return open(f"/proc/{pid}/environ", "rb").read().find(b"of-the-caller") >= 0

def exe(pid):
    return os.readlink(f"/proc/{pid}/exe") != PROGRAM

def before(pid):
    "whether the process has not executed the guest's program by now, so that what succeeded did so before"
    try:
        return os.readlink(f"/proc/{pid}/exe") not in (PROGRAM, "/usr/bin/true (deleted)")
    except OSError:
        return False

def mem(pid):
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
    return before(pid)

def fd(pid):
    os.listdir(f"/proc/{pid}/fd")
    return before(pid)

def root(pid):
    os.stat(f"/proc/{pid}/root/.")
    return before(pid)

def cwd(pid):
    os.stat(f"/proc/{pid}/cwd/.")
    return before(pid)

def vm(pid):
    buffer = ctypes.create_string_buffer(64)
    here = struct.pack("QQ", ctypes.addressof(buffer), 64)
    there = struct.pack("QQ", 4096, 64)
    try:
        call(310, pid, here, 1, there, 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # which says that it was allowed to look
            raise
    return before(pid)

def getfd(pid):
    pidfd = os.pidfd_open(pid)
    try:
        for number in range(10):
            try:
                os.close(call(438, pidfd, number, 0))
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
    finally:
        os.close(pidfd)
    return before(pid)

ATTEMPTS = [seize, environ, exe, mem, fd, root, cwd, vm, getfd]
if WITHOUT_SEIZE:
    ATTEMPTS = ATTEMPTS[1:]
last = 1
print("ready", flush=True)
while running:
    for pid in (last + 1, last + 2):
        exists = False
        for attempt in ATTEMPTS:
            try:
                if attempt(pid):
                    won.append(attempt.__name__)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES):
                    exists = True
                    denied += 1
                    seen.add(pid)
            else:
                exists = True
        if exists:
            last = max(last, pid)
            break
    else:
        try:
            last = max([last, *(int(name) for name in os.listdir("/proc") if name.isdigit())])
        except OSError:
            pass
print(json.dumps({"denied": denied, "seen": len(seen), "won": sorted(set(won)), "times": len(won)}), flush=True)
signal.pause()
"""

# A caller that enters many times without the start of an interpreter between.
CALLER = """
import sys
sys.path.insert(0, sys.argv[1])
from lcinit.guest import session
from lcinit.tools.inject import find, order
for _ in range(int(sys.argv[3])):
    with find(int(sys.argv[2])) as target:
        end = session.run(target, order(["/usr/bin/true"], "root"))
        assert end.code == 0, end
"""


def attacked(mapped: bool, seize: bool, times: int = ATTACHES) -> dict[str, Any]:
    """What the seizing loop could do while it was entered so often."""
    with Rig(f"WITHOUT_SEIZE = {not seize}\n{SEIZER}", mapped=mapped) as rig:
        assert os.read(rig.said, 100) == b"ready\n"
        command = [sys.executable, "-ISc", CALLER, ROOT, str(rig.pid), str(times)]
        environment = {**os.environ, "SECRET": SECRET}
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        os.kill(rig.pid, signal.SIGTERM)
        found: dict[str, Any] = json.loads(os.read(rig.said, 4096))
        return found


# Every number that a process of this PID namespace could have, and every way to get hold of one.
ROB = """
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long
say("processes", sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
say("parent", os.getppid())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
say("NSpid", status["NSpid"].split())

def any_other(attempt):
    "the numbers with which it went well, and what it said of the others"
    done, errors = [], set()
    for pid in [0, -2, *range(2, 3000), 2**22 - 1]:
        try:
            attempt(pid)
        except OSError as error:
            errors.add(errno.errorcode[error.errno])
        else:
            done.append(pid)
    return done, sorted(errors)

def pidfd(pid):
    os.close(os.pidfd_open(pid))

def vm(pid):
    buffer = ctypes.create_string_buffer(64)
    syscall(310, pid, struct.pack("QQ", ctypes.addressof(buffer), 64), 1, struct.pack("QQ", 4096, 64), 1, 0)

say("signal", any_other(lambda pid: os.kill(pid, 0) if pid > 0 else os.kill(2, 0)))
say("trace", any_other(lambda pid: check(libc.ptrace(0x4206, pid, None, None))))
say("read", any_other(vm))
say("pidfd", any_other(pidfd))
say("session", any_other(lambda pid: os.getsid(pid or 2)))
for name in ("root", "cwd", "exe", "fd/0", "environ", "mem", "ns/mnt"):
    path = f"/proc/{os.getppid()}/{name}"
    attempt(f"parent {name}", os.stat, path)
own = os.stat("/proc/1/root/.")
say("root is own", (own.st_dev, own.st_ino) == (os.stat("/").st_dev, os.stat("/").st_ino))
OUTER = ("/mnt/init.yml", "/mnt/root/bin", "/run/lcinit/control")
secret = [path for path in OUTER if os.path.exists(path)]
say("outer files", secret)
links = []
for name in os.listdir("/proc/self/fd"):
    try:
        links.append(os.readlink("/proc/self/fd/" + name))
    except OSError:
        pass
say("descriptors", sorted(link for link in links if not link.startswith("/proc/")))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    os.kill(-1, signal.SIGKILL)
except OSError as error:
    say("kill all", errno.errorcode[error.errno])
else:
    say("kill all", "done")
say("the", "end")
signal.pause()
"""


def _status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(None, 1)[1] for line in lines if line.startswith(f"{field}:"))


@pytest.mark.row(5)
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_a_nested_guest_cannot_see_signal_or_trace_lcinit(mapped: bool) -> None:
    config = python_configuration(ROB, mapped=mapped, exec={"mode": "tolerant"})
    with start(config) as running:
        running.expect(r"^the: end\r*$", 40)
        lcinit, guest = running.pid1(), running.guest_pid1()
        assert _status(guest, "PPid") == str(lcinit)
        assert _status(lcinit, "TracerPid") == "0"
        text = running.console().decode(errors="replace").replace("\r\n", "\n")
    result = Outcome(None, text.splitlines())
    assert result.said("processes") == ["[1]"], result
    assert result.said("parent") == ["0"], result
    assert result.said("NSpid") == ["['1']"], result
    for name in ("signal", "trace", "read", "pidfd", "session"):
        done, errors = ast.literal_eval(result.said(name)[0])
        assert done == [], result
        assert set(errors) <= {"ESRCH", "EINVAL"}, result
    for name in ("root", "cwd", "exe", "fd/0", "environ", "mem", "ns/mnt"):
        assert result.said(f"parent {name}") == ["ENOENT"], result
    assert result.said("root is own") == ["True"], result
    assert result.said("outer files") == ["[]"], result
    assert result.said("kill all") == ["ESRCH"], result


@pytest.mark.row(19)
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_what_a_guest_types_into_its_console_is_not_typed_into_lcinits(mapped: bool) -> None:
    script = """
import fcntl, termios
for path in ("/dev/console", "/dev/tty"):
    try:
        console = os.open(path, os.O_RDWR)
    except OSError as error:
        say(path, errno.errorcode[error.errno])
        continue
    attempt(path + " TIOCSCTTY", fcntl.ioctl, console, termios.TIOCSCTTY, 1)
    attempt(path + " TIOCSTI", fcntl.ioctl, console, termios.TIOCSTI, b"#")
    attempt(path + " TIOCLINUX", fcntl.ioctl, console, 0x541C, b"\\x02" + bytes(20))
say("tried", "all")
import time
time.sleep(30)
"""
    config = python_configuration(script, mapped=mapped, exec={"mode": "tolerant"})
    with start(config, console="pty") as running:
        running.expect(r"^tried: all\r*$", 20)
        with open(f"/proc/{running.pid1()}/fd/0", "rb", buffering=0) as terminal:
            assert os.isatty(terminal.fileno())
            assert struct.unpack("i", fcntl.ioctl(terminal.fileno(), termios.FIONREAD, bytes(4)))[0] == 0


@pytest.mark.row(6)
@pytest.mark.parametrize("seize", [True, False], ids=["seize", "look"])
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_no_attach_is_seized_before_the_guests_own_program_runs(mapped: bool, seize: bool) -> None:
    found = attacked(mapped, seize)
    assert found["won"] == [], found
    if mapped:
        # the loop was there in time, again and again; without an id map it stands still then
        assert found["seen"] > ATTACHES // 10, found


@pytest.mark.row(6)
def test_the_caller_is_not_dumpable_while_it_attaches() -> None:
    with Rig() as rig:
        command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "echo ready; exec sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            for pid in (process.pid, *_children(process.pid)):
                assert os.stat(f"/proc/{pid}/environ").st_uid == 0
                # a copy of a uid change that fs.suid_dumpable would undo shows in the owner of these files
                assert subprocess.run(["test", "-r", f"/proc/{pid}/environ"], user=65534).returncode == 1
            process.terminate()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.row(6)
def test_a_guest_without_an_id_map_goes_on_after_it_was_entered() -> None:
    with Rig(mapped=False) as rig:
        for argv, code in ((["true"], 0), (["no-such-thing"], 127), (["/etc/passwd"], 126)):
            assert rig.inject(*argv).returncode == code
            assert "frozen 0" in Path(f"{rig.cgroup}/cgroup.events").read_text()


@pytest.mark.row(6)
def test_several_may_enter_a_guest_without_an_id_map_at_once() -> None:
    with Rig(mapped=False) as rig:
        command = [*LCINIT, "inject", str(rig.pid), "--", "sh", "-c", "cat /proc/self/cgroup"]
        several = [subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) for _ in range(8)]
        for each in several:
            assert each.communicate(timeout=30)[0].splitlines()[-1] == b"0::/"
            assert each.returncode == 0
        assert "frozen 0" in Path(f"{rig.cgroup}/cgroup.events").read_text()


@pytest.mark.row(8)
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_a_program_that_is_the_interpreter_of_who_enters_cannot_write_to_it(mapped: bool) -> None:
    """The program hands a descriptor of its own file, which is the caller's, to one that waits until nobody runs it."""
    directory = f"/usr/local/lib/lcinit-interpreter-{os.getpid()}-{time.monotonic_ns()}"
    os.mkdir(directory, 0o755)
    try:
        interpreter, program, done = (f"{directory}/{name}" for name in ("python3", "program", "done"))
        shutil.copyfile(os.path.realpath(PYTHON), interpreter)
        os.chmod(interpreter, 0o755)
        before = Path(interpreter).read_bytes()
        attempts = "for i in 1 2 3 4 5; do (echo overwritten 1<>/proc/self/fd/9) && break; sleep 0.2; done"
        write = f"sleep 1; {attempts}; echo >{done}"
        Path(done).touch()
        os.chmod(done, 0o666)
        Path(program).write_text(f"""#!/proc/self/exe -IS
import os
fd = os.open("/proc/self/exe", os.O_RDONLY)
os.dup2(fd, 9)
if os.fork() == 0:
    os.setsid()
    os.execv("/bin/sh", ["sh", "-c", {write!r}])
print(os.stat(fd).st_ino)
""")
        os.chmod(program, 0o755)
        with Rig(mapped=mapped) as rig:
            command = [interpreter, *SYSTEM_LCINIT[1:], "inject", str(rig.pid), "--", program]
            entered = subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
            assert entered.stdout.split() == [b"%d" % os.stat(interpreter).st_ino], entered
            deadline = time.monotonic() + 15
            while not Path(done).read_bytes():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert Path(interpreter).read_bytes() == before
    finally:
        shutil.rmtree(directory)


@pytest.mark.row(21)
def test_a_number_that_was_given_to_another_process_is_refused() -> None:
    """The process is exchanged for one of the same number at the worst moment: when the pidfd has been opened."""
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from lcinit.errors import LcinitError
from lcinit.guest import target
from lcinit.linux import process
real = process.pidfd_open
def exchanged(number, flags=0):
    fd = real(number, flags)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number - 1))
    again = os.fork()
    if again == 0:
        signal.pause()
    assert again == number, (again, number)
    return fd
process.pidfd_open = exchanged
victim = os.fork()
if victim == 0:
    signal.pause()
try:
    target.Target(victim)
except LcinitError as error:
    print("refused:", error)
else:
    print("entered")
os.kill(victim, signal.SIGKILL)
"""
    prefix = ["unshare", "--fork", "--pid", "--mount-proc", "--net", "--kill-child"]
    command = [*prefix, sys.executable, "-ISc", script, ROOT]
    done = subprocess.run(command, capture_output=True, timeout=30, text=True)
    assert done.stdout.startswith("refused: there is no process"), done


@pytest.mark.row(21)
def test_a_container_that_ends_and_comes_again_is_never_entered_by_its_old_number() -> None:
    """Kill and respawn, as fast as it goes, under somebody who enters: each time the right one or none."""
    supervisor = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from lcinit.linux import namespaces as n
print(os.getpid(), flush=True)
while True:
    pid, fd = n.clone3(n.CLONE_NEWPID | n.CLONE_NEWNS | n.CLONE_NEWUTS | n.CLONE_PIDFD)
    if pid == 0:
        os.write(1, b".")
        os.execv("/bin/sleep", ["sleep", "0.02"])
    os.waitpid(pid, 0)
    os.close(fd)
"""
    command = [sys.executable, "-ISc", supervisor, ROOT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        outcomes = set()
        try:
            for _ in range(40):
                done = subprocess.run(
                    [*LCINIT, "inject", str(pid), "--", "cat", "/proc/self/status"], capture_output=True, timeout=20
                )
                if done.returncode == 0:
                    numbers = next(line for line in done.stdout.splitlines() if line.startswith(b"NSpid:")).split()
                    outcomes.add(f"entered {len(numbers) - 1 >= 1}")
                else:
                    assert done.returncode in (64, 71, 137), done
                    outcomes.add("refused")
        finally:
            process.kill()
    assert "refused" in outcomes or "entered True" in outcomes
    assert "entered False" not in outcomes


@pytest.mark.row(22)
@pytest.mark.parametrize(
    "command",
    [["init", "--no-pid1"], ["attach"], ["inject", "1"], ["console"], ["run", "/"], ["init"]],
    ids=["init", "attach", "inject", "console", "run", "pid1"],
)
@pytest.mark.parametrize("bit", [0o4755, 0o2755], ids=["setuid", "setgid"])
def test_every_entry_refuses_to_run_setuid(command: list[str], bit: int) -> None:
    directory = f"/usr/local/lib/lcinit-setuid-{os.getpid()}-{time.monotonic_ns()}"
    os.mkdir(directory, 0o755)
    try:
        python = f"{directory}/python3"
        shutil.copyfile(os.path.realpath(PYTHON), python)
        os.chmod(python, bit)
        words = [python, *SYSTEM_LCINIT[1:], *command]
        done = subprocess.run(
            words, user=65534, group=65534, extra_groups=[], capture_output=True, timeout=20, text=True
        )
    finally:
        shutil.rmtree(directory)
    assert done.returncode == 77, done
    assert "lcinit is installed setuid or setgid; it must not be" in done.stderr
