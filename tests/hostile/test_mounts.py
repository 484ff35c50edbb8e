"""Rows 1, 2, 4, 15 and 46: mount points that lead elsewhere, that move, that leak, and that the guest would undo."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import time
import traceback

import pytest

from lcinit.boot import runner
from lcinit.boot.world import World
from lcinit.config.values import Config, IdMap, IdRange
from lcinit.errors import LcinitError
from lcinit.linux import files
from lcinit.linux.calls import AT_FDCWD
from lcinit.plan import steps as s
from lcinit.plan.build import build
from lcinit.plan.facts import Machine
from tests.hostile.attacker import attack
from tests.hostile.attempt import SHIFT, Outcome, configuration, outcome, own_guest, start
from tests.hostile.canary import Canary
from tests.namespace.isolated import run_isolated

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")


def replace_by_link(guest: str, path: str, to: str) -> None:
    """An entry of a guest becomes a symbolic link; an absent parent is made."""
    target = f"{guest}/{path}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(target) and not os.path.islink(target):
        shutil.rmtree(target)
    os.symlink(to, target)


LINKS = {"absolute": "/mnt/canary", "relative": "../canary", "dangling": "/mnt/nowhere"}
#: mount points in the guest's own files, which lcinit must refuse
REFUSED = ("proc", "sys", "dev", "run")
#: what lies on something that lcinit mounts itself: the guest's entry is not even seen
COVERED = ("dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup")

TRY_EACH = """
cp /proc/self/mountinfo /tmp/before
for config in /mnt/configs/*; do
    echo "trying ${config##*/}"
    lcinit init --no-pid1 --config "$config" -- /bin/sh -c 'echo the guest runs'
    echo "status $?"
done
[ "$(cat /proc/self/mountinfo)" = "$(cat /tmp/before)" ] && echo "mounts as before"
echo "running:" $(cat /proc/[0-9]*/comm)
"""


@pytest.mark.row(1)
def test_a_mount_point_that_is_a_link_is_refused_and_nothing_is_left(tmp_path: object) -> None:
    canary = Canary(f"{tmp_path}/canary")
    binds = [(canary.path, "/mnt/canary")]
    os.mkdir(f"{tmp_path}/configs")
    for kind, to in LINKS.items():
        for target in REFUSED:
            name = f"{kind}-{target}"
            guest = own_guest(f"{tmp_path}/{name}")
            replace_by_link(guest, target, to)
            binds.append((guest, f"/mnt/{name}"))
            with open(f"{tmp_path}/configs/{name}", "w") as file:
                file.write(configuration(root=f"/mnt/{name}"))
    binds.append((f"{tmp_path}/configs", "/mnt/configs"))
    with start("{}", binds=binds, init="/bin/sh", args=("-c", TRY_EACH)) as container:
        result = outcome(container)
    tried = "\n".join(result.lines).split("trying ")[1:]
    assert len(tried) == len(LINKS) * len(REFUSED), result
    for text in tried:
        name, said, status, *_ = text.split("\n")
        path = name.rpartition("-")[2]
        assert said.startswith(f"lcinit: error: refused: /{path} in the guest root /mnt/{name} is"), result
        assert "symbolic link" in said
        assert status == "status 71", result
    assert result.lines[-2] == "mounts as before", result
    assert result.lines[-1] == "running: sh cat", result
    canary.assert_untouched()


@pytest.mark.row(1)
@pytest.mark.parametrize("kind", LINKS)
def test_a_link_below_what_lcinit_mounts_is_covered(kind: str, tmp_path: object) -> None:
    canary = Canary(f"{tmp_path}/canary")
    guest = own_guest(f"{tmp_path}/root")
    for target in COVERED:
        replace_by_link(guest, target, LINKS[kind])
    script = 'for each in dev/pts dev/shm dev/mqueue sys/fs/cgroup; do echo "$each: $(stat -fc %T /$each)"; done'
    with start(configuration(script), guest=guest, binds=[(canary.path, "/mnt/canary")]) as container:
        result = outcome(container)
    assert result.status == 0, result
    types = {target: result.said(target)[0] for target in COVERED}
    assert types == {"dev/pts": "devpts", "dev/shm": "tmpfs", "dev/mqueue": "mqueue", "sys/fs/cgroup": "cgroup2fs"}
    canary.assert_untouched()


MACHINE = Machine(capabilities=frozenset({"sys_admin"}), container_uuid="c" * 32, resolv_conf=True)
RACED = ("proc", "sys", "dev", "run", "etc/machine-id", "etc/resolv.conf")
# What the plan does in the guest's files; the steps that only concern processes are left out
NOT_RACED = (s.StartHelper, s.Unshare, s.WriteIdMap, s.LoopbackUp, s.DropCapabilities, s.ChangeRoot, s.ConsoleStep)


def raced_steps(root: str) -> tuple[Config, list[s.Step]]:
    from lcinit.config.values import Devices, Exec, Network, Root

    ranges = (IdRange(inside=0, outside=SHIFT, size=65536),)
    config = Config(
        root=Root(path=root),
        id_map=IdMap(users=ranges, groups=ranges),
        initctl=True,
        devices=Devices(include=("/dev/null", "/dev/loop*")),
        network=Network(resolv_conf="/etc/os-release"),
        exec=Exec(command=("/bin/sh",)),
    )
    plan = build(config, MACHINE, ("/bin/sh",))
    return config, [step for step in plan.steps[:-1] if not isinstance(step, NOT_RACED)]


LONGEST_PAUSE = 0.002  # seconds between two exchanges: a start takes about ten times that


def exchange_for_ever(root: str) -> None:
    """What a second container that shares the guest's files could do: links and mount points change places."""
    pairs = pairs_of(root)
    chance = random.Random(1)
    while True:
        first, second = chance.choice(pairs)
        for pause in (LONGEST_PAUSE / 20, LONGEST_PAUSE):
            files.renameat2(AT_FDCWD, first, AT_FDCWD, second, files.RENAME_EXCHANGE)
            time.sleep(chance.random() * pause)


WON, LOST, TOUCHED, BROKEN = range(4)


def start_once(config: Config, steps: list[s.Step], root: str, canary: Canary, pause: Pause | None = None) -> int:
    """One start's work in the guest's files, in a process of its own: its mounts end with it."""
    child = os.fork()
    if child:
        if pause is not None:
            pause.act()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = BROKEN
    try:
        world = World(config=config, main=len, plan=None, owner=(SHIFT, SHIFT), root=root)  # type: ignore[arg-type]
        try:
            for number, step in enumerate(steps):
                if pause is not None:
                    pause.wait(number)
                runner.action(type(step))(world, step)
            status = WON
        except (LcinitError, OSError):
            status = LOST
        canary.assert_untouched()
        with open("/proc/self/mountinfo") as mountinfo:
            if any(line.split()[4].startswith(canary.path) for line in mountinfo):
                status = TOUCHED
    except AssertionError:
        status = TOUCHED
    except BaseException:
        traceback.print_exc()
        status = BROKEN
    finally:
        os._exit(status)


class Pause:
    """Before step `number` the start waits while `pair` changes places, outside of its mount namespace.

    Inside, a mount point cannot be renamed (EBUSY).
    """

    def __init__(self, number: int, pair: tuple[str, str]) -> None:
        self.number = number
        self.pair = pair
        self.ours, self.theirs = socket.socketpair()

    def wait(self, number: int) -> None:
        """In the start, before each step."""
        if number == self.number:
            self.theirs.send(b"?")
            self.theirs.recv(1)

    def act(self) -> None:
        """Outside. The start always comes that far: before that it is left alone."""
        self.theirs.close()
        if not self.ours.recv(1):
            raise AssertionError(f"the start ended before step {self.number}")
        self.exchange()
        self.ours.send(b"!")

    def exchange(self) -> None:
        """There or back."""
        files.renameat2(AT_FDCWD, self.pair[0], AT_FDCWD, self.pair[1], files.RENAME_EXCHANGE)


def pairs_of(root: str) -> list[tuple[str, str]]:
    """What changes places: each entry with a link out of the guest, and /dev with a directory full of such links."""
    pairs = [(f"{root}/{name}", f"{root}/evil/{os.path.basename(name)}") for name in RACED]
    return [*pairs, (f"{root}/dev", f"{root}/evil/planted")]


def race(root: str, canary: Canary, starts: int) -> None:
    config, steps = raced_steps(root)
    opponent = os.fork()
    if opponent == 0:
        try:
            exchange_for_ever(root)
        finally:
            os._exit(1)
    try:
        results = [start_once(config, steps, root, canary) for _ in range(starts)]
        assert os.waitpid(opponent, os.WNOHANG) == (0, 0), "nobody raced"
    finally:
        os.kill(opponent, signal.SIGKILL)
        os.waitpid(opponent, 0)
    assert set(results) <= {WON, LOST}, results
    # both happened, or there was no race
    assert min(results.count(WON), results.count(LOST)) >= starts // 20, results


def raced_guest(path: str, canary: Canary) -> str:
    """A guest with a directory /evil of what its entries are exchanged for."""
    root = own_guest(path)
    os.mkdir(f"{root}/evil")
    for name in RACED:
        is_file = name.startswith("etc/")
        os.symlink(f"{canary.path}/file" if is_file else canary.path, f"{root}/evil/{os.path.basename(name)}")
        if is_file:
            with open(f"{root}/{name}", "w"):
                os.chown(f"{root}/{name}", SHIFT, SHIFT)
    os.mkdir(f"{root}/evil/planted")
    for name in ("null", "loop0", "console", "initctl", "pts", "shm"):
        os.symlink(f"{canary.path}/file", f"{root}/evil/planted/{name}")
    return root


@pytest.mark.row(2)
def test_an_endless_exchange_of_mount_points_and_links_leads_nowhere(tmp_path: object) -> None:
    canary = Canary(f"{tmp_path}/canary")
    root = raced_guest(f"{tmp_path}/root", canary)
    run_isolated(lambda: race(root, canary, 400), timeout=60)
    canary.assert_untouched()


def exchange_before_each_step(root: str, canary: Canary) -> None:
    config, steps = raced_steps(root)
    planted = set(os.listdir(f"{root}/evil/planted"))
    results: dict[tuple[str, str], int] = {}
    for pair in pairs_of(root):
        for number, step in enumerate(steps):
            what = (os.path.basename(pair[1]), f"{number} {step.what()}")
            pause = Pause(number, pair)
            results[what] = start_once(config, steps, root, canary, pause)
            pause.exchange()
            # nor is anything made in the guest's own directory that belongs into the file system mounted on it
            assert set(os.listdir(f"{root}/evil/planted")) <= {*planted, "mqueue"}, what
    assert set(results.values()) == {WON, LOST}, [what for what, result in results.items() if result not in (WON, LOST)]


@pytest.mark.row(2)
def test_an_exchange_before_any_step_leads_nowhere(tmp_path: object) -> None:
    canary = Canary(f"{tmp_path}/canary")
    root = raced_guest(f"{tmp_path}/root", canary)
    run_isolated(lambda: exchange_before_each_step(root, canary), timeout=60)
    canary.assert_untouched()


@pytest.mark.row(4)
def test_a_fake_proc_is_not_what_the_id_map_is_written_to() -> None:
    # files where the maps would be written, bound over those of PID 1
    fake = "for map in uid_map gid_map; do echo fake > /tmp/$map; mount --bind /tmp/$map /proc/1/$map; done"
    look = "cat /proc/1/uid_map /proc/1/gid_map"
    config = configuration(
        "cat /proc/self/uid_map /proc/self/gid_map",
        setup={"before": [["sh", "-c", fake], ["sh", "-c", look]], "after": [["sh", "-c", look]]},
    )
    with start(config) as container:
        result = outcome(container)
    assert [line for line in result.lines if "fake" in line] == ["fake"] * 4, result
    assert [line.split() for line in result.lines if f" {SHIFT} " in line] == [["0", str(SHIFT), "65536"]] * 2, result


LEAK = """
mount --make-rshared /
before=$(cat /proc/self/mountinfo)
lcinit init --no-pid1 > /tmp/said 2>&1 &
until grep -q '^the guest is up' /tmp/said; do sleep 0.05; kill -0 $! || break; done
cat /tmp/said
[ "$(cat /proc/self/mountinfo)" = "$before" ] && echo "while it runs: the same"
touch /mnt/root/mnt/go
wait
[ "$(cat /proc/self/mountinfo)" = "$before" ] && echo "after it ended: the same"
echo "shared: $(echo "$before" | grep -c shared:)"
"""


@pytest.mark.row(15)
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_no_mount_reaches_a_shared_outside(mapped: bool, tmp_path: object) -> None:
    script = "echo the guest is up; until [ -e /mnt/go ]; do sleep 0.05; done"
    guest = own_guest(f"{tmp_path}/root", SHIFT if mapped else None)
    with start(configuration(script, mapped=mapped), guest=guest, init="/bin/sh", args=("-c", LEAK)) as container:
        result = outcome(container)
    assert "the guest is up" in result.lines, result
    assert result.said("while it runs") == ["the same"], result
    assert result.said("after it ended") == ["the same"], result
    assert int(result.said("shared")[0]) > 5, result


UNDO = r"""
MS_REMOUNT, MS_BIND, MNT_DETACH = 32, 4096, 2
MOUNT_SETATTR, OPEN_TREE, OPEN_TREE_CLONE = 442, 428, 1
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}

def clear(path, flag):
    syscall(MOUNT_SETATTR, -100, path.encode(), 0, struct.pack("=QQQQ", 0, flag, 0, 0), 32)

def undo(prefix):
    for point, options in sorted(mountinfo()):
        attempt(f"{prefix} unmount {point}", lambda: check(libc.umount2(point.encode(), MNT_DETACH)))
        attempt(f"{prefix} remount {point}",
                lambda: check(libc.mount(b"none", point.encode(), None, MS_REMOUNT | MS_BIND, None)))
        for name, flag in FLAGS.items():
            if name in options:
                attempt(f"{prefix} clear {name} {point}", clear, point, flag)
        attempt(f"{prefix} look beneath {point}",
                lambda: syscall(OPEN_TREE, -100, point.encode(), OPEN_TREE_CLONE))

undo("guest")
check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
undo("nested")
"""

#: mounted before the user namespace exists: options that the guest would like to be rid of
LOCKED = {
    "/": {"nodev"},
    "/proc": {"nosuid", "nodev", "noexec"},
    "/dev": {"nosuid", "noexec"},
    "/dev/shm": {"nosuid", "nodev"},
    "/run": {"nosuid", "nodev"},
    "/usr": {"ro", "nodev"},
    "/data": {"ro", "nodev", "nosuid"},
    "/etc/resolv.conf": {"nodev", "nosuid"},
}


@pytest.mark.row(46)
def test_the_guest_cannot_undo_a_mount_of_the_outside() -> None:
    keys = {
        "mounts": [{"source": "/etc", "target": "/data", "options": ["ro", "nosuid"]}],
        "network": {"resolv_conf": "/etc/passwd"},
    }
    result = attack(UNDO, keys=keys)
    assert result.status == 0, result
    for prefix in ("guest", "nested"):
        for point, options in LOCKED.items():
            _assert_locked(result, prefix, point, options)


def _assert_locked(result: Outcome, prefix: str, point: str, options: set[str]) -> None:
    refused = (["EPERM"], ["EINVAL"], ["EBUSY"])
    assert result.said(f"{prefix} unmount {point}") in refused, (point, str(result))
    assert result.said(f"{prefix} remount {point}") == ["EPERM"], (point, str(result))
    for option in options:
        assert result.said(f"{prefix} clear {option} {point}") == ["EPERM"], (point, option, str(result))
    if point in ("/", "/dev"):
        # what is mounted below would be uncovered
        assert result.said(f"{prefix} look beneath {point}") == ["EINVAL"], (point, str(result))
