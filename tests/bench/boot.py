"""Boot overhead: a whole container run whose guest command is /bin/true, on one and the same root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from tests.bench.runs import Peer, Row, in_turn, whole_run
from tests.bench.stage import CGROUP, ENVIRONMENT, PYTHON, Stage
from tests.lab import guests
from tests.lab.cache import cache_directory

_COMMAND = """\
setup:
  before:
  - mount-idmapped --map-mount=b:0:1000000:65536 {root} {root}
"""
_MAP = "id_map: {users: 0 1000000 65536}\n"
_UNSHARE = ("--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc", "--uts", "--cgroup", "--")
HANDOFF, NESTED = "boot overhead, handoff", "boot overhead, nested"


def run(stage: Stage, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """lcinit handing over and staying, beside each peer."""
    root = guests.guest("plain")
    mapped = f"root: {{path: {root}, id_map: true}}\n{_MAP}"
    own = [
        stage.lcinit("lcinit", f"{mapped}exec: {{command: /bin/true}}\n"),
        stage.lcinit("lcinit, nested", f"{mapped}exec: {{command: /bin/true, mode: tolerant, pid: nested}}\n"),
    ]
    peers = [
        stage.lcinit(
            "lcinit, with a command in exec.before", f"{mapped}exec: {{command: /bin/true, before: [/bin/true]}}\n"
        ),
        stage.lcinit(
            "lcinit, the root idmapped by a command",
            f"root: {root}\n{_MAP}exec: {{command: /bin/true}}\n" + _COMMAND.format(root=root),
        ),
        *_peers(stage, root),
    ]
    medians = in_turn([*own, *peers], rounds, lambda peer: whole_run(peer, CGROUP), report)
    handoff, nested = (medians[peer.name][0] * 1000 for peer in own)
    rows = []
    for peer in peers:
        value = medians[peer.name][0] * 1000
        budget = 1.0 if peer.name == "systemd-nspawn" else None
        rows.append(Row(HANDOFF, handoff, "ms", peer.name, value, budget))
        if not peer.name.startswith("lcinit"):
            rows.append(Row(NESTED, nested, "ms", peer.name, value, budget))
    return sorted(rows, key=lambda row: row.what)


def _peers(stage: Stage, root: str) -> list[Peer]:
    """The peers that are installed, and the floor that an interpreter is."""
    found = [
        Peer("python3 -I -S -c pass", [PYTHON, "-I", "-S", "-c", "pass"], ENVIRONMENT),
        Peer("unshare", ["/usr/bin/unshare", *_UNSHARE, "/bin/true"], ENVIRONMENT),
    ]
    if shutil.which("systemd-nspawn"):
        found.append(_nspawn(root))
    if shutil.which("lxc-start"):
        found.append(_lxc(root, stage))
    if shutil.which("bwrap"):
        options = ["--unshare-all", "--uid", "0", "--gid", "0", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev"]
        found.append(Peer("bubblewrap", ["/usr/bin/bwrap", *options, "/bin/true"], ENVIRONMENT))
    sandbox = os.path.join(cache_directory(), "mkosi-sandbox", "sandbox.py")
    if os.path.exists(sandbox):
        options = ["--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--unshare-net", "--unshare-ipc"]
        options.append("--become-root")
        command = [PYTHON, "-I", "-S", sandbox, *options, "/bin/true"]
        found.append(Peer("mkosi's sandbox", command, ENVIRONMENT))
    return found


def _nspawn(root: str) -> Peer:
    options = ["--quiet", f"--directory={root}", "--register=no", "--keep-unit", "--private-network", "--pipe"]
    options += ["--private-users=1000000:65536", "--private-users-ownership=map", "--read-only"]
    options += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    command = ["/usr/bin/systemd-nspawn", *options, "/bin/true"]
    return Peer("systemd-nspawn", command, {**ENVIRONMENT, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})


def _lxc(root: str, stage: Stage) -> Peer:
    state = os.path.join(stage.directory, "lxc")
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
    stage.write("lxc/bench/config", "\n".join([*lines, ""]))
    return Peer("lxc-start", ["/usr/bin/lxc-start", "-P", state, "-n", "bench", "-F"], ENVIRONMENT)
