"""Guest root file systems: real inits from Debian packages, built on first use and never changed afterwards.

A test that writes takes a copy (`copy_of`), or lays an overlay over the cached tree in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from dataclasses import dataclass, field, replace

from tests.lab.cache import cached, stamp_of

RECIPE_VERSION = 2

# Documentation and translations are two thirds of the files of a small root, and no init reads them.
_EXCLUDED = (
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/bug/*",
    "--dpkgopt=path-exclude=/usr/share/lintian/*",
)

_BARE = (
    ("etc/passwd", 0o644, "root::0:0:root:/root:/bin/sh\n"),
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\n"),
    ("etc/os-release", 0o644, "ID=lab\nPRETTY_NAME=Lab\n"),  # nspawn starts nothing without one
)

_SYSTEMD = (
    # Empty, not absent: an absent one means "first boot", with its questions and presets (machine-id(5)).
    ("etc/machine-id", 0o444, ""),
    ("etc/hostname", None, ""),
    ("etc/systemd/system/default.target", 0o777, "/lib/systemd/system/multi-user.target"),
)


@dataclass(frozen=True)
class Recipe:
    """How one guest is built: Debian suite and packages, shell commands with `$1` the new root, then files.

    A file is (path, mode, content); mode 0o777 makes a symbolic link to the content, None removes the path.
    """

    init: str  # which init it is, as in lcinit.plan.inits; "none" for a guest without
    suite: str
    packages: str
    variant: str = "minbase"
    commands: tuple[str, ...] = ()
    files: tuple[tuple[str, int | None, str], ...] = ()
    # not in repr(), of which the cache makes its stamp: nothing is built otherwise for them
    command: tuple[str, ...] = field(default=("/sbin/init",), repr=False)  # what is to be PID 1
    up: str = field(default="", repr=False)  # what the console shows when the guest is up; empty: nothing
    # what else of its packages is not unpacked; in the stamp apart, and only where there is any
    excluded: tuple[str, ...] = field(default=(), repr=False)


RECIPES = {
    "systemd252": Recipe("systemd", "bookworm", "systemd,systemd-sysv,dbus", files=_SYSTEMD, up="multi-user.target"),
    "systemd257": Recipe("systemd", "trixie", "systemd,systemd-sysv,dbus", files=_SYSTEMD, up="multi-user.target"),
    "systemd262": Recipe("systemd", "sid", "systemd,systemd-sysv,dbus", files=_SYSTEMD, up="multi-user.target"),
    "sysvinit": Recipe(
        "sysvinit",
        "bookworm",
        "sysvinit-core,sysv-rc,initscripts,procps",
        # A container has no virtual terminals: without this init respawns six gettys, each failing at once.
        commands=("sed -i '/getty/s/^/#/' \"$1/etc/inittab\"",),
        files=(("etc/hostname", None, ""),),
        up="Entering runlevel: 2",
    ),
    "busybox": Recipe(
        "busybox",
        "bookworm",
        "busybox-static",
        variant="extract",
        # --list-full and not --install, which wants /proc
        commands=(
            'for name in $(chroot "$1" /bin/busybox --list-full); do mkdir -p "$1/${name%/*}"; '
            '[ -e "$1/$name" ] || ln -s /bin/busybox "$1/$name"; done',
        ),
        files=(
            *_BARE,
            ("etc/inittab", 0o644, "::sysinit:/etc/rc\n::ctrlaltdel:/sbin/reboot\n::shutdown:/bin/true\n"),
            ("etc/rc", 0o755, "#!/bin/sh\necho busybox is up\n"),
        ),
        up="busybox is up",
    ),
    "runit": Recipe(
        "runit",
        "bookworm",
        "runit-init,runit",
        commands=('rm -f "$1"/etc/runit/runsvdir/default/*',),  # gettys, for terminals that a container has not
        files=(
            ("etc/hostname", None, ""),
            # Debian's switches for boots without sysvinit's scripts, which look after a machine's clock and disks
            ("etc/runit/native.boot.run", 0o644, ""),
            ("etc/runit/boot-run/lab.sh", 0o644, ":\n"),
            ("etc/runit/shutdown-run/lab.sh", 0o644, ":\n"),
            ("etc/runit/no.emulate.sysv", 0o644, ""),
            ("etc/sv/lab/run", 0o755, "#!/bin/sh\necho runit is up >/dev/console\nexec sleep 1000000\n"),
            ("etc/runit/runsvdir/default/lab", 0o777, "/etc/sv/lab"),
            ("etc/sv/lab/supervise", 0o777, "/run/runit/supervise/lab"),
        ),
        up="runit is up",
    ),
    "openrc": Recipe(
        "openrc-init",
        "bookworm",
        "openrc,sysvinit-core",
        commands=('rm -f "$1"/etc/runlevels/*/*',),
        files=(
            ("etc/hostname", None, ""),
            ("etc/init.d/lab", 0o755, '#!/sbin/openrc-run\nstart() { echo "OpenRC is up" >/dev/console; }\n'),
            ("etc/runlevels/default/lab", 0o777, "/etc/init.d/lab"),
        ),
        command=("/sbin/openrc-init",),
        up="OpenRC is up",
    ),
    "finit": Recipe(
        "finit",
        "bookworm",
        "finit",
        files=(
            ("etc/hostname", None, ""),
            ("etc/finit.d/getty.conf", None, ""),
            ("etc/finit.d/acpid.conf", None, ""),
            ("etc/finit.d/modules.conf", None, ""),
            ("etc/finit.d/rsyslogd.conf", None, ""),
            ("etc/finit.d/sshd.conf", None, ""),
            ("etc/rc.lab", 0o755, "#!/bin/sh\necho finit is up >/dev/console\n"),
            ("etc/finit.conf", 0o644, "task [2345] /etc/rc.lab -- Lab\n"),
        ),
        command=("/usr/sbin/finit",),
        up="finit is up",
    ),
    "s6": Recipe(
        "s6-svscan",
        "bookworm",
        "s6,execline,dash,coreutils",
        variant="extract",
        files=(
            *_BARE,
            ("usr/bin/sh", 0o777, "dash"),
            ("etc/s6/lab/run", 0o755, "#!/bin/sh\necho s6 is up >/dev/console\nexec sleep 1000000\n"),
        ),
        command=("/usr/bin/s6-svscan", "/etc/s6"),
        up="s6 is up",
    ),
    # Real daemons for lcinit to supervise, without an init and without Python. PostgreSQL's package makes a cluster.
    "services": Recipe(
        "none",
        "bookworm",
        "openssh-server,openssh-client,cron,nginx,redis-server,postgresql-15,curl,procps",
        # keys that are the same for every guest are worth nothing: each makes its own
        commands=('rm "$1"/etc/ssh/ssh_host_*', 'rm -r "$1"/var/cache/apt "$1"/var/log/apt'),
        files=(("etc/hostname", None, ""),),
        excluded=(
            "/usr/share/i18n/charmaps/*",
            "/usr/share/i18n/locales/*",
            "/usr/lib/*/libLLVM*",  # what PostgreSQL compiles long queries with: a third of the guest
            "/usr/lib/*/libz3*",
            "/usr/lib/postgresql/*/lib/bitcode/*",
            "/usr/lib/*/perl/*/CORE/*",
        ),
    ),
    "plain": Recipe(
        "none",
        "bookworm",
        "dash,coreutils,grep,sed,procps,util-linux,mount,libc-bin",
        variant="extract",
        files=(*_BARE, ("usr/bin/sh", 0o777, "dash")),
    ),
}

# runit as its author has it looks for its flags in /etc/runit; the two paths are of the same length
_FLAGS_IN_ETC = (
    "cd \"$1\" && sed -i 's,/run/runit\\.\\(stopit\\|reboot\\),/etc/runit/\\1,g' "
    "usr/sbin/runit lib/runit/runit-init etc/runit/[123]"
)
RECIPES["runit-etc"] = replace(RECIPES["runit"], commands=(*RECIPES["runit"].commands, _FLAGS_IN_ETC))

_DIRECTORIES = ("etc", "proc", "sys", "dev", "run", "tmp", "root", "mnt", "var")


def mmdebstrap(directory: str, recipe: Recipe) -> None:
    """Build `recipe` into the empty `directory` with mmdebstrap(1); CalledProcessError holds what it printed."""
    command = ["mmdebstrap", "--quiet", f"--variant={recipe.variant}", f"--include={recipe.packages}"]
    if recipe.variant == "extract":
        # extract runs no maintainer script, so nobody else makes /bin a link to usr/bin
        command.append("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
    else:
        command += _EXCLUDED
        command += [f"--dpkgopt=path-exclude={path}" for path in recipe.excluded]
    # Static nodes in the image would hide whether lcinit makes its own /dev.
    command += [
        "--skip=output/dev",
        '--aptopt=Acquire::Check-Valid-Until "false"',
        '--aptopt=Acquire::Languages "none"',
    ]
    command += [recipe.suite, directory]
    # Not as --customize-hook: for the variant extract mmdebstrap runs none.
    for each in (command, *(["sh", "-ec", line, "sh", directory] for line in recipe.commands)):
        subprocess.run(each, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for name in _DIRECTORIES:
        os.makedirs(os.path.join(directory, name), exist_ok=True)
    for path, mode, content in recipe.files:
        place_file(directory, path, mode, content)


def place_file(root: str, path: str, mode: int | None, content: str) -> None:
    """Write one file below `root` as a Recipe names it. Only for trees that nothing hostile has touched."""
    target = os.path.join(root, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        os.unlink(target)
    if mode == 0o777:
        os.symlink(content, target)
    elif mode is not None:
        with open(target, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(target, mode)


def guest(name: str) -> str:
    """The root directory of guest `name` (a key of RECIPES), shared by all tests: nobody may write to it."""
    recipe = RECIPES[name]
    try:
        stamp = stamp_of(RECIPE_VERSION, recipe, _EXCLUDED, *recipe.excluded)
        return cached(f"guest-{name}", stamp, lambda path: mmdebstrap(path, recipe))
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"cannot build guest {name}:\n{error.stdout.decode(errors='replace')[-4000:]}") from error


def copy_of(name: str, destination: str, shift: int | None = None) -> str:
    """A writable copy of guest `name` at `destination` (must not exist), every owner raised by `shift`.

    Returns `destination`. With `shift` the tree is owned as a guest sees it through the id map `0 SHIFT 65536`
    without an idmapped mount.
    """
    os.mkdir(destination, 0o755)
    subprocess.run(["cp", "-a", "--one-file-system", f"{guest(name)}/.", destination], check=True)
    if shift:
        shift_owners(destination, shift)
    return destination


def shift_owners(directory: str, shift: int) -> None:
    """Raise uid and gid of everything below `directory` by `shift`: links not followed, each inode once.

    chown(2) clears set-user-id bits and file capabilities: both are put back, a capability as version 3 with the new
    root's uid, which is what a user namespace would have written (capabilities(7)).
    """
    seen: set[tuple[int, int]] = set()
    for _, directories, files, parent in os.fwalk(directory, follow_symlinks=False):
        for name in (".", *directories, *files):
            entry = os.stat(name, dir_fd=parent, follow_symlinks=False)
            inode = (entry.st_dev, entry.st_ino)
            if inode in seen:
                continue
            seen.add(inode)
            path = f"/proc/self/fd/{parent}/{name}"
            capability = None
            if stat.S_ISREG(entry.st_mode) and "security.capability" in os.listxattr(path):
                capability = os.getxattr(path, "security.capability")
            os.chown(name, entry.st_uid + shift, entry.st_gid + shift, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISLNK(entry.st_mode) and entry.st_mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(name, stat.S_IMODE(entry.st_mode), dir_fd=parent)
            if capability is not None:
                os.setxattr(path, "security.capability", _namespaced_capability(capability, shift))


def _namespaced_capability(value: bytes, rootid: int) -> bytes:
    """`struct vfs_ns_cap_data` of linux/capability.h from a version 2 `vfs_cap_data`."""
    (magic,) = struct.unpack_from("<I", value)
    return struct.pack("<I", 0x03000000 | magic & 0x00FFFFFF) + value[4:20] + struct.pack("<I", rootid)


def remove_tree(directory: str) -> None:
    """Delete a copy. Guests leave immutable or odd modes nowhere in these recipes: any failure is an error."""
    shutil.rmtree(directory)
