"""Each key of the configuration has the effect that docs/configuration.md promises, seen from inside a real guest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest

from tests.lab import guests
from tests.lab.container import Container, Ended

MAPPED = "id_map: {users: 0 1000000 65536}\nroot: {path: /mnt/root, id_map: true}\n"


class Look:
    """A plain guest that runs a script and ends; what it printed, as `key value` lines."""

    def __init__(self, container: Callable[..., Container], boot_root: str, guest: str) -> None:
        self._container = container
        self._boot_root = boot_root
        self._guest = guest

    def __call__(
        self, config: str, script: str, *, status: int = 0, manager: str = "unshare", **options: object
    ) -> Seen:
        with open(os.path.join(self._guest, "mnt", "look"), "w") as file:
            file.write(script)
        running = self._container(manager, console="pipe")
        command = "exec:\n  command: [/bin/sh, /mnt/look]\n" if "exec:" not in config else ""
        running.start(self._boot_root, guest_root=self._guest, config=config + command, **options)  # type: ignore[arg-type]
        ended = running.wait()
        seen = Seen(running.console().decode(errors="replace"), ended)
        assert ended.status == status, seen.text
        return seen


class Seen:
    """Text of a console, by key."""

    def __init__(self, text: str, ended: Ended) -> None:
        self.text = text
        self.ended = ended

    def __getitem__(self, key: str) -> str:
        found = re.search(rf"^{re.escape(key)} ?(.*?)\r?$", self.text, re.MULTILINE)
        assert found, f"no {key!r} in:\n{self.text}"
        return found.group(1).strip()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One writable copy for all tests of this file: what a test needs it writes, what it writes no other one reads."""
    destination = str(tmp_path_factory.mktemp("guest") / "root")
    yield guests.copy_of("plain", destination)
    guests.remove_tree(destination)


@pytest.fixture
def look(container: Callable[..., Container], boot_root: str, plain: str) -> Look:
    return Look(container, boot_root, plain)


def test_hostname_environment_limits_capabilities_and_user(look: Look) -> None:
    config = MAPPED + (
        "hostname: guest.example\n"
        "environment: {GREETING: hello world}\n"
        "limits: {nofile: 256:512, core: 0}\n"
        "capabilities: {drop: [net_raw], keep: [sys_time]}\n"
        "exec:\n  command: {command: [/bin/sh, /mnt/look], cwd: /tmp}\n  user: 1000\n  group: 1001\n  groups: [7]\n"
    )
    script = """\
echo "name $(cat /proc/sys/kernel/hostname)"
echo "greeting $GREETING"
echo "container $container"
echo "soft $(ulimit -Sn)"
echo "hard $(ulimit -Hn)"
echo "core $(ulimit -Hc)"
echo "ids $(id -u) $(id -g) $(id -G)"
echo "cwd $(pwd)"
echo "umask $(umask)"
grep -E '^(CapBnd|CapInh|CapAmb|CapEff|SigBlk|SigIgn)' /proc/self/status
"""
    seen = look(config, script)
    assert seen["name"] == "guest.example"
    assert seen["greeting"] == "hello world"
    assert seen["container"] == "lcinit"
    assert (seen["soft"], seen["hard"], seen["core"]) == ("256", "512", "0")
    assert seen["ids"] == "1000 1001 1001 7"
    assert seen["cwd"] == "/tmp"
    assert seen["umask"] == "0022"
    bounding = int(seen["CapBnd:"], 16)
    assert not bounding >> 13 & 1  # net_raw, dropped
    assert bounding >> 25 & 1  # sys_time, kept
    assert not bounding >> 17 & 1  # sys_rawio, dropped by default
    assert int(seen["CapEff:"], 16) == 0
    assert int(seen["CapInh:"], 16) == int(seen["CapAmb:"], 16) == 0
    assert int(seen["SigBlk:"], 16) == int(seen["SigIgn:"], 16) == 0


def test_a_user_by_name_has_its_groups(look: Look) -> None:
    with open(os.path.join(look._guest, "etc/passwd"), "w") as file:
        file.write("root:x:0:0::/root:/bin/sh\nalice:x:1200:1300::/home:/bin/sh\n")
    with open(os.path.join(look._guest, "etc/group"), "w") as file:
        file.write("root:x:0:\nalice:x:1300:\naudio:x:29:bob,alice\n")
    config = MAPPED + "exec: {command: [/bin/sh, /mnt/look], user: alice}\n"
    assert look(config, 'echo "ids $(id -u) $(id -g) $(id -G)"\n')["ids"] == "1200 1300 1300 29"


def test_an_unknown_user_is_named(look: Look) -> None:
    config = MAPPED + "exec: {command: [/bin/true], user: nobody-here}\n"
    assert "no user 'nobody-here' in /etc/passwd" in look(config, "", status=78).text


@pytest.mark.parametrize("mapped", [True, False])
def test_mounts_and_fstab_come_with_their_options(look: Look, mapped: bool, tmp_path: object) -> None:
    source = os.path.join(str(tmp_path), "source")
    os.makedirs(os.path.join(source, "inner"))
    with open(os.path.join(source, "file"), "w") as file:
        file.write("from outside\n")
    fstab = os.path.join(str(tmp_path), "fstab")
    with open(fstab, "w") as file:
        file.write(
            "# comment\ntmpfs /srv/from\\040fstab tmpfs size=1m,mode=700,noexec\n/mnt/source/file /one bind ro 0 0\n"
        )
    config = (MAPPED if mapped else "") + (
        "fstab: /mnt/fstab\n"
        "mounts:\n"
        "- {source: /mnt/source, target: /data/deep, options: [ro, noexec]}\n"
        "- {source: tmpfs, target: /scratch, type: tmpfs, options: [size=2m, nosuid]}\n"
        "- {source: /mnt/source/file, target: /single}\n"
    )
    if mapped:
        config += "- {source: /mnt/source, target: /shifted, id_map: {users: 0 1000000 65536}}\n"
    script = """\
echo "file $(cat /data/deep/file)"
echo "single $(cat /single)"
echo "one $(cat /one)"
touch /data/deep/x 2>/dev/null || echo "read-only yes"
grep -E ' (/data/deep|/scratch|/single|/srv|/one|/shifted)' /proc/self/mountinfo | sed 's/^/mount /'
[ ! -d /shifted ] || echo "owner $(stat -c %u /shifted/file)"
"""
    seen = look(config, script, binds=[(source, "/mnt/source"), (fstab, "/mnt/fstab")])
    assert seen["file"] == "from outside"
    assert seen["single"] == "from outside"
    assert seen["one"] == "from outside"
    assert seen["read-only"] == "yes"
    mounts = re.findall(r"^mount .* (/\S+) (\S+) - (\S+) \S+ (\S+)", seen.text.replace(" relatime", ""), re.MULTILINE)
    options = {target: set(attributes.split(",")) for target, attributes, _, _ in mounts}
    assert {"ro", "noexec", "nodev"} <= options["/data/deep"]
    assert {"nosuid", "nodev"} <= options["/scratch"]
    assert {"noexec", "nodev"} <= options["/srv/from\\040fstab"]
    assert {"ro", "nodev"} <= options["/one"]
    if mapped:
        assert seen["owner"] == "0"


def test_a_read_only_root_and_dev(look: Look) -> None:
    config = (
        "id_map: {users: 0 1000000 65536}\nroot: {path: /mnt/root, id_map: true, read_only: true}\n"
        "devices: {read_only: true}\n"
    )
    script = """\
touch /x 2>/dev/null && echo wrote root
touch /dev/x 2>/dev/null && echo wrote dev
touch /run/x && echo "run writable"
echo > /dev/null && echo "null works"
ls /dev/pts/ptmx && echo "pts there"
"""
    seen = look(config, script)
    assert "wrote" not in seen.text
    assert seen["run writable"] == ""
    assert seen["null works"] == ""


@pytest.mark.parametrize("mode", ["chroot", "pivot"])
def test_root_modes(look: Look, mode: str) -> None:
    config = f"id_map: {{users: 0 1000000 65536}}\nroot: {{path: /mnt/root, mode: {mode}, id_map: true}}\n"
    seen = look(config, 'echo "pid $$"\necho "entries $(ls / | tr "\\n" " ")"\n')
    assert seen["pid"] == "1"
    assert "look" not in seen["entries"]
    assert "mnt" in seen["entries"]
    assert ("chroot: a privileged guest can leave it" in seen.text) == (mode == "chroot")


def test_without_root_and_setup_the_command_runs_in_the_boot_root(look: Look) -> None:
    config = (
        "root: null\nsetup: none\nexec: [/bin/sh, -c, 'ls /usr/lib/lcinit; echo pid $$; echo secret $SECRET; exit 3']\n"
    )
    seen = look(config, "", status=3, env={"SECRET": "kept"})
    assert "site" in seen.text
    assert seen["pid"] == "1"
    assert seen["secret"] == "kept"


WORLD = "$(id -u)$(tr -s ' ' < /proc/self/uid_map)"


def test_without_a_root_the_boot_root_itself_is_set_up(look: Look) -> None:
    config = (
        "root: null\nexec: [/bin/sh, -c, 'echo pid $$; stat -c \"dev %F\" /dev/null; ls -d /usr/lib/lcinit; ls /run']\n"
    )
    seen = look(config, "")
    assert seen["pid"] == "1"
    assert seen["dev"] == "character special file"
    assert "/usr/lib/lcinit" in seen.text
    assert "host" in seen.text


def test_an_fstab_line_with_nofail_is_told_and_passed_over(look: Look, tmp_path: object) -> None:
    fstab = os.path.join(str(tmp_path), "fstab")
    with open(fstab, "w") as file:
        file.write("/not/there /data none bind,nofail\n")
    seen = look(MAPPED + "fstab: /mnt/fstab\n", "echo up\n", binds=[(fstab, "/mnt/fstab")])
    assert seen["up"] == ""
    assert "/data is not mounted (nofail)" in seen.text
    with open(fstab, "w") as file:
        file.write("/not/there /data none bind\n")
    assert "/not/there" in look(MAPPED + "fstab: /mnt/fstab\n", "", status=71, binds=[(fstab, "/mnt/fstab")]).text


def test_a_device_that_is_not_there_is_told(look: Look) -> None:
    seen = look(MAPPED + "devices: {include: [no-such-device]}\n", "true\n")
    assert "devices.include: there is no device no-such-device here" in seen.text


def test_setup_after_and_outside_run_where_they_should(look: Look, tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "say")
    with open(path, "w") as file:
        file.write(f'echo "$1 $(pwd) {WORLD} $LCINIT_GUEST_PID"\n')
    config = MAPPED + "setup: {after: sh /mnt/say after, outside: sh /mnt/say outside}\n"
    seen = look(config, "echo main\n", binds=[(path, "/mnt/say")])
    assert seen["after"] == "/mnt/root 0 0 1000000 65536"
    assert seen["outside"] == "/ 0 0 0 4294967295 1"
    assert seen.text.index("after") < seen.text.index("outside") < seen.text.index("main")


def test_namespaces_that_are_not_asked_for_are_shared(look: Look, tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "say")
    script = 'for each in uts ipc net user; do echo "$1$each $(readlink /proc/self/ns/$each)"; done\n'
    with open(path, "w") as file:
        file.write(script)
    config = MAPPED + "setup: {outside: sh /mnt/say outer-}\n"
    shared = config + "namespaces: {uts: false, ipc: false, cgroup: false, network: false}\n"
    for text, same in ((config, False), (shared, True)):
        seen = look(text, script, binds=[(path, "/mnt/say")])
        for each in ("uts", "ipc", "net"):
            assert (seen[each] == seen[f"outer-{each}"]) == same
        assert seen["user"] != seen["outer-user"]


def test_resolv_conf_by_path(look: Look, tmp_path: object) -> None:
    with open(os.path.join(look._guest, "etc/resolv.conf"), "w") as file:
        file.write("nameserver 192.0.2.1\n")
    path = os.path.join(str(tmp_path), "resolv")
    with open(path, "w") as file:
        file.write("nameserver 192.0.2.99\n")
    config = MAPPED + "network: {resolv_conf: /mnt/resolv}\n"
    assert look(config, "cat /etc/resolv.conf\n", binds=[(path, "/mnt/resolv")])["nameserver"] == "192.0.2.99"
    assert look(MAPPED, "cat /etc/resolv.conf\n")["nameserver"] == "192.0.2.1"
    with open(os.path.join(look._guest, "etc/resolv.conf")) as file:
        assert file.read() == "nameserver 192.0.2.1\n"


def test_the_container_interface(look: Look) -> None:
    uuid = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
    open(os.path.join(look._guest, "etc/machine-id"), "w").close()
    script = """\
echo "manager $(cat /run/host/container-manager)"
echo "uuid $(cat /run/host/container-uuid)"
echo "variable $container_uuid"
echo "machine-id $(cat /etc/machine-id)"
"""
    seen = look(MAPPED, script, env={"container": "my-manager", "container_uuid": uuid})
    assert seen["manager"] == "my-manager"
    assert seen["uuid"] == seen["variable"] == uuid
    assert seen["machine-id"] == uuid.replace("-", "")
