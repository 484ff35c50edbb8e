"""What the demonstration guest is made of: a root of tmpfs and links, its init (a shell script) and its init.yml."""

from __future__ import annotations

import os

from lcinit.linux import calls, mount
from lcinit.record import Record

HOST_NAME = "demo"
LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links into /usr where that is merged
DIRECTORIES = ("dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "usr", "var", "var/tmp", "tmp")
OUTSIDE = "outside.txt"  # beside the guest's root: what the guest must not reach
INIT = "/etc/demo-init"

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"

# A report is lines of KEY<tab>TEXT; `try` reports what a command said when it was refused, or how it was not.
SCRIPT = """\
#!/bin/sh
# The init of the demonstration guest: says what it sees, tries what it must not be able to do, waits for poweroff.
export LC_ALL=C HOME=/root
trap 'exit 0' TERM
newline='
'
say() { printf '%s\\t%s\\n' "$1" "$2"; }
try() {
    name=$1; shift
    said=$("$@" 2>&1); status=$?
    case $status in
        0) say "try $name" WORKED ;;
        127) say "try $name" ABSENT ;;
        *) said=${said%%"$newline"*}; said=${said##*: }; say "try $name" "refused: ${said%.}" ;;
    esac
}
if [ "${1-}" = shell ]; then
    read -r name </proc/sys/kernel/hostname
    echo "This is $name: PID $$, uid $(id -u). Its /usr is the machine's, read-only; all else is gone when it ends."
    echo "Look at /proc/self/uid_map, /proc/self/mountinfo, /dev. \\`exit\\` or ctrl-D ends the guest."
    cd /root
    if [ -x /bin/bash ]; then PS1='\\u@\\h:\\w# ' /bin/bash --norc -i; else PS1='demo# ' /bin/sh -i; fi
    exit 0
fi

if [ "${1-}" = stay ]; then
    set --
    for process in /proc/[0-9]*; do
        read -r comm <"$process/comm" && set -- "$@" "${process#/proc/} $comm"
    done 2>/dev/null
    say pid $$; say processes "$*"; say ready ""
    while :; do sleep 3600 & wait $!; done
fi

say pid $$
say uid "$(id -u)"
read -r map </proc/self/uid_map; say uid_map "$map"
read -r name </proc/sys/kernel/hostname; say hostname "$name"
keeper= rounds=0
while [ -z "$keeper" ] && [ $rounds -lt 200 ]; do  # it may still be starting
    set --
    for process in /proc/[0-9]*; do
        read -r comm <"$process/comm" && set -- "$@" "${process#/proc/} $comm"
        [ "$comm" = lcinit-keeper ] && keeper=$process
    done 2>/dev/null
    [ -n "$keeper" ] || sleep 0.01
    rounds=$((rounds + 1))
done
say processes "$*"
set --; for each in /sys/class/net/*; do set -- "$@" "${each##*/}"; done; say interfaces "$*"
set --; for each in /dev/*; do set -- "$@" "${each##*/}"; done; say dev "$*"
while read -r key value; do
    case $key in CapBnd:) say capabilities "$value" ;; esac
done </proc/self/status
say owner "$(ls -dn /usr/bin | { read -r mode links user rest; echo "$user"; })"
while read -r line; do say mount "$line"; done </proc/self/mountinfo

try usr-write touch /usr/written-by-the-guest
try usr-remount mount -o remount,bind,rw /usr
try usr-unmount umount /usr
try proc-dev mount -o remount,bind,dev /proc
try disk mknod /tmp/disk b "$DISK_MAJOR" "$DISK_MINOR"
try kmsg cat /dev/kmsg
if [ -e /proc/sysrq-trigger ]; then try sysrq sh -c 'echo h >/proc/sysrq-trigger'; else say "try sysrq" ABSENT; fi
try core-pattern sh -c ': >>/proc/sys/kernel/core_pattern'
try outside cat "$OUTSIDE_FILE"
if [ -n "$keeper" ]; then try keeper ls "$keeper/root/"; else say "try keeper" ABSENT; fi
say ready ""
while :; do sleep 3600 & wait $!; done
"""


class Shape(Record):
    """What the configuration of the guest depends on: ids from `users` and `groups` on, `size` of each; `place`, the
    directory that holds it all; `shifted`, whether /usr's file system can be idmapped; `disk`, a device's numbers."""

    users: int
    groups: int
    size: int
    place: str = "/mnt"
    shifted: bool = True
    shell: bool = False
    disk: tuple[int, int] = (8, 0)


def configuration(shape: Shape, *, steps: bool = False, stays: bool = False) -> str:
    """The init.yml that `lcinit init` boots the guest with; with `stays` that of `lcinit run`."""
    argument = ", stay" if stays else ", shell" if shape.shell else ""
    mode = "\n  mode: tolerant" if stays else ""
    initctl = "" if stays else "initctl: true  # /dev/initctl is how the guest is asked to power off\n"
    users, groups = f"0 {shape.users} {shape.size}", f"0 {shape.groups} {shape.size}"
    id_map = f"id_map: {{users: {users}, groups: {groups}}}"
    shift = f"\n  {id_map}  # its files belong to the guest's root" if shape.shifted else ""
    major, minor = shape.disk
    return (
        f"""\
root: {shape.place}/root
{id_map}
hostname: {HOST_NAME}
{initctl}mounts:
- source: /usr
  target: /usr
  options: [ro, nosuid]{shift}
environment:
  OUTSIDE_FILE: {shape.place}/{OUTSIDE}  # outside the guest's root
  DISK_MAJOR: "{major}"  # the machine's first disk
  DISK_MINOR: "{minor}"
exec:
  command: [{INIT}{argument}]{mode}
  stop: {{poweroff: SIGTERM}}
{"log: {level: debug}  # the time of every step" if steps else ""}""".rstrip()
        + "\n"
    )


def links_of_merged_usr() -> tuple[tuple[str, str], ...] | None:
    """Names and targets of /bin and its like; None where one of them is a directory, so that /usr is not enough."""
    found = []
    for name in LINKED:
        path = f"/{name}"
        if os.path.islink(path):
            target = os.readlink(path)
            found.append((name, target.lstrip("/")))
        elif os.path.lexists(path):
            return None
    return tuple(found) if any(name == "bin" for name, _ in found) else None


def make(shape: Shape, links: tuple[tuple[str, str], ...], config: str) -> str:
    """Make all of it on file systems of this mount namespace, which must be private; the init.yml's path."""
    _tmpfs(shape.place, "755", 0, 0)
    _write(f"{shape.place}/{OUTSIDE}", "A file of the outside.\n", 0o644)
    _write(f"{shape.place}/init.yml", config, 0o600)
    root = f"{shape.place}/root"
    os.mkdir(root)
    _tmpfs(root, "755", shape.users, shape.groups)
    owner = (shape.users, shape.groups)
    for name in DIRECTORIES:
        os.mkdir(f"{root}/{name}", 0o755)
        os.chown(f"{root}/{name}", *owner)
    os.chmod(f"{root}/tmp", 0o1777)
    os.chmod(f"{root}/var/tmp", 0o1777)
    for name, target in links:
        os.symlink(target, f"{root}/{name}")
        os.lchown(f"{root}/{name}", *owner)
    for name, text, mode in (
        ("etc/passwd", _PASSWD, 0o644),
        ("etc/group", _GROUP, 0o644),
        ("etc/hostname", f"{HOST_NAME}\n", 0o644),
        (INIT.lstrip("/"), SCRIPT, 0o755),
    ):
        _write(f"{root}/{name}", text, mode)
        os.chown(f"{root}/{name}", *owner)
    return f"{shape.place}/init.yml"


def _tmpfs(path: str, mode: str, user: int, group: int) -> None:
    options: dict[str, str | bytes | int | None] = {"mode": mode, "uid": user, "gid": group, "size": "64m"}
    fd = mount.new_mount("tmpfs", options, mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID, source="tmpfs")
    try:
        mount.move_mount(fd, "", calls.AT_FDCWD, path, 0)
    finally:
        os.close(fd)


def _write(path: str, text: str, mode: int) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
