"""Builds a boot root: the small file system that a container manager boots, with lcinit as its /sbin/init.

Three parts that can be made apart, because the first changes once a year and the last with every edit:

1. Debian: an interpreter with its library, a shell and the mount tools, unpacked by mmdebstrap(1) with no maintainer
   script run (`extract`), so the result does not depend on the machine it is built on;
2. the wheels that lcinit depends on, under /usr/lib/lcinit/site;
3. lcinit itself: the package that is running now, copied beside them, its launcher and its links.

`lcinit image DIRECTORY` does all three.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import lcinit
from lcinit.errors import CommandFailed, UsageError
from lcinit.tools.links import link_names

SUITE = "bookworm"
PYTHON = "3.11"  # what SUITE ships; wheels are chosen for it, whichever Python runs this
PACKAGES = (
    "base-files",
    "python3-minimal",
    "libpython3-stdlib",
    "dash",
    "coreutils",
    "grep",
    "sed",
    "mount",
    "util-linux",
    "kmod",
)
WHEELS = ("PyYAML>=6.0", "uvloop>=0.19", "aiofiles>=23.2")

SITE = "/usr/lib/lcinit/site"
LAUNCHER = "/usr/lib/lcinit/bin/lcinit"

# -I: no PYTHON* variable and no directory of the user decides what PID 1 imports. -S: `site` costs start-up time and
# would read .pth files.
LAUNCHER_TEXT = f"""\
#!/usr/bin/python3 -IS
import sys

sys.path.append("{SITE}")
from lcinit.cli.main import main

sys.exit(main(sys.argv))
"""

# Never read by lcinit, and most of the size of what the packages bring.
UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/bash-completion",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/perl5",
    "usr/share/zoneinfo",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/ensurepip",
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/turtledemo",
    "usr/lib/python3.11/test",
    "var/lib/apt",
    "var/cache",
)


def build(directory: str, *, suite: str = SUITE, mirror: str | None = None) -> str:
    """Build the whole boot root into `directory`, which must be absent or empty. Returns the directory.

    Needs root (the files belong to it), mmdebstrap and pip. LcinitError when any of them fails.
    """
    if os.path.lexists(directory) and os.listdir(directory):
        raise UsageError(f"cannot build a boot root in {directory}: it is not empty")
    os.makedirs(directory, mode=0o755, exist_ok=True)
    os.chmod(directory, 0o755)
    install_debian(directory, suite=suite, mirror=mirror)
    install_wheels(directory)
    install_lcinit(directory)
    return directory


def install_debian(directory: str, *, suite: str = SUITE, mirror: str | None = None) -> None:
    """Part 1: Debian, with what tells a container what it is, and the directories the configuration names."""
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}"]
    command += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--skip=output/dev", suite, directory]
    if mirror:
        command.append(mirror)
    _run(command, "unpack Debian")
    for path in UNWANTED:
        shutil.rmtree(os.path.join(directory, path), ignore_errors=True)
    for path in ("mnt/root", "mnt/cache", "mnt/layers", "proc", "sys", "dev", "run", "tmp", "root", "var/tmp"):
        os.makedirs(os.path.join(directory, path), exist_ok=True)
    os.chmod(os.path.join(directory, "tmp"), 0o1777)
    os.chmod(os.path.join(directory, "var/tmp"), 0o1777)
    # What maintainer scripts would have made (base-passwd, dash), and an empty machine-id: bound over by managers.
    _write(directory, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n")
    _write(directory, "/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    _write(directory, "/etc/machine-id", "")
    _write(directory, "/etc/resolv.conf", "")
    shell = os.path.join(directory, "usr/bin/sh")
    if not os.path.lexists(shell):
        os.symlink("dash", shell)
    compile_python(directory, f"/usr/lib/python{PYTHON}")


def install_wheels(directory: str) -> None:
    """Part 2: lcinit's dependencies from binary wheels for the boot root's Python."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--upgrade"]
    command += ["--disable-pip-version-check", "--root-user-action=ignore"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    command += [f"--target={directory}{SITE}", *WHEELS]
    _run(command, "install the dependencies")
    # Sources of compiled modules: megabytes that nothing imports.
    for parent, _, files in os.walk(directory + SITE):
        for name in files:
            if name.endswith((".pyx", ".pxd", ".pxi", ".c", ".h", ".pyi")):
                os.unlink(os.path.join(parent, name))
    compile_python(directory, SITE)


def install_lcinit(directory: str) -> None:
    """Part 3: the running package, its service catalogue, launcher and links; replaces an earlier copy."""
    package = os.path.dirname(os.path.abspath(lcinit.__file__))
    target = f"{directory}{SITE}/lcinit"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    catalogue = os.path.join(os.path.dirname(package), "services")
    # An installed wheel has the catalogue inside the package already; a checkout has it beside.
    if not os.path.isdir(os.path.join(target, "data", "services")) and os.path.isdir(catalogue):
        shutil.copytree(catalogue, os.path.join(target, "data", "services"))
    compile_python(directory, f"{SITE}/lcinit")
    _write(directory, LAUNCHER, LAUNCHER_TEXT, mode=0o755)
    for place in ("/usr/sbin", "/usr/bin"):
        os.makedirs(directory + place, exist_ok=True)
    link_names(directory + "/usr/bin", LAUNCHER, ("lcinit",))
    link_names(directory, LAUNCHER, ("init",))  # what the kernel starts where the boot root is its initramfs
    link_names(directory + "/usr/sbin", LAUNCHER)
    if not os.path.islink(directory + "/sbin"):
        link_names(directory + "/sbin", LAUNCHER)


def compile_python(directory: str, path: str) -> None:
    """Compile the tree `path` of the boot root with the boot root's own interpreter.

    `unchecked-hash` .pyc files hold no time stamp: the result is the same for every build, stays valid when a copy
    changes the times, and is valid on a read-only root.
    """
    command = ["chroot", directory, "/usr/bin/python3", "-ISm", "compileall", "-q"]
    _run([*command, "--invalidation-mode=unchecked-hash", path], f"compile {path}")


def _write(directory: str, path: str, text: str, *, mode: int = 0o644) -> None:
    target = directory + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        os.unlink(target)
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(target, mode)


def _run(command: list[str], doing: str) -> None:
    """Run a build tool; CommandFailed with the end of what it said."""
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"cannot {doing}: {command[0]} is not installed", exit_code=127) from error
    if result.returncode != 0:
        said = result.stdout.decode(errors="replace").strip()[-2000:]
        raise CommandFailed(f"cannot {doing}: {command[0]} ended with status {result.returncode}\n{said}")
