"""Files that are not what they should be, and a guest that tries to have a say in what the configuration names.

Broken configurations (rows 10, 11, 13, 23) are shown where the reader is tested: tests/unit/test_config_*.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcinit.boot.network import move_interfaces
from lcinit.config.diagnostics import InvalidFile
from lcinit.config.load import parse
from lcinit.errors import SystemFailure
from lcinit.linux import namespaces, netlink
from lcinit.supervisor.accounts import identity
from lcinit.supervisor.spawn import Identity
from tests.hostile.attempt import SHIFT, Outcome, boot, configuration, own_guest
from tests.lab.guests import place_file, remove_tree
from tests.namespace.isolated import run_isolated
from tests.namespace.test_linux_rtnetlink import create_link

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

RUNS = "echo 'guest: runs'"
SECRET = "a line of the outside"


@pytest.fixture(scope="module")
def fifos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A guest with FIFOs, which nobody will ever open at the other end, where lcinit looks for files."""
    root = own_guest(str(tmp_path_factory.mktemp("fifos") / "guest"))
    for path in ("usr/sbin/init", "etc/resolv.conf", "etc/machine-id", "etc/passwd", "etc/group"):
        target = os.path.join(root, path)
        if os.path.lexists(target):
            os.unlink(target)
        os.mkfifo(target)
        os.chown(target, SHIFT, SHIFT)
        os.chmod(target, 0o666)
    yield root
    remove_tree(root)


def boot_in_time(config: str, **options: Any) -> Outcome:
    """Five seconds are many times what a boot takes."""
    began = time.monotonic()
    done = boot(config, timeout=5, **options)
    assert time.monotonic() - began < 5
    return done


@pytest.mark.row(24)
def test_a_fifo_as_the_guests_init_is_refused(fifos: str) -> None:
    done = boot_in_time(configuration(), guest=fifos)
    assert done.status == 126
    assert done.errors() == ["the guest's /sbin/init is not a regular file"]


@pytest.mark.row(24)
def test_a_fifo_where_lcinit_would_write_is_left_alone(fifos: str, tmp_path: Path) -> None:
    source = tmp_path / "resolv"
    source.write_text("nameserver 192.0.2.1\n")
    script = f"[ -p /etc/resolv.conf ] && [ -p /etc/machine-id ] && {RUNS}"
    config = configuration(script, network={"resolv_conf": "/mnt/resolv"})
    env = {"container": "lxc", "container_uuid": "01234567-89ab-cdef-0123-456789abcdef"}
    done = boot_in_time(config, guest=fifos, binds=[(str(source), "/mnt/resolv")], env=env)
    assert done.said("guest") == ["runs"], done


@pytest.mark.row(24)
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"network": {"resolv_conf": "/mnt/fifo"}}, "network.resolv_conf: /mnt/fifo is not a readable regular file"),
        ({"fstab": "/mnt/fifo"}, "fstab: /mnt/fifo is not a regular file of at most 1048576 bytes"),
    ],
    ids=["resolv_conf", "fstab"],
)
def test_a_fifo_as_a_source_is_an_error(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = boot_in_time(configuration(RUNS, **keys), binds=[(str(tmp_path / "fifo"), "/mnt/fifo")])
    assert done.status == 71
    assert done.errors() == [said]


@pytest.mark.row(24)
def test_a_fifo_as_the_configuration_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    options = {"binds": [(str(tmp_path / "fifo"), "/mnt/fifo")], "args": ["--config", "/mnt/fifo"]}
    done = boot_in_time(configuration(RUNS), **options)
    assert done.status == 78
    assert done.errors() == ["cannot read /mnt/fifo: it is a FIFO; name a regular file"]


@pytest.mark.row(24)
@pytest.mark.parametrize(("path", "keys"), [("passwd", {"user": "app"}), ("group", {"user": 0, "group": "app"})])
def test_a_fifo_as_the_guests_accounts_is_an_error(fifos: str, path: str, keys: dict[str, Any]) -> None:
    config = configuration(RUNS, exec=keys, mounts=[] if path == "passwd" else [REGULAR_PASSWD])
    done = boot_in_time(config, guest=fifos)
    assert done.status == 71
    assert done.errors() == [f"/etc/{path} is not a regular file of at most 4194304 bytes"]


# Over a FIFO: what is at fault is then the other file.
REGULAR_PASSWD = {"source": "/etc/passwd", "target": "/etc/passwd"}


@pytest.mark.row(13)
@pytest.mark.parametrize("number", ["4294967295", "-1", "1" * 5000, "0x0", "1_0", "\u0663", " 7", "+7", ""])
def test_a_number_of_the_guests_accounts_that_is_no_id_names_nobody(tmp_path: Path, number: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"a:x:{number}:5::/:/bin/sh\nb:x:5:{number}::/:/bin/sh\nc:x:7:8::/:\n")
    (tmp_path / "etc/group").write_text(f"d:x:{number}:c\ne:x:9:c\n")
    root = os.open(tmp_path, os.O_PATH)
    try:
        for user, group in (("a", None), ("b", None), (None, "d")):
            with pytest.raises(SystemFailure, match=r"^no (user|group) '[abd]' in /etc/") as caught:
                identity(root, user, group)
            assert caught.value.exit_code == 78
        assert identity(root, "c", None) == Identity(uid=7, gid=8, groups=(8, 9))
    finally:
        os.close(root)


@pytest.mark.row(39)
@pytest.mark.parametrize(
    "name", ["--help", "-x", "../eth0", "a/b", "a b", "a:b", "", ".", "..", "sixteen-letters-", "e\\x00", "e\\n"]
)
def test_what_cannot_be_an_interface_is_refused_before_anything_is_looked_at(name: str) -> None:
    with pytest.raises(InvalidFile, match=r"^f:1:\d+: network\.interfaces"):
        parse(f'network: {{interfaces: ["{name}"]}}\n'.encode(), "f")


@pytest.mark.row(39)
def test_an_interface_that_is_not_there_is_refused() -> None:
    done = boot(configuration(RUNS, network={"interfaces": ["eth7"]}))
    assert done.status == 78
    assert done.errors() == ["network.interfaces: no interface 'eth7' here; there is none"]


@pytest.mark.row(39)
def test_an_interface_goes_to_no_namespace_but_the_guests() -> None:
    def attempt() -> None:
        create_link("v0", "veth", "v1")
        own = {kind: os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "user", "uts")}
        elsewhere = namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNET
        child = os.fork()
        if child == 0:
            namespaces.unshare(elsewhere)
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        try:
            foreign = {kind: os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY) for kind in ("net", "user")}
            for target, owner in (
                (own["net"], own["user"]),  # the one it is in
                (own["uts"], own["user"]),  # no network namespace
                (foreign["net"], own["user"]),  # somebody else's
            ):
                with pytest.raises(SystemFailure, match=r"^refused: "):
                    move_interfaces(("v0",), target, owner)
                assert {"v0", "v1"} <= {link.name for link in netlink.links()}
            move_interfaces(("v0",), foreign["net"], foreign["user"])
            assert "v0" not in {link.name for link in netlink.links()}
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    run_isolated(attempt)


# -- the guest's say in what is mounted --------------------------------------------------------------------------------

READS = "cat /target /target/file 2>/dev/null; ls /target; echo 'guest: runs'"
FSTAB = "{source} /target {type} {options} 0 0\n"
# Links of the boot root, made by setup.before: whoever wrote the configuration made them too.
LINKS = {
    "etc": "/mnt/root/etc",
    "srv": "/mnt/root/srv",
    "chain": "next",
    "next": "root/srv/file",
    "data": "secret",
    "up": "../mnt/./data/",
}


@pytest.fixture(scope="module")
def astray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Options of boot(): a guest with links out of itself, a secret to reach at /mnt/secret, the boot root's links."""
    directory = tmp_path_factory.mktemp("astray")
    guest = own_guest(str(directory / "guest"))
    if os.path.isdir(f"{guest}/srv"):
        os.rmdir(f"{guest}/srv")
    for name, to in (("srv", "/mnt/secret"), ("relative", "../../mnt/secret")):
        os.symlink(to, f"{guest}/{name}")
    os.mkdir(f"{guest}/target")
    place_file(guest, "etc/fstab", 0o644, FSTAB.format(source="/mnt/secret", type="none", options="bind"))
    (directory / "secret").mkdir()
    (directory / "secret" / "file").write_text(f"{SECRET}\n")
    (directory / "links").write_text("set -e\n" + "".join(f"ln -s {to} /mnt/{name}\n" for name, to in LINKS.items()))
    binds = [(str(directory / "secret"), "/mnt/secret"), (str(directory / "links"), "/mnt/links")]
    yield {"guest": guest, "binds": binds}
    remove_tree(guest)


def mounting(**keys: Any) -> str:
    return configuration(READS, setup={"before": ["sh /mnt/links"]}, **keys)


@pytest.mark.row(43)
@pytest.mark.parametrize("way", ["mounts", "fstab"])
@pytest.mark.parametrize(
    "source",
    [
        *("/mnt/root/srv", "/mnt/root/srv/file", "/mnt/root/relative"),  # a link of the guest, by its own path
        "/mnt/etc",  # the boot root's link into the guest
        *("/mnt/srv", "/mnt/srv/file", "/mnt/chain"),  # one into the guest, and one of the guest out of it
        "/proc/self/root/mnt/secret",  # a magic link may lead anywhere
    ],
)
def test_a_link_of_the_guest_does_not_say_what_is_mounted(
    astray: dict[str, Any], tmp_path: Path, source: str, way: str
) -> None:
    if way == "mounts":
        done = boot(mounting(mounts=[{"source": source, "target": "/target"}]), **astray)
    else:
        (tmp_path / "fstab").write_text(FSTAB.format(source=source, type="none", options="bind"))
        binds = [*astray["binds"], (str(tmp_path / "fstab"), "/mnt/fstab")]
        done = boot(mounting(fstab="/mnt/fstab"), guest=astray["guest"], binds=binds)
    assert SECRET not in str(done)
    assert done.status == 71
    (line,) = done.errors()
    assert source in line


@pytest.mark.row(43)
def test_a_device_or_image_behind_a_link_of_the_guest_is_not_mounted(astray: dict[str, Any]) -> None:
    """The kernel itself looks up the source of a file system: it would follow the link."""
    for source, cause in (
        ("/mnt/root/srv/file", "Too many levels of symbolic links"),
        ("/mnt/srv/file", "leads into the guest root"),
        ("/mnt/root/etc/passwd", "is a file of the guest"),
    ):
        done = boot(mounting(mounts=[{"source": source, "target": "/target", "type": "ext4"}]), **astray)
        assert done.status == 71
        assert cause in done.errors()[0]


@pytest.mark.row(43)
def test_the_guests_own_fstab_is_refused(astray: dict[str, Any]) -> None:
    for path, cause in (
        ("/mnt/root/etc/fstab", "refused: fstab: /mnt/root/etc/fstab is a file of the guest; keep it in the boot root"),
        ("/mnt/etc/fstab", "refused: fstab: /mnt/etc/fstab leads into the guest root /mnt/root"),
    ):
        done = boot(mounting(fstab=path), **astray)
        assert SECRET not in str(done)
        assert (done.status, done.errors()) == (71, [cause])


@pytest.mark.row(43)
def test_the_boot_roots_own_links_and_the_guests_own_directories_are_mounted(astray: dict[str, Any]) -> None:
    """The counter-test."""
    for source in ("/mnt/secret", "/mnt/up", "/mnt/data//file"):
        target = "/target" if not source.endswith("file") else "/etc/hostname"
        script = READS.replace("/target/file", f"/target/file {target}")
        config = configuration(
            script, setup={"before": ["sh /mnt/links"]}, mounts=[{"source": source, "target": target}]
        )
        done = boot(config, **astray)
        assert SECRET in done.lines, (source, done)
    done = boot(mounting(mounts=[{"source": "/mnt/root/etc", "target": "/target"}]), **astray)
    assert "passwd" in done.lines
