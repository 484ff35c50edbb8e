"""fstab(5): what a line means, and where a wrong one is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcinit.config.diagnostics import InvalidFile
from lcinit.config.fstab import parse_fstab
from lcinit.config.values import Mount

FSTAB = rb"""
# <source> <target> <type> <options> <dump> <pass>
/srv/data      /data        none   bind,ro             0 0
/srv/tree	/tree	auto	rbind,x-systemd.automount
  /dev/vdb1    /disk        ext4   defaults,noatime,nofail,users 0 2
tmpfs          /run/a\040b  tmpfs  size=64m,mode=1777
a\134b\043     /c           9p
/dev/sda2      none         swap   sw
/dev/sda1      /            ext4   defaults            0 1
/dev/cdrom     /media       iso9660 ro,noauto
"""


FORM = r"write SOURCE TARGET TYPE [OPTIONS [DUMP [PASS]]], a blank within a field as \040"


def test_lines_mean_what_mount_makes_of_them():
    assert parse_fstab(FSTAB, "fstab") == (
        Mount(source="/srv/data", target="/data", options=("ro",)),
        Mount(source="/srv/tree", target="/tree", options=("rbind",)),
        Mount(source="/dev/vdb1", target="/disk", type="ext4", options=("noatime", "nofail")),
        Mount(source="tmpfs", target="/run/a b", type="tmpfs", options=("size=64m", "mode=1777")),
        Mount(source="a\\b#", target="/c", type="9p"),
    )


def test_names_that_are_not_utf8_are_kept_byte_for_byte():
    (mount,) = parse_fstab(b"/srv/\xff /\xe9 none bind\n", "fstab")
    assert mount.source is not None
    assert mount.source.encode("utf-8", "surrogateescape") == b"/srv/\xff"


def test_every_wrong_line_is_told_with_its_place():
    text = rb"""/a
/a /b none bind 0 0 0
/a b none bind
/a /b none bind x 0
 /a\041 /b none bind
a /b none bind
/a /b none ro
UUID=5 /b ext4
/dev/sdb /b auto
/dev/sdb /b ext4 dev
/a /../b none bind
"""
    with pytest.raises(InvalidFile) as caught:
        parse_fstab(text, "f")
    assert str(caught.value).splitlines() == [
        f"f:1:1: (line): has 1 fields; {FORM}",
        f"f:2:1: (line): has 7 fields; {FORM}",
        'f:3:4: target: "b" is a relative path; write an absolute path',
        'f:4:17: dump: "x" is no number; write 0, or leave it out',
        r'f:5:2: source: the escape "\\041" is not one of fstab(5); write a blank as \040, a tab as \011, '
        r"a newline as \012, a backslash as \134",
        'f:6:1: (line): the source "a" is a relative path; write an absolute path',
        'f:7:1: (line): the type "none" without the option bind mounts nothing; add bind, or write the type',
        'f:8:1: (line): "UUID=5" needs udev to be found; write the device\'s path',
        'f:9:1: (line): the type "auto" needs the device to be probed; write the type',
        'f:10:1: (line): the option "dev" is not possible here; device nodes come into the guest by devices alone; '
        "leave it out",
        'f:11:4: target: "/../b" holds ..; write the path without ..',
    ]


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="/ab \t\\014#,\n\r\0=none", max_size=60).map(str.encode))
def test_any_bytes_are_mounts_or_a_config_error(text):
    try:
        mounts = parse_fstab(text, "f")
    except InvalidFile as error:
        assert str(error).startswith("f:")
    else:
        assert all(mount.target.startswith("/") and mount.target != "/" for mount in mounts)
