"""An ordinary user for a test: a uid that nobody has, who runs lcinit with the system's Python.

For the body of run_isolated: accounts and delegated ids are private copies in its own mount namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

import lcinit
from lcinit.linux import mount
from lcinit.linux.calls import AT_FDCWD, AT_RECURSIVE

UID = 54321
NAME = "ordinary"
GIVEN = "/mnt/given"  # what the user can reach: lcinit's package, whoever owns the directories above it
START = f"import sys; sys.path.insert(0, {GIVEN!r}); from lcinit.cli.main import main; sys.exit(main(sys.argv))"
PYTHON = "/usr/bin/python3"

needs_system_python = pytest.mark.skipif(
    not os.path.exists(PYTHON)
    or subprocess.run([PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).returncode != 0,
    reason="needs a Python 3.11 that every user can run",
)
needs_newuidmap = pytest.mark.skipif(
    shutil.which("newuidmap") is None or shutil.which("newgidmap") is None, reason="needs newuidmap (package uidmap)"
)


def prepare(subuid: str = "", subgid: str | None = None, *, groups: Sequence[tuple[str, int]] = ()) -> None:
    """Make the user: /mnt is a fresh tmpfs that holds GIVEN, and a directory `home` of the user's."""
    fd = mount.new_mount("tmpfs", {"mode": "755"})
    mount.move_mount(fd, "", AT_FDCWD, "/mnt", 0)
    os.close(fd)
    os.makedirs(f"{GIVEN}/lcinit")
    bind(os.path.dirname(lcinit.__file__), f"{GIVEN}/lcinit")
    os.mkdir("/mnt/home")
    os.chown("/mnt/home", UID, UID)
    replace("/etc/passwd", f"root:x:0:0::/root:/bin/sh\n{NAME}:x:{UID}:{UID}::/mnt/home:/bin/sh\n")
    lines = [f"{name}:x:{gid}:{NAME}\n" for name, gid in groups]
    replace("/etc/group", f"root:x:0:\n{NAME}:x:{UID}:\n" + "".join(lines))
    replace("/etc/subuid", subuid)
    replace("/etc/subgid", subuid if subgid is None else subgid)


def bind(source: str, target: str) -> None:
    tree = mount.open_tree(AT_FDCWD, source, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | AT_RECURSIVE)
    mount.move_mount(tree, "", AT_FDCWD, target, 0)
    os.close(tree)


def replace(path: str, text: str) -> None:
    """Show this text at a path of the machine, in this mount namespace alone."""
    copy = f"/mnt/{path.strip('/').replace('/', '-')}"
    with open(copy, "w", encoding="utf-8") as file:
        file.write(text)
    bind(copy, path)


def lcinit_as(words: Sequence[str], uid: int = UID, groups: Sequence[int] = (), **options: Any) -> Any:
    """Run `lcinit WORDS` as the user (or as root, uid 0) and return the CompletedProcess."""
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30, "cwd": "/mnt/home"}
    settings |= {"env": environment(), "group": uid} | options
    return subprocess.run(argv(words), user=uid, extra_groups=list(groups), check=False, **settings)


def without_user_namespaces(words: Sequence[str]) -> Any:
    """Run `lcinit WORDS` as the user where user namespaces are switched off.

    The limit is counted for each user namespace: in one of the test's own it is nobody else's.
    """
    limit = "open('/proc/sys/user/max_user_namespaces', 'w').write('0')"
    script = f"import os, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"
    command = ["unshare", "--user", "--map-root-user", PYTHON, "-c", script, *argv(words)]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30, "env": environment()}
    return subprocess.run(command, user=UID, group=UID, extra_groups=[], check=False, **settings)


def argv(words: Sequence[str]) -> list[str]:
    """The command line of lcinit in the user's hands."""
    return [PYTHON, "-I", "-c", START, *words]


def environment() -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "SHELL": "/bin/sh", "LC_ALL": "C.UTF-8"}
