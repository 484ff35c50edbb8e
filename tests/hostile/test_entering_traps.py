"""What a guest may put in place of its terminals and accounts (row 24), for those who enter it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.namespace.enter_rig import LCINIT, Rig, Terminal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces")


def _planted(root: Path, what: str) -> None:
    """A trap where the guest's terminals should be."""
    pts = root / "dev" / "pts"
    if pts.is_symlink() or pts.is_file():
        pts.unlink()
    elif pts.is_dir():
        pts.rmdir()
    if what == "link":
        pts.symlink_to("/canary")
        return
    pts.mkdir(parents=True)
    if what == "fifo":
        os.mkfifo(pts / "ptmx")
    elif what == "file":
        (pts / "ptmx").write_text("untouched")
    elif what == "node":
        os.mknod(pts / "ptmx", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    elif what == "link to ptmx":
        (pts / "ptmx").symlink_to("/dev/ptmx")


@pytest.mark.parametrize("what", ["link", "fifo", "file", "node", "link to ptmx", "empty"])
def test_a_trap_in_place_of_the_guests_terminals_is_refused(what: str, guest_copy: Callable[..., str]) -> None:
    root = Path(guest_copy("plain"))
    _planted(root, what)
    bare = Rig(chroot=str(root), argv=("/bin/sh", "-c", "sleep 1000"), mapped=False)
    with bare as rig, Terminal(*LCINIT, "inject", str(rig.pid), "--", "/bin/sh") as terminal:
        assert terminal.wait() == 71
        assert b"cannot make a terminal in the guest: " in terminal.output
    if what == "file":
        assert (root / "dev" / "pts" / "ptmx").read_text() == "untouched"


@pytest.mark.row(24)
@pytest.mark.parametrize("what", ["fifo", "link out", "directory", "nothing", "garbage"])
def test_accounts_that_are_no_file_hold_nothing_up(what: str, guest_copy: Callable[..., str]) -> None:
    root = Path(guest_copy("plain"))
    passwd = root / "etc" / "passwd"
    passwd.unlink(missing_ok=True)
    if what == "fifo":
        os.mkfifo(passwd)
    elif what == "link out":
        passwd.symlink_to("../../../../etc/passwd")  # stays inside, and leads to itself
    elif what == "directory":
        passwd.mkdir()
    elif what == "garbage":
        passwd.write_bytes(b"root:x:0:0:a:/\0home:/bin/\0sh\nroot\n::::::\nroot:x:-1:\xff:a:b:c\n")
    with Rig(chroot=str(root), argv=("/bin/sh", "-c", "sleep 1000"), mapped=False) as rig:
        done = rig.inject("/bin/sh", "-c", "echo $HOME $SHELL $USER")
    if what in ("nothing", "garbage"):
        assert (done.stdout, done.returncode) == (b"/ /bin/sh root\n", 0), done
    else:
        assert done.returncode == 71, done
        assert done.stdout == b""
