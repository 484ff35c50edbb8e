"""The boot root: what is in it, and that its interpreter starts lcinit with nothing of the outside."""

from __future__ import annotations

import os
import subprocess

import lcinit
from lcinit.tools.boot_root import LAUNCHER, SITE
from lcinit.tools.links import MULTICALL_NAMES


def _python(root: str, code: str) -> str:
    command = ["/usr/sbin/chroot", root, "/usr/bin/python3", "-ISc", f"import sys; sys.path.append({SITE!r}); {code}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout


def test_every_import_of_lcinit_and_its_dependencies_comes_from_the_boot_root(boot_root: str) -> None:
    modules = "asyncio, ctypes, yaml, uvloop, aiofiles, lcinit.errors"
    paths = _python(boot_root, f"import {modules}; print(*(m.__file__ for m in (yaml, uvloop, aiofiles, lcinit)))")
    assert all(path.startswith(SITE) for path in paths.split())
    assert _python(boot_root, "import yaml; print(yaml.__with_libyaml__)") == "True\n"


def test_bytecode_is_there_for_every_module_and_needs_no_time_stamp(boot_root: str) -> None:
    checked = 0
    for parent, _, files in os.walk(f"{boot_root}{SITE}/lcinit"):
        for name in files:
            if name.endswith(".py"):
                cached = os.path.join(parent, "__pycache__", f"{name[:-3]}.cpython-311.pyc")
                with open(cached, "rb") as file:
                    # bytes 4 to 8 are the flags of PEP 552: 1 is hash-based, and not 2: unchecked
                    assert int.from_bytes(file.read(8)[4:], "little") == 1, cached
                checked += 1
    assert checked > 5


def test_names_lead_to_the_launcher(boot_root: str) -> None:
    for name in MULTICALL_NAMES:
        assert os.readlink(f"{boot_root}/usr/sbin/{name}") == LAUNCHER
    assert os.readlink(f"{boot_root}/init") == LAUNCHER  # for a kernel whose initramfs it is
    assert os.path.islink(f"{boot_root}/sbin")
    assert os.access(boot_root + LAUNCHER, os.X_OK)


def test_working_tree_is_what_is_installed(boot_root: str) -> None:
    here = os.path.dirname(os.path.abspath(lcinit.__file__))
    for name in ("errors.py", "record.py", "tools/links.py"):
        with open(os.path.join(here, name)) as mine, open(f"{boot_root}{SITE}/lcinit/{name}") as installed:
            assert mine.read() == installed.read(), f"{name} differs"
