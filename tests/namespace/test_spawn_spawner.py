"""The spawner: its processes are as PID 1's own, nobody waits for anybody, and its end costs nothing but time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import time
from typing import Any

import pytest

from lcinit.errors import LcinitError
from lcinit.linux import process
from lcinit.supervisor.spawn import Identity, Program
from lcinit.supervisor.spawner import SLOTS, Starting
from tests.namespace.isolated import needs_root
from tests.namespace.spawn_rig import PATH, Ground, drained, on_ground, shell

pytestmark = needs_root

BOTH = pytest.mark.parametrize("mapped", [False, True], ids=["root", "mapped"])

LAUNCHING = pytest.mark.parametrize("launching", [True, False], ids=["launched", "forked"])

# What may differ between two processes of one kind.
OWN = {"Pid", "Tgid", "Ngid", "NStgid", "NSpid", "NSpgid", "NSsid", "VmPeak", "VmSize", "VmHWM", "VmRSS", "RssAnon"}
OWN |= {
    "RssFile",
    "VmData",
    "VmPTE",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
    "VmStk",
    "VmExe",
    "VmLib",
}
OWN |= {
    "FDSize",
    "State",
    "SigQ",
    "Cpus_allowed_list",
    "Mems_allowed_list",
    "HugetlbPages",
    "RssShmem",
    "VmLck",
    "VmPin",
    "VmSwap",
}

ALL_OF_IT = """
while IFS= read -r line; do echo "$line"; done </proc/$$/status  # a shell that forks blocks signals meanwhile
echo cut; cat /proc/$$/mountinfo; echo cut
(cd /proc/$$; for name in ns/* root fd/0; do echo $name $(readlink $name); done)
cat /proc/$$/cgroup /proc/$$/limits /proc/$$/oom_score_adj
env | sort; umask; cat /proc/$$/loginuid /proc/$$/sessionid 2>&1; echo
cat /proc/$$/uid_map /proc/$$/gid_map /proc/$$/setgroups
for fd in /proc/$$/fd/*; do test -e $fd && echo fd ${fd##*/}; done
cut -d' ' -f19 /proc/$$/stat
"""


@BOTH
@LAUNCHING
@pytest.mark.parametrize("kind", ["root", "limited", "user", "isolated"])
def test_a_process_of_the_spawner_is_as_one_of_pid_1s_own(mapped: bool, kind: str, launching: bool) -> None:
    fields: dict[str, Any] = {
        "root": {},
        "limited": {"limits": ((7, 90, 100),), "nice": 2, "no_new_privileges": True, "cwd": "/usr/bin", "umask": 0o37},
        "user": {"identity": Identity(uid=7, gid=8, groups=(8, 9)), "umask": 0o077},
        "isolated": {"capabilities": ("kill",), "no_new_privileges": True, "private_tmp": True, "nice": 3},
    }[kind]

    def inside(ground: Ground) -> None:
        program = shell(ALL_OF_IT, environment=(("LANG", "C"),), **fields)
        theirs, ours = (parts(ended) for ended in (ground.run(program), ground.run_here(program)))
        assert sorted(theirs ^ ours) == []
        assert {"PPid:\t1", *(f"{name}:\t{0:016x}" for name in ("SigBlk", "SigIgn"))} <= theirs
        assert any(line.startswith("ns/user user:[") for line in theirs)
        assert any(line.startswith("0::/") for line in theirs)

    on_ground(inside, mapped=mapped, launching=launching)


def parts(ended: Any) -> set[str]:
    """The lines of ALL_OF_IT's output, without what is each process' own."""
    assert ended.failure == "", ended
    status, mounts, rest = ended.output.split("cut\n")
    found = {line for line in status.splitlines() if line.partition(":")[0] not in OWN}
    found |= {line for line in rest.splitlines() if "ns/mnt" not in line}
    # a mount namespace of its own has numbers of its own
    return found | {f"mount {line.split()[3:]}" for line in mounts.splitlines()}


@pytest.mark.row(5)
@pytest.mark.row(7)
@pytest.mark.row(37)
@BOTH
def test_it_keeps_nothing_of_the_outside(mapped: bool) -> None:
    def look(fds: list[int]) -> int:
        # a fork of the spawner's: it has what the spawner has, but for descriptors
        with open("/proc/self/maps", encoding="utf-8") as file:
            shared = [line.strip() for line in file if " rw-s " in line]
        found = {
            "shared": shared,
            "keyring": process.session_keyring(),
            "dumpable": process.get_dumpable(),
            "root": os.readlink("/proc/self/root"),
            "cwd": os.readlink("/proc/self/cwd"),
            "fds": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
        }
        os.write(fds[0], json.dumps(found).encode())
        return 3

    keyrings: list[int | None] = []

    def inside(ground: Ground) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        starting = ground.spawner.begin_function("look", (writer,))
        os.close(writer)
        child = ground.finish(starting)
        assert child is not None and child.status == 3
        found = json.loads(drained(reader))
        assert found["dumpable"] == 0
        assert found["root"] == found["cwd"] == "/"
        assert found["keyring"] != keyrings[0], "the manager's keyring is not the services'"
        assert len(found["fds"]) == 4, found
        assert found["shared"] == [], "no fork has the memory in which starts are written"
        if mapped:
            with pytest.raises(PermissionError):
                os.listdir(f"/proc/{ground.spawner.pid}/fd")

    on_ground(
        inside, mapped=mapped, functions={"look": look}, before=lambda: keyrings.append(process.session_keyring())
    )


@pytest.mark.row(9)
def test_imports_are_refused_after_it_has_entered_and_not_before() -> None:
    def imports(fds: list[int]) -> int:
        try:
            import colorsys  # noqa: F401 - nobody else imports it
        except ImportError as error:
            os.write(fds[0], str(error).encode())
            return 1
        return 0

    def inside(ground: Ground) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        before = ground.finish(ground.spawner.begin_function("imports", (writer,)))
        assert before is not None and before.status == 0
        ground.spawner.enter()
        after = ground.finish(ground.spawner.begin_function("imports", (writer,)))
        os.close(writer)
        assert after is not None and after.status == 1
        assert "must be imported before the root changes" in drained(reader)

    on_ground(inside, mapped=False, functions={"imports": imports}, enter=False)


def test_a_function_that_fails_ends_as_a_program_would() -> None:
    def fails(_fds: list[int]) -> int:
        raise RuntimeError("the reason")

    def inside(ground: Ground) -> None:
        child = ground.finish(ground.spawner.begin_function("fails", ()))
        assert child is not None and child.status == 70

    on_ground(inside, mapped=False, functions={"fails": fails})


@LAUNCHING
@BOTH
def test_large_environments_many_words_and_many_descriptors(mapped: bool, launching: bool) -> None:
    def inside(ground: Ground) -> None:
        environment = tuple((f"VARIABLE_{number}", "x" * 1000) for number in range(400))
        ended = ground.sh("env | wc -c", environment=environment)
        assert int(ended.output) > 400_000, ended
        words = tuple(str(number) for number in range(60000))
        counted = ground.run(Program(argv=("/bin/sh", "-c", "echo $#", "sh", *words), environment=(PATH,)))
        assert counted.output == "60000\n"
        file = os.open("/tmp/file", os.O_RDWR | os.O_CREAT)
        descriptors = [os.dup(file) for _ in range(500)]
        pairs = tuple((fd, 3 + place) for place, fd in enumerate(descriptors))
        count = "n=0; for fd in /proc/$$/fd/*; do test -e $fd && n=$((n + 1)); done; echo $n"
        ended = ground.sh(count, descriptors=pairs)
        assert ended.output == "503\n", ended
        for fd in descriptors:
            os.close(fd)
        huge = tuple((f"VARIABLE_{number}", "x" * 100_000) for number in range(100))
        ended = ground.sh("true", environment=huge)
        assert ended.failure == "cannot run '/bin/sh': exec: Argument list too long", ended

    on_ground(inside, mapped=mapped, launching=launching)


def test_a_start_needs_nothing_of_the_caller_after_it_was_asked_for() -> None:
    """Nothing is sent while the spawner is stopped, and what was handed over may be closed at once."""

    def inside(ground: Ground) -> None:
        os.kill(ground.spawner.pid, signal.SIGSTOP)
        starts: list[tuple[Starting, int]] = []
        began = time.monotonic()
        for number in range(SLOTS + 200):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            starts.append((ground.spawner.begin(shell(f"echo {number}", stdout=writer)), reader))
            os.close(writer)
        assert time.monotonic() - began < 5
        ground.reap()
        assert not any(starting.pid for starting, _ in starts)
        os.kill(ground.spawner.pid, signal.SIGCONT)
        for number, (starting, reader) in enumerate(starts):
            child = ground.finish(starting, 30)
            assert child is not None and child.status == 0
            assert drained(reader) == f"{number}\n"

    on_ground(inside, mapped=False)


@pytest.mark.row(33)
@LAUNCHING
def test_no_child_is_reaped_before_it_is_known(launching: bool) -> None:
    def inside(ground: Ground) -> None:
        # the reaper tells nobody of a child that was not registered, and this would never end
        starts = [ground.spawner.begin(Program(argv=("/bin/true",))) for _ in range(300)]
        ground.until(lambda: sum(child.status is not None for child in ground.children.values()) == len(starts))
        assert all(child.status == 0 for child in ground.children.values())
        assert len({child.pid for child in ground.children.values()}) == len(starts)

    on_ground(inside, mapped=False, launching=launching)


@pytest.mark.row(38)
@LAUNCHING
@pytest.mark.parametrize("moment", [0.0, 0.005, 0.02, 0.05])
def test_a_spawner_that_is_killed_under_load_loses_no_start_and_doubles_none(
    moment: float, launching: bool, capfd: Any
) -> None:
    count = 150

    def inside(ground: Ground) -> None:
        spawner = ground.spawner
        before = open_descriptors()
        starts = [spawner.begin(shell(f"echo x >>/tmp/{number}")) for number in range(count // 2)]
        time.sleep(moment)
        os.kill(spawner.pid, signal.SIGKILL)
        starts += [spawner.begin(shell(f"echo x >>/tmp/{number}")) for number in range(count // 2, count)]
        functions = spawner.begin_function("touch", (os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY),))
        for starting in (*starts, functions):
            child = ground.finish(starting, 30)
            assert starting.failure is None
            assert child is not None and child.status == 0, starting.name
        assert not spawner.alive
        for number in range(count):
            with open(f"/tmp/{number}", encoding="utf-8") as file:
                assert file.read() == "x\n", f"{number} was run more than once"
        assert os.path.exists("/tmp/touched")
        assert open_descriptors() <= before  # nothing of the starts is left open

    def touch(fds: list[int]) -> int:
        os.close(os.open("touched", os.O_WRONLY | os.O_CREAT, dir_fd=fds[0]))
        return 0

    on_ground(inside, mapped=False, functions={"touch": touch}, launching=launching)
    assert capfd.readouterr().err.count("the spawner has ended") == 1


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_open_of_a_thousand_starts_and_it_does_not_grow() -> None:
    def inside(ground: Ground) -> None:
        def load(count: int) -> None:
            for _ in range(count):
                # launched and forked, of many kinds
                programs = [shell("exit 3", umask=number // 2, private_tmp=number % 2 == 1) for number in range(20)]
                for starting in [ground.spawner.begin(program) for program in programs]:
                    child = ground.finish(starting)
                    assert child is not None and child.status == 3

        process.set_dumpable(True)
        load(5)
        before, written = open_descriptors(), private_memory(ground.spawner.pid)
        load(45)
        assert open_descriptors() == before
        assert private_memory(ground.spawner.pid) - written < 256

    on_ground(inside, mapped=False)


def private_memory(pid: int) -> int:
    """KiB that only this process has."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private"))


def test_a_spawner_that_is_gone_before_it_enters_is_an_error() -> None:
    def inside(ground: Ground) -> None:
        os.kill(ground.spawner.pid, signal.SIGKILL)
        with pytest.raises(LcinitError, match="spawner"):
            ground.spawner.enter()
        assert ground.sh("echo runs").output == "runs\n"

    on_ground(inside, mapped=False, enter=False)


@pytest.mark.row(34)
def test_no_room_for_another_process_is_a_failure_of_that_start() -> None:
    def inside(ground: Ground) -> None:
        resource.prlimit(ground.spawner.pid, resource.RLIMIT_NPROC, (1, 1))
        starting = ground.spawner.begin(Program(argv=("/bin/true",)))
        assert ground.finish(starting) is None
        assert starting.pid is None
        assert starting.failure is not None
        assert starting.failure.message == f"cannot run '/bin/true': fork: {os.strerror(errno.EAGAIN)}"
        assert starting.failure.exit_code == 126

    on_ground(inside, mapped=True)


def test_no_room_for_descriptors_in_the_spawner_is_a_failure_of_that_start() -> None:
    def inside(ground: Ground) -> None:
        resource.prlimit(ground.spawner.pid, resource.RLIMIT_NOFILE, (10, 20))
        starting = ground.spawner.begin(Program(argv=("/bin/true",)))
        assert ground.finish(starting) is None
        assert starting.pid is None
        assert starting.failure is not None
        assert starting.failure.message == f"cannot run '/bin/true': fork: {os.strerror(errno.EMFILE)}"
        resource.prlimit(ground.spawner.pid, resource.RLIMIT_NOFILE, (20, 20))
        assert ground.sh("echo again").output == "again\n"

    on_ground(inside, mapped=False)


def test_its_descriptor_can_be_read_when_there_is_something_to_take() -> None:
    def inside(ground: Ground) -> None:
        for argv, failed in ((("/bin/sleep", "9"), False), (("/nowhere",), True)):
            starting = ground.spawner.begin(Program(argv=argv))
            ground.until(lambda starting=starting: starting.pid)
            assert select.select([starting], [], [], 5)[0]
            starting.take()
            assert starting.done
            assert (starting.failure is not None) == failed
            starting.close()
            assert starting.fileno() == -1

    on_ground(inside, mapped=False)


@pytest.mark.parametrize("score", [None, 300])
def test_nobody_else_has_the_score_that_is_lent_for_a_moment(score: int | None) -> None:
    """A program that is launched has the spawner's memory until its exec, and so the score that it lends another."""

    def inside(ground: Ground) -> None:
        show = shell("cat /proc/$$/oom_score_adj")
        wanted = []
        for _ in range(15):
            wanted += [(show, "0\n"), (show, "0\n"), (show.replace(oom_score_adj=score or 700), f"{score or 700}\n")]
        starts = []
        for program, expected in wanted:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            starts.append((ground.spawner.begin(program.replace(stdout=writer)), reader, expected))
            os.close(writer)
        for starting, reader, expected in starts:
            child = ground.finish(starting)
            assert child is not None and child.status == 0
            assert drained(reader) == expected
        with open("/proc/self/oom_score_adj", encoding="utf-8") as file:
            assert file.read() == "0\n"

    on_ground(inside, mapped=True)


def test_a_score_waits_no_longer_for_an_exec_that_is_held_up_than_it_must() -> None:
    def inside(ground: Ground) -> None:
        shutil.copy("/bin/sleep", "/tmp/held")
        file = os.open("/tmp/held", os.O_RDWR)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        held = ground.spawner.begin(Program(argv=("/tmp/held", "9")))
        began = time.monotonic()
        ended = ground.sh("cat /proc/self/oom_score_adj", oom_score_adj=400)
        assert ended.output == "400\n", ended
        assert 0.1 < time.monotonic() - began < 3
        ended = ground.sh("cat /proc/self/oom_score_adj")
        assert ended.output == "0\n", ended
        assert not held.done

    on_ground(inside, mapped=False)


def test_memory_of_a_burst_is_given_back() -> None:
    def inside(ground: Ground) -> None:
        starts = [ground.spawner.begin(shell("true")) for _ in range(300)]
        tables = ground.spawner._memory.tables
        assert any(tables[place : place + 4096] != bytes(4096) for place in range(0, len(tables), 4096))
        for starting in starts:
            ground.finish(starting)
        assert not any(tables[place : place + 4096] != bytes(4096) for place in range(0, len(tables), 4096))
        assert ground.sh("echo again").output == "again\n"

    on_ground(inside, mapped=False)
