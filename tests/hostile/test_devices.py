"""Rows 3 and 14: planted device files, and the devices of the outside."""

from __future__ import annotations

import os
import shutil
import stat
import threading

import pytest

from tests.hostile.attacker import attack, attack_with_console
from tests.hostile.attempt import SHIFT, boot, configuration, own_guest
from tests.hostile.canary import Canary

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

PLANTED = ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "initctl", "pts", "shm", "fd")

SHOW = """
import stat
for name in sorted(os.listdir("/dev")):
    entry = os.lstat("/dev/" + name)
    kind = stat.filemode(entry.st_mode)[0]
    say("dev " + name, f"{kind} {os.major(entry.st_rdev)}:{os.minor(entry.st_rdev)} {entry.st_uid}:{entry.st_gid}")
say("terminal", os.isatty(0))
say("names", " ".join(sorted(os.listdir("/dev"))))
"""
CHARACTER = {
    "null": "1:3",
    "zero": "1:5",
    "full": "1:7",
    "random": "1:8",
    "urandom": "1:9",
    "tty": "5:0",
}
OWN = {*CHARACTER, "console", "fd", "initctl", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout"}


def plant(guest: str, canary: str, kind: str) -> None:
    """Everything that lcinit makes in /dev is there already, as links out of the guest or as something else."""
    shutil.rmtree(f"{guest}/dev")
    os.mkdir(f"{guest}/dev", 0o755)
    for name in PLANTED:
        path = f"{guest}/dev/{name}"
        if kind == "links":
            os.symlink(f"{canary}/file", path)
        elif kind == "files":
            with open(path, "w") as file:
                os.fchmod(file.fileno(), 0o644)
        elif kind == "FIFOs":
            os.mkfifo(path, 0o644)
        if kind != "links":
            os.chown(path, SHIFT, SHIFT)


@pytest.mark.row(3)
@pytest.mark.parametrize("kind", ["links", "files", "FIFOs"])
def test_planted_device_files_are_neither_used_nor_changed(kind: str, tmp_path: object) -> None:
    canary = Canary(f"{tmp_path}/canary")
    guest = own_guest(f"{tmp_path}/root")
    plant(guest, "/mnt/canary", kind)
    before = {name: os.lstat(f"{guest}/dev/{name}") for name in PLANTED}
    binds = [(canary.path, "/mnt/canary")]
    result = attack_with_console(SHOW, guest, keys={"initctl": True}, binds=binds, console="pty")
    for name, numbers in CHARACTER.items():
        assert result.said(f"dev {name}") == [f"c {numbers} 0:0"], result
    assert result.said("dev console")[0].startswith("c 136:"), result
    assert result.said("dev console")[0].endswith(" 0:5"), result
    assert result.said("dev initctl") == ["p 0:0 0:0"], result
    assert result.said("dev pts")[0].startswith("d "), result
    assert result.said("terminal") == ["True"], result
    canary.assert_untouched()
    for name, entry in before.items():
        assert os.lstat(f"{guest}/dev/{name}") == entry, name


OUTER = """
mkdir /dev/dri
for each in "kmsg c 1 11" "fuse c 10 229" "mem c 1 1" "loop9 b 7 9" "dri/card0 c 226 0"; do mknod /dev/$each; done
mount -t tmpfs below /mnt/root/srv
mknod -m 0666 /mnt/root/srv/block b 7 0
mknod -m 0666 /mnt/root/srv/character c 1 5
"""

OPEN = """
import stat
for path in ("/block", "/character", "/srv/block", "/srv/character", "/data/block", "/data/character"):
    attempt("is there " + path, os.stat, path)
    attempt("open " + path, os.open, path, os.O_RDONLY | os.O_NONBLOCK)
attempt("make", os.mknod, "/tmp/made-block", stat.S_IFBLK | 0o666, os.makedev(7, 0))
os.mkdir("/tmp/own")
attempt("mount", lambda: check(libc.mount(b"own", b"/tmp/own", b"tmpfs", 0, None)))
attempt("make there", os.mknod, "/tmp/own/made", stat.S_IFBLK | 0o666, os.makedev(7, 0))
"""


def nodes(directory: str) -> None:
    """Devices of the outside that anybody may open, as files of the guest."""
    os.mknod(f"{directory}/block", stat.S_IFBLK, os.makedev(7, 0))
    os.mknod(f"{directory}/character", stat.S_IFCHR, os.makedev(1, 5))
    for name in ("block", "character"):
        os.chmod(f"{directory}/{name}", 0o666)


@pytest.mark.row(14)
def test_outer_devices_are_absent_and_nodes_in_the_guests_files_cannot_be_opened(tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    nodes(guest)
    os.makedirs(f"{guest}/srv", exist_ok=True)
    os.makedirs(f"{tmp_path}/data")
    nodes(f"{tmp_path}/data")
    keys = {"setup": {"before": [["sh", "-ec", OUTER]]}, "mounts": [{"source": "/mnt/data", "target": "/data"}]}
    result = attack(f"{SHOW}\n{OPEN}", keys=keys, guest=guest, binds=[(f"{tmp_path}/data", "/mnt/data")])
    assert result.status == 0, result
    assert set(result.said("names")[0].split()) == OWN - {"initctl"}, result
    for path in ("/block", "/character", "/srv/block", "/srv/character", "/data/block", "/data/character"):
        assert result.said(f"is there {path}") == ["done"], result
        assert result.said(f"open {path}") == ["EACCES"], (path, str(result))
    assert result.said("make") == ["EPERM"], result
    assert result.said("mount") == ["done"], result
    assert result.said("make there") == ["EPERM"], result


@pytest.mark.row(14)
@pytest.mark.parametrize(
    ("devices", "more"),
    [
        ({"include": ["/dev/fuse", "dri/*"]}, {"fuse", "dri"}),
        ({"inherit": True, "exclude": ["/dev/kmsg"], "rexclude": ["^loop", "^mem$"]}, {"fuse", "dri"}),
    ],
    ids=["included", "inherited"],
)
def test_only_devices_that_were_asked_for_come_in(devices: dict[str, object], more: set[str], tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    os.makedirs(f"{guest}/srv", exist_ok=True)
    keys = {"setup": {"before": [["sh", "-ec", OUTER]]}, "devices": devices}
    result = attack(SHOW, keys=keys, guest=guest)
    assert set(result.said("names")[0].split()) == (OWN - {"initctl"}) | more, result
    assert result.said("dev fuse") == ["c 10:229 0:0"], result


@pytest.mark.row(14)
def test_an_init_that_is_no_regular_file_is_refused_without_being_opened(tmp_path: object) -> None:
    # to open a device node is to use the device; a FIFO tells its writer that somebody opened it
    guest = own_guest(f"{tmp_path}/root")
    os.mkfifo(f"{guest}/init", 0o666)
    opened = threading.Event()

    def wait_for_reader() -> None:
        os.close(os.open(f"{guest}/init", os.O_WRONLY))
        opened.set()

    writer = threading.Thread(target=wait_for_reader, daemon=True)
    writer.start()
    result = boot(configuration(exec={"command": "/init"}), guest=guest)
    was_opened = opened.is_set()
    os.close(os.open(f"{guest}/init", os.O_RDONLY | os.O_NONBLOCK))  # lets a writer that still waits go
    writer.join(5)
    assert result.errors() == ["the guest's /init is not a regular file"], result
    assert result.status == 126
    assert not was_opened
