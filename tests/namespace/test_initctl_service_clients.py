"""sysvinit's own telinit, shutdown, halt, poweroff and reboot against lcinit's FIFO.

The programs are those of the sysvinit guest, run in its root, read-only, with /run and /dev of the test. They believe
that they act on a machine: they get a PID namespace of their own and no CAP_SYS_BOOT.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lcinit.linux.calls import AT_FDCWD
from lcinit.linux.capabilities import drop_bounding
from lcinit.linux.mount import (
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    mount_setattr,
    move_mount,
    new_mount,
    open_tree,
)
from tests.namespace.initctl_server import LOOPS, Server, wait_until
from tests.namespace.isolated import needs_root, run_isolated

CAP_SYS_BOOT = 22

# what the programs of sysvinit 3.06 ask for: shutdown(8), telinit(8), halt(8)
ASKED: tuple[tuple[tuple[str, ...], list[str]], ...] = (
    (("telinit", "0"), ["poweroff"]),
    (("telinit", "6"), ["reboot"]),
    (("telinit", "-t", "7", "0"), ["poweroff"]),
    (("telinit", "-e", "INIT_HALT=HALT"), []),
    (("telinit", "0"), ["halt"]),  # INIT_HALT stays set, as in sysvinit
    (("telinit", "-e", "INIT_HALT"), []),
    (("telinit", "s"), []),
    (("telinit", "3"), []),
    (("telinit", "a"), []),
    (("telinit", "u"), ["reexec"]),
    (("shutdown", "-h", "now"), ["poweroff"]),
    (("shutdown", "-h", "-H", "now"), ["halt"]),
    (("shutdown", "-h", "now"), ["poweroff"]),  # and is unset by a shutdown that does not care
    (("shutdown", "-h", "-P", "now"), ["poweroff"]),
    (("shutdown", "-r", "now"), ["reboot"]),
    (("halt",), ["poweroff"]),  # it runs shutdown -h, which leaves the choice to the runlevel's scripts
    (("poweroff",), ["poweroff"]),
    (("reboot",), ["reboot"]),
)


def attach(fd: int, target: str) -> None:
    move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
    os.close(fd)


def bind(source: str, target: str, attributes: int = 0) -> None:
    clone = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    mount_setattr(clone, "", 0, attr_set=attributes)
    attach(clone, target)


def prepare(guest: str, root: str) -> None:
    """The guest at `root`, read-only; /run and /dev are new, and the same inside and outside of it."""
    os.mkdir(root)
    bind(guest, root, MOUNT_ATTR_RDONLY)
    for name in ("run", "dev"):
        attach(new_mount("tmpfs"), f"/{name}")
        bind(f"/{name}", f"{root}/{name}")
    os.mknod("/dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    attach(new_mount("tmpfs"), f"{root}/var")
    bind("/proc", f"{root}/proc")
    drop_bounding([CAP_SYS_BOOT])


def ask(server: Server, root: str, command: tuple[str, ...]) -> list[str]:
    """Run the command; what lcinit was asked for because of it."""
    heard = len(server.words())
    process = ["chroot", root, *command]
    done = subprocess.run(process, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, (command, done.stdout + done.stderr)
    wait_until(lambda: len(server.words()) > heard, 0.5)  # a pause is 20 ms
    return server.words()[heard:]


@needs_root
@pytest.mark.parametrize("loop", LOOPS)
def test_the_programs_of_sysvinit_are_understood(loop: str, tmp_path: Path, guest_root: Callable[[str], str]) -> None:
    guest, root = guest_root("sysvinit"), f"{tmp_path}/root"

    def isolated() -> None:
        prepare(guest, root)
        server = Server(loop, tmp_path / "log", Path("/run/initctl"), Path("/dev/initctl"))
        try:
            assert [(command, ask(server, root, command)) for command, _ in ASKED] == list(ASKED)
        finally:
            server.stop()

    run_isolated(isolated, pid=True, timeout=120)
    assert "runlevel 3 was asked for and ignored: runlevels belong to services" in (tmp_path / "log").read_text()
