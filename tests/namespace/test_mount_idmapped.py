"""`mount-idmapped` and the user namespace behind it, in a private mount namespace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for mounts")

PRELUDE = f"""
set -e
tool() {{ {sys.executable} -I -S -c \\
    'import sys; sys.path.insert(0, "{ROOT}"); from lcinit.cli.main import main; sys.exit(main(sys.argv))' "$@"; }}
mount -t tmpfs tmpfs /mnt
cd /mnt
"""


def shell(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace of its own, with a tmpfs at /mnt and `tool COMMAND` as lcinit."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRELUDE + script, "sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_owners_are_shifted_and_shifted_back() -> None:
    done = shell("""
        mkdir s t; touch s/a; chown 5:6 s/a
        tool mount-idmapped --map-mount=b:0:100000:65536 s t
        stat -c %u:%g t/a; stat -c %u:%g s/a
        setpriv --reuid 100007 --regid 100008 --clear-groups true
        chown 100007:100008 t/a; stat -c %u:%g s/a
    """)
    assert done.stdout.split() == ["100005:100006", "5:6", "7:8"], done.stderr


def test_source_may_be_target_as_in_the_example_configuration() -> None:
    done = shell("""
        mkdir -p root; touch root/a
        tool mount-idmapped --map-mount=b:0:1000000:65536 /mnt/root /mnt/root
        stat -c %u:%g root/a; grep -c idmapped /proc/self/mountinfo
    """)
    assert done.stdout.split() == ["1000000:1000000", "1"], done.stderr


def test_uids_and_gids_have_maps_of_their_own() -> None:
    done = shell("""
        mkdir s t; touch s/a
        tool mount-idmapped --map-mount=u:0:10:1 --map-mount=g:0:20:1 s t; stat -c %u:%g t/a
    """)
    assert done.stdout == "10:20\n", done.stderr


def test_340_ranges_are_taken() -> None:
    maps = " ".join(f"--map-mount=b:{i}:{1000 - i}:1" for i in range(340))
    done = shell(f"mkdir s t; touch s/a; chown 339:7 s/a; tool mount-idmapped {maps} s t; stat -c %u:%g t/a")
    assert done.stdout == "661:993\n", done.stderr


def test_the_map_of_a_running_user_namespace_is_taken_over() -> None:
    done = shell("""
        mkdir s t; touch s/a
        mkfifo ready; unshare --user sh -c 'echo > ready; exec sleep 20' &
        read x < ready
        echo 0 5000 100 > /proc/$!/uid_map; echo 0 6000 100 > /proc/$!/gid_map
        tool mount-idmapped --map-mount=/proc/$!/ns/user s t; kill $!
        stat -c %u:%g t/a
    """)
    assert done.stdout == "5000:6000\n", done.stderr


def test_recursive_brings_the_mounts_below_along() -> None:
    done = shell("""
        mkdir -p s/below t; mount -t tmpfs tmpfs s/below; touch s/below/a
        tool mount-idmapped --map-mount=b:0:9:1 s t; ls t/below
        tool mount-idmapped --recursive --map-mount=b:0:9:1 s t; stat -c %u:%g t/below/a
    """)
    assert done.stdout == "9:9\n", done.stderr


def test_a_file_and_a_target_behind_a_link_are_fine() -> None:
    done = shell("""
        touch a real; ln -s real link
        tool mount-idmapped --map-mount=b:0:9:1 a link; stat -c %u real
    """)
    assert done.stdout == "9\n", done.stderr


def test_map_caller_runs_the_command_as_root_of_a_new_user_namespace() -> None:
    done = shell("""
        mkdir s t; touch s/a
        tool mount-idmapped --map-mount=b:0:5000:10 --map-caller=b:0:5000:10 s t \\
            sh -c 'id -u; id -g; stat -c %u:%g t/a; stat -c %u:%g s/a; touch t/new; cat /proc/self/uid_map'
        stat -c %u:%g s/new
    """)
    assert done.stdout.split() == ["0", "0", "0:0", "65534:65534", "0", "5000", "10", "0:0"], done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("--map-mount=b:0:9:1 /proc t", 71, "proc cannot be idmapped"),
        ("--map-mount=b:0:9:1 /sys t", 71, "sysfs cannot be idmapped"),
        ("--map-mount=b:0:9:1 over t", 71, "idmap its layers first"),
        ("--map-mount=b:0:9:1 mapped t", 77, "idmapped already"),
        ("--map-mount=u:0:9:1 s t", 71, "add --map-mount=g"),
        ("--map-mount=b:0:9:5 --map-mount=b:3:99:5 s t", 71, "may not overlap"),
        ("--map-mount=b:0:9:5 --map-mount=b:30:11:5 s t", 71, "may not overlap"),
        ("--map-mount=b:0:9:1 nowhere t", 71, "No such file"),
        ("--map-mount=b:0:9:1 s nowhere", 71, "No such file"),
        ("--map-mount=b:0:9:1 s file", 71, "a file over a file"),
        ("--map-mount=/etc/passwd s t", 64, "no user namespace"),
        ("--map-mount=/proc/self/ns/net s t", 64, "no user namespace"),
        ("--map-mount=b:0:x:1 s t", 64, "is no number"),
        ("--map-mount=b:0:9:1 s t ls", 64, "needs --map-caller"),
        ("--map-mount=b:0:9:1 s", 64, "TARGET"),
        ("--map-mount=b:0:9:1 --map-caller=b:0:9:1 s u nosuchcommand", 127, "nosuchcommand"),
    ],
)
def test_a_refusal_is_one_line_with_the_next_step_and_mounts_nothing(arguments: str, code: int, text: str) -> None:
    done = shell(f"""
        mkdir s t u mapped over lower; touch file
        mount -t overlay overlay -o lowerdir=/mnt/s:/mnt/lower over
        tool mount-idmapped --map-mount=b:0:9:1 s mapped
        before=$(cat /proc/self/mountinfo)
        PATH=/usr/bin:/bin
        tool mount-idmapped {arguments} || echo $?
        [ "$before" = "$(grep -v ' /mnt/u ' /proc/self/mountinfo)" ] && echo same
    """)
    assert done.stdout.split() == [str(code), "same"], done.stderr
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_process_that_held_the_namespace_is_gone_and_sent_no_signal() -> None:
    script = """if True:
        import os, signal, sys
        sys.path.insert(0, sys.argv[1])
        from lcinit.supervisor.userns import user_namespace_with
        caught = []
        signal.signal(signal.SIGCHLD, lambda *_: caught.append(1))
        before = set(os.listdir("/proc/self/fd"))
        for dumpable in (1, 0):
            from lcinit.linux import process
            process.set_dumpable(bool(dumpable))
            fd = user_namespace_with([(0, 7, 1)], [(0, 8, 1)])
            assert os.readlink(f"/proc/self/fd/{fd}").startswith("user:")
            assert not os.get_inheritable(fd)
            os.close(fd)
        assert set(os.listdir("/proc/self/fd")) == before
        try:
            os.waitpid(-1, 0x40000000)
        except ChildProcessError:
            print("no child", caught)
    """
    done = subprocess.run([sys.executable, "-I", "-c", script, ROOT], capture_output=True, text=True, timeout=30)
    assert done.stdout == "no child []\n", done.stderr
