"""`lcinit run` and `contain`: what a guest without a manager gets, and how it ends."""

from __future__ import annotations

import os
import signal
import termios
import time

import pytest

from lcinit.linux.capabilities import has_capability
from tests.guests import run_rig
from tests.guests.run_rig import GUEST, MAPS, Launcher, wait_until_gone
from tests.lab import guests
from tests.namespace import ordinary
from tests.namespace.isolated import needs_root, run_isolated
from tests.namespace.ordinary import NAME, UID, needs_newuidmap, needs_system_python

pytestmark = [needs_root, needs_system_python]

AS = pytest.mark.parametrize("user", [0, UID], ids=["root", "ordinary"])
FACTS = "echo uid $(id -u) pid $$; cat /proc/self/uid_map; ls /sys/class/net; ls /dev; pwd; echo host $(hostname)"
SLEEPER = "lcinit-sleeper"  # a word that a test's process can be found by


def words(user: int, *rest: str, name: str = "run") -> list[str]:
    """The command line: root without /etc/subuid has to say which ids."""
    return [name, *(() if user else MAPS), *rest]


def isolated(body: object) -> None:
    guests.guest("busybox")  # built out here, where there is a network
    run_isolated(body, pid=True, timeout=40)  # type: ignore[arg-type]


@AS
def test_the_command_is_pid_1_and_root_of_namespaces_of_its_own(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        done = run_rig.run(
            words(user, GUEST, "/bin/sh", "-c", f"{FACTS}; for each in /proc/self/ns/*; do readlink $each; done"),
            user=user,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "uid 0 pid 1"
        assert lines[2] == "lo"
        assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "console"} <= set(lines)
        assert "kmsg" not in lines
        assert done.stderr == ""
        for kind in ("user", "mnt", "pid", "ipc", "uts", "net"):
            assert os.readlink(f"/proc/self/ns/{kind}") not in lines, f"{kind} is the outer one"

    isolated(body)


@AS
@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 200", 200)])
def test_the_exit_code_is_the_commands(user: int, script: str, status: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        assert run_rig.run(words(user, GUEST, "/bin/sh", "-c", script), user=user).returncode == status

    isolated(body)


@AS
def test_a_shell_is_the_default(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        done = run_rig.run(words(user, GUEST), user=user, stdin=None, input="echo $0 $$; exit 3\n")
        assert (done.stdout, done.returncode) == ("/bin/sh 1\n", 3), done.stderr

    isolated(body)


@AS
@pytest.mark.parametrize(
    ("rest", "status", "said"),
    [
        ((GUEST, "/nowhere"), 127, "the guest root has no /nowhere; name a CMD"),
        ((GUEST, "nowhere-at-all"), 127, "nowhere-at-all is not in the guest root's PATH; name a CMD"),
        ((GUEST, "/etc/passwd"), 126, "/etc/passwd: Permission denied"),
        (("/mnt/absent",), 71, "cannot run /mnt/absent: No such file or directory; name a directory"),
        (("/",), 64, "the guest root cannot be /"),
        ((), 64, "DIR"),
        (("-u", "0:1", GUEST), 64, "-u: '0:1' is no range; write INSIDE:OUTSIDE:SIZE"),
        (("-u", "0:0:1", GUEST), 77, "gives the guest the outer root's id 0"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(user: int, rest: tuple[str, ...], status: int, said: str) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        command = ["run", *rest] if "-u" in rest else words(user, *rest)
        done = run_rig.run(command, user=user)
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.returncode == status
        assert done.stdout == ""

    isolated(body)


def test_a_directory_of_somebody_else_that_may_not_be_entered_is_named() -> None:
    def body() -> None:
        run_rig.prepare()
        os.chmod(GUEST, 0o700)
        done = run_rig.run(words(UID, GUEST, "id"), user=UID)
        assert done.stderr.startswith(
            f"lcinit run: cannot enter {GUEST}: Permission denied; name a directory of your own"
        )
        assert len(done.stderr.splitlines()) == 1
        assert done.returncode == 77

    isolated(body)


@AS
def test_inside_runs_in_the_new_namespaces_in_the_guest_root_before_the_guest(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        os.mkdir("/mnt/data")
        with open("/mnt/data/file", "w", encoding="utf-8") as file:
            file.write("from outside\n")
        inside = "pwd; id -u; mount --bind /mnt/data mnt"
        done = run_rig.run(words(user, "-i", inside, GUEST, "cat", "/mnt/file"), user=user)
        assert done.stdout == f"{GUEST}\n0\nfrom outside\n", done.stderr
        assert not os.path.exists(f"{GUEST}/mnt/file"), "the mount is the guest's alone"

    isolated(body)


@AS
def test_outside_runs_outside_with_the_guests_pid(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        outside = "pwd; readlink /proc/self/ns/net /proc/self/ns/pid /proc/$LCINIT_GUEST_PID/ns/net"
        done = run_rig.run(words(user, "-o", outside, GUEST, "readlink", "/proc/self/ns/net"), user=user)
        where, net, pid, of_guest, in_guest = done.stdout.splitlines()
        assert where == "/mnt/home"
        assert (net, pid) == (os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/pid"))
        assert of_guest == in_guest

    isolated(body)


@AS
@pytest.mark.parametrize(("option", "key"), [("-i", "setup.after[0]"), ("-o", "setup.outside[0]")])
def test_a_helper_that_fails_ends_the_start_with_its_code(user: int, option: str, key: str) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        done = run_rig.run(words(user, option, "exit 9", GUEST, "echo", "never"), user=user)
        assert (done.returncode, done.stdout) == (9, "")
        assert f"{key}: /bin/sh ended with exit code 9" in done.stderr

    isolated(body)


@AS
def test_the_network_is_shared_without_rights_over_it(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        script = "readlink /proc/self/ns/net; ip link set lo up && echo WORKED; cat /etc/resolv.conf"
        with open("/mnt/resolv.conf", "w", encoding="utf-8") as file:
            file.write("nameserver 192.0.2.53\n")
        ordinary.bind("/mnt/resolv.conf", "/etc/resolv.conf")
        done = run_rig.run(words(user, "-n", GUEST, "/bin/sh", "-c", script), user=user)
        assert done.stdout.splitlines() == [os.readlink("/proc/self/ns/net"), "nameserver 192.0.2.53"]
        assert "Operation not permitted" in done.stderr

    isolated(body)


@AS
def test_the_environment_is_the_guests_own(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        env = ordinary.environment() | {"SECRET": "outside", "TERM": "vt100"}
        for name, container in (("run", "lcinit"), ("contain", "contain")):
            done = run_rig.run(words(user, GUEST, "/bin/busybox", "env", name=name), user=user, env=env)
            found = dict(line.split("=", 1) for line in done.stdout.splitlines())
            assert found["container"] == container, done.stderr
            assert found["TERM"] == "vt100"
            assert "SECRET" not in found

    isolated(body)


@AS
@pytest.mark.row(7)
def test_descriptors_of_the_caller_do_not_reach_the_guest(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        extra = [os.open("/", os.O_RDONLY) for _ in range(20)]
        done = run_rig.run(words(user, GUEST, "/bin/sh", "-c", "ls /proc/1/fd; true"), user=user, pass_fds=extra)
        assert done.stdout.split() == ["0", "1", "2"], done.stderr

    isolated(body)


@needs_newuidmap
def test_an_ordinary_users_delegated_ids_are_the_guests() -> None:
    def body() -> None:
        run_rig.prepare(owner=UID, subuid=f"{NAME}:200000:65536\n")
        script = "cat /proc/self/uid_map; touch /new; chown 1:2 /new; ls -ln /new; stat -c %G /dev/pts/ptmx"
        done = run_rig.run(["run", GUEST, "/bin/sh", "-c", script], user=UID)
        assert done.returncode == 0, done.stderr
        assert os.stat(f"{GUEST}/new")[4:6] == (200000, 200001)

    isolated(body)


def test_root_takes_a_free_range_of_subuid_and_shows_its_files_as_the_guests() -> None:
    def body() -> None:
        run_rig.prepare(subuid=f"{NAME}:100000:65536\nroot:300000:131072\n")
        script = "cat /proc/self/uid_map; touch /new; sleep 60"
        with Launcher(["run", GUEST, "/bin/sh", "-c", script]) as first:
            assert "300000" in first.expect("65536")
            done = run_rig.run(["run", GUEST, "cat", "/proc/self/uid_map"])
            assert done.stdout.split() == ["0", "365536", "65536"], done.stderr
        assert os.stat(f"{GUEST}/new")[4:6] == (0, 0), "on the disk they are root's, as they were"

    isolated(body)


def test_root_without_a_range_is_told_which_line_to_add() -> None:
    def body() -> None:
        run_rig.prepare()
        done = run_rig.run(["run", GUEST, "true"])
        assert done.returncode == 78
        assert "add the line root:1000000:65536 to /etc/subuid, or give -u and -g" in done.stderr

    isolated(body)


def test_files_that_belong_to_an_id_of_roots_ranges_are_taken_as_they_are() -> None:
    def body() -> None:
        run_rig.prepare(owner=365536, subuid="root:300000:131072\n")
        done = run_rig.run(["run", GUEST, "/bin/sh", "-c", "cat /proc/self/uid_map; stat -c %u /bin/busybox"])
        assert done.stdout.split() == ["0", "365536", "65536", "0"], done.stderr

    isolated(body)


def test_contain_as_root_has_contains_map() -> None:
    def body() -> None:
        run_rig.prepare()
        done = run_rig.run(["contain", GUEST, "cat", "/proc/self/uid_map"])
        assert done.stdout.split() == ["0", "4294967294", "1", "1", "1", "4294967293"], done.stderr

    isolated(body)


@AS
@pytest.mark.parametrize(("name", "shown"), [("run", "lcinit"), ("contain", "contain")])
def test_inject_finds_the_guest_by_its_launcher(user: int, name: str, shown: str) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        script = "echo up; while :; do sleep 0.1; done"
        with Launcher(words(user, GUEST, "/bin/sh", "-c", script, name=name), user=user) as launcher:
            launcher.expect("up")
            with open(f"/proc/{launcher.pid}/comm", encoding="utf-8") as file:
                assert file.read() == f"{shown}\n"
            if user and not has_capability("sys_resource"):
                return  # prlimit(2) on a process of another user's namespace asks for it
            done = run_rig.run(["inject", str(launcher.pid), "--", "/bin/sh", "-c", "id -u; readlink /proc/1/ns/pid"])
            assert done.returncode == 0, done.stderr
            uid, namespace = done.stdout.split()
            assert uid == "0"
            assert namespace != os.readlink("/proc/self/ns/pid")

    isolated(body)


@AS
def test_a_configuration_file_is_run(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        path = "/mnt/home/guest.yml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"root: {GUEST}\nhostname: fromfile\nexec: [/bin/sh, -c, 'hostname; echo $0 $1']\n")
        done = run_rig.run(words(user, path, "first", "second"), user=user)
        assert done.stdout == "fromfile\nfirst second\n", done.stderr
        refused = run_rig.run(words(user, "-n", path), user=user)
        assert refused.returncode == 64
        assert "-i, -n and -o go with a directory" in refused.stderr

    isolated(body)


@needs_newuidmap
def test_a_files_own_id_map_is_used_and_options_replace_it() -> None:
    def body() -> None:
        run_rig.prepare(owner=UID, subuid=f"{NAME}:200000:65536\n")
        path = "/mnt/home/guest.yml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f"root: {GUEST}\nid_map: {{users: [[0, {UID}, 1], [1, 200000, 10]]}}\ninitctl: true\n"
                "exec: {mode: tolerant, command: [cat, /proc/self/uid_map]}\n"
            )
        done = run_rig.run(["run", path], user=UID)
        assert done.stdout.split() == ["0", "0", "1", "1", "1", "10"], done.stderr
        assert "initctl: true has no effect on a guest that is run" in done.stderr
        done = run_rig.run(["run", "-u", f"0:{UID}:1", path], user=UID)
        assert done.stdout.split() == ["0", "0", "1"], done.stderr

    isolated(body)


@AS
def test_killing_the_launcher_kills_the_guest(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        script = f"echo up; sh -c 'sleep 60; : {SLEEPER}'"
        with Launcher(words(user, GUEST, "/bin/sh", "-c", script), user=user) as launcher:
            launcher.expect("up")
            launcher.process.kill()
            assert launcher.wait() == -signal.SIGKILL
        wait_until_gone(SLEEPER)
        if not user:
            run_rig.remove_left_cgroup()

    isolated(body)


@AS
def test_a_kill_at_any_moment_of_the_start_leaves_nothing(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        script = f"sh -c 'sleep 60; : {SLEEPER}'"
        for delay in range(0, 200, 20):
            with Launcher(words(user, GUEST, "/bin/sh", "-c", script), user=user) as launcher:
                time.sleep(delay / 1000)
                launcher.process.kill()
            wait_until_gone(SLEEPER)
        if not user:
            run_rig.remove_left_cgroup()

    isolated(body)


def test_many_that_start_at_once_do_not_take_each_others_cgroup() -> None:
    def body() -> None:
        run_rig.prepare()
        started = [Launcher(words(0, GUEST, "/bin/sh", "-c", "exit 3")) for _ in range(12)]
        for launcher in started:
            with launcher:
                assert launcher.wait() == 3, launcher.expect("lcinit")

    isolated(body)


@AS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_stops_the_guest(user: int, number: signal.Signals) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        script = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done"
        with Launcher(words(user, GUEST, "/bin/sh", "-c", script), user=user) as launcher:
            launcher.expect("up")
            launcher.process.send_signal(number)
            launcher.expect("asked")
            assert launcher.wait() == 5

    isolated(body)


@AS
def test_a_terminal_is_the_guests_own_and_ctrl_c_is_typed_into_it(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        with Launcher(words(user, GUEST, "/bin/sh"), user=user, terminal=True) as launcher:
            before = launcher.settings()
            launcher.type("tty; echo $((40 + 2))\n")
            launcher.expect("/dev/")
            launcher.expect("42")
            launcher.type("sh -c 'echo go$((3 + 3)); exec sleep 60'\n")
            launcher.expect("go6")
            launcher.type("\x03")
            launcher.type("echo $((1 + 4))back\n")
            launcher.expect("5back")
            launcher.type("exit 4\n")
            assert launcher.wait() == 4
            assert launcher.settings() == before, "the terminal is as it was"

    isolated(body)


@AS
def test_a_terminal_that_hangs_up_stops_the_guest(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        script = "trap 'echo asked >/asked; exit 0' TERM; echo $((40 + 2)); while :; do sleep 0.1; done"
        with Launcher(words(user, GUEST, "/bin/sh", "-c", script), user=user, terminal=True) as launcher:
            launcher.expect("42")
            launcher.hang_up()
            launcher.wait()
        with open(f"{GUEST}/asked", encoding="utf-8") as file:
            assert file.read() == "asked\n"

    isolated(body)


@AS
@pytest.mark.row(19)
def test_with_plain_streams_the_callers_terminal_cannot_be_typed_into(user: int) -> None:
    def body() -> None:
        run_rig.prepare(owner=user)
        script = "ls -l /proc/self/fd/0; [ -t 0 ] && echo terminal; (: </dev/tty) 2>&1; echo done"
        with Launcher(words(user, "-c", GUEST, "/bin/sh", "-c", script), user=user, terminal=True) as launcher:
            text = launcher.expect("done")
            assert "terminal" in text
            assert "can't open /dev/tty" in text, "it is no controlling terminal, so TIOCSTI is refused"
            assert launcher.wait() == 0

    isolated(body)


def test_user_namespaces_that_are_switched_off_are_named() -> None:
    def body() -> None:
        run_rig.prepare(owner=UID)
        done = ordinary.without_user_namespaces(["run", GUEST, "true"])
        assert done.returncode == 77, done.stderr
        assert "max_user_namespaces" in done.stderr

    isolated(body)


def test_raw_mode_is_only_for_a_terminal() -> None:
    def body() -> None:
        run_rig.prepare(owner=UID)
        with Launcher(["run", GUEST, "/bin/sh"], user=UID, terminal=True) as launcher:
            launcher.type("echo $((1 + 1))up\n")
            launcher.expect("2up")
            assert not launcher.settings()[3] & termios.ICANON
            launcher.type("exit\n")
            launcher.wait()

    isolated(body)
