"""Boot overhead in handoff: a whole container run whose guest command is /bin/true, on one and the same root."""

from __future__ import annotations

import os
import shutil

from lcinit.linux import namespaces
from tests.bench.runs import Peer, Row
from tests.lab import guests
from tests.lab.cache import cache_directory

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = "/usr/bin/python3"
COMMANDS = """\
  before:
  - mount-idmapped --map-mount=b:0:1000000:65536 {root} {root}
"""


def peers(boot_root: str, directory: str) -> list[Peer]:
    """lcinit in three forms, the peers that are installed, and the floor that an interpreter is."""
    root = guests.guest("plain")
    environment = {"PATH": PATH, "LANG": "C.UTF-8"}
    site = os.path.join(boot_root, "usr/lib/lcinit/site")
    found = [
        _lcinit("lcinit", site, directory, environment, f"root: {{path: {root}, id_map: true}}\n" + _COMMON),
        _lcinit(
            "lcinit, with a command in exec.before",
            site,
            directory,
            environment,
            f"root: {{path: {root}, id_map: true}}\n" + _COMMON + "  before: [/bin/true]\n",
        ),
        _lcinit(
            "lcinit, the root idmapped by a command",
            site,
            directory,
            environment,
            f"root: {root}\n" + _COMMON + "setup:\n" + COMMANDS.format(root=root),
        ),
        Peer("python3 -I -S -c pass", [PYTHON, "-I", "-S", "-c", "pass"], environment),
        Peer("unshare", ["/usr/bin/unshare", *_UNSHARE, "/bin/true"], environment),
    ]
    if shutil.which("systemd-nspawn"):
        found.append(_nspawn(root, environment))
    if shutil.which("lxc-start"):
        found.append(_lxc(root, directory, environment))
    if shutil.which("bwrap"):
        options = ["--unshare-all", "--uid", "0", "--gid", "0", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev"]
        found.append(Peer("bubblewrap", ["/usr/bin/bwrap", *options, "/bin/true"], environment))
    sandbox = os.path.join(cache_directory(), "mkosi-sandbox", "sandbox.py")
    if os.path.exists(sandbox):
        options = ["--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--unshare-net", "--unshare-ipc"]
        options.append("--become-root")
        command = [PYTHON, "-I", "-S", sandbox, *options, "/bin/true"]
        found.append(Peer("mkosi's sandbox", command, environment))
    return found


_COMMON = "id_map: {users: 0 1000000 65536}\nexec:\n  command: /bin/true\n"
_CONTAINER = (
    namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)
_UNSHARE = ("--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc", "--uts", "--cgroup", "--")


def _lcinit(name: str, site: str, directory: str, environment: dict[str, str], config: str) -> Peer:
    path = os.path.join(directory, f"{len(os.listdir(directory))}.yml")
    with open(path, "w") as file:
        file.write(config)
    start = f"import sys; sys.path.append({site!r}); from lcinit.cli.main import main; sys.exit(main(sys.argv))"
    command = [PYTHON, "-I", "-S", "-c", start, "init", "--config", path]
    return Peer(name, command, environment, flags=_CONTAINER)


def _nspawn(root: str, environment: dict[str, str]) -> Peer:
    options = ["--quiet", f"--directory={root}", "--register=no", "--keep-unit", "--private-network", "--pipe"]
    options += ["--private-users=1000000:65536", "--private-users-ownership=map", "--read-only"]
    options += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    command = ["/usr/bin/systemd-nspawn", *options, "/bin/true"]
    return Peer("systemd-nspawn", command, {**environment, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})


def _lxc(root: str, directory: str, environment: dict[str, str]) -> Peer:
    state = os.path.join(directory, "lxc")
    os.makedirs(os.path.join(state, "bench"), exist_ok=True)
    lines = [
        f"lxc.rootfs.path = dir:{root}",
        "lxc.rootfs.options = idmap=container",
        "lxc.idmap = u 0 1000000 65536",
        "lxc.idmap = g 0 1000000 65536",
        "lxc.uts.name = bench",
        "lxc.net.0.type = empty",
        "lxc.apparmor.profile = unconfined",
        "lxc.mount.auto = proc:rw sys:ro",
        "lxc.init.cmd = /bin/true",
    ]
    with open(os.path.join(state, "bench", "config"), "w") as file:
        file.write("\n".join([*lines, ""]))
    return Peer("lxc-start", ["/usr/bin/lxc-start", "-P", state, "-n", "bench", "-F"], environment)


def rows(medians: dict[str, float]) -> list[Row]:
    """lcinit beside each peer; the budgets are those of docs/performance.md."""
    budgets = {"systemd-nspawn": 1.0, "mkosi's sandbox": None}
    own = medians["lcinit"]
    table = []
    for name, seconds in medians.items():
        if name == "lcinit":
            continue
        table.append(Row("boot overhead, handoff", own, name, seconds, own / seconds, budgets.get(name)))
    return table
