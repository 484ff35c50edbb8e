"""What a test run must leave as it found it: the machine's mounts, interfaces, cgroups and device nodes."""

from __future__ import annotations

import os
import stat

from tests.lab.container import PREFIX, cgroup2_mount

Snapshot = dict[str, dict[str, str]]

# What a container's cgroup is called: drivers name theirs after this run, and what a manager makes outside of that
# (there should be nothing) has these names. On a shared machine somebody else's may come and go meanwhile.
LEFTOVERS = (PREFIX, "lxc.pivot", "lxc.monitor.lcinit", "lxc.payload.lcinit")
OWN = (f"{PREFIX}{os.getpid()}-",)


def snapshot(leftovers: tuple[str, ...] = OWN) -> Snapshot:
    """Everything compared, in a form in which a difference can be printed.

    Of cgroups only those whose names begin with one of `leftovers`: this process' own, or LEFTOVERS when no other
    process of the run is at work any more.
    """
    return {
        "mount": _mounts(),
        "interface": _interfaces(),
        "cgroup": _cgroups(leftovers),
        "device": _devices(),
        "setting": _settings(),
    }


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each thing that is new, gone or changed; empty when the machine is as it was."""
    found = []
    for kind, old in before.items():
        new = after[kind]
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                found.append(f"{kind} {key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}")
    return found


def _mounts() -> dict[str, str]:
    result = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.rstrip("\n").partition(" - ")
            fields = left.split()
            # Not the mount's own number nor its optional fields' peer group: options, place and source say it all.
            result[f"{fields[4]} ({fields[0]})"] = f"{fields[3]} {fields[5]} {right}"
    return result


def _interfaces() -> dict[str, str]:
    result = {}
    for name in os.listdir("/sys/class/net"):
        values = []
        for attribute in ("ifindex", "address", "mtu", "flags"):
            try:
                with open(f"/sys/class/net/{name}/{attribute}", encoding="utf-8") as file:
                    values.append(file.read().strip())
            except OSError as error:
                values.append(str(error.errno))
        result[name] = " ".join(values)
    return result


def _owner(path: str) -> str:
    entry = os.lstat(path)
    return f"{entry.st_uid}:{entry.st_gid} {stat.filemode(entry.st_mode)}"


def _cgroups(leftovers: tuple[str, ...]) -> dict[str, str]:
    """Owners of every hierarchy's root and of the files in it, and directories that only a test can have made."""
    result = {}
    roots = {cgroup2_mount()}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        roots |= {line.split()[4] for line in file if line.partition(" - ")[2].startswith("cgroup ")}
    for root in roots:
        result[root] = _owner(root)
        for name in os.listdir(root):
            path = os.path.join(root, name)
            try:
                if not os.path.isdir(path):
                    result[path] = _owner(path)
                elif name.startswith(leftovers):
                    result[path] = "a test's cgroup"
            except FileNotFoundError:
                continue  # another run's, and gone since it was listed
    return result


def _devices() -> dict[str, str]:
    result = {"/dev": _owner("/dev")}
    for name in os.listdir("/dev"):
        path = os.path.join("/dev", name)
        # Loop devices and the like come and go with their use; only what containers have too matters here.
        if name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "kmsg", "fuse"):
            result[path] = _owner(path)
    return result


def _settings() -> dict[str, str]:
    result = {}
    for path in ("kernel/hostname", "kernel/core_pattern", "kernel/sysrq", "net/ipv4/ip_forward"):
        try:
            with open(f"/proc/sys/{path}", encoding="utf-8") as file:
                result[path] = file.read().strip()
        except FileNotFoundError:
            result[path] = "not in this kernel"
    return result
