"""parse_mountinfo reads what proc_pid_mountinfo(5) describes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.linux.mountinfo import parse_mountinfo, unescape

NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=30)


def mangle(text: str, also: str = "") -> str:
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\" + also else char for char in text)


@given(point=NAMES, root=NAMES, source=NAMES, tags=st.lists(st.sampled_from(["shared:7", "master:3", "unbindable"])))
def test_names_survive_the_kernels_escapes(point: str, root: str, source: str, tags: list[str]) -> None:
    optional = "".join(f"{tag} " for tag in tags)
    line = (
        f"36 35 98:0 /{mangle(root)} /{mangle(point)} rw,noatime {optional}- ext4 {mangle(source, '#')} rw,errors=x\n"
    )
    (info,) = parse_mountinfo(line)
    assert (info.root, info.mount_point, info.source) == ("/" + root, "/" + point, source)
    assert info.optional == tuple(tags)
    assert (info.mount_id, info.parent_id, info.major, info.minor, info.fstype) == (36, 35, 98, 0, "ext4")
    assert info.options == ("rw", "noatime")
    assert info.super_options == "rw,errors=x"
    assert info.shared == (7 if "shared:7" in tags else None)
    assert info.master == (3 if "master:3" in tags else None)


def test_empty_source_and_a_mount_point_named_dash() -> None:
    (info,) = parse_mountinfo("36 35 0:5 - - rw - tmpfs  rw")
    assert (info.root, info.mount_point, info.source, info.super_options) == ("-", "-", "", "rw")


def test_bytes_that_are_not_utf8_become_surrogates() -> None:
    (info,) = parse_mountinfo(b"36 35 0:5 / /\xff rw - tmpfs t rw\n")
    assert info.mount_point == "/\udcff"


def test_only_newlines_end_a_line() -> None:
    (info,) = parse_mountinfo("36 35 0:5 / /a\x0b\x85\u2028b\r rw - tmpfs t rw\n")
    assert info.mount_point == "/a\x0b\x85\u2028b\r"


def test_the_running_kernels_own_file() -> None:
    with open("/proc/self/mountinfo", "rb") as file:
        text = file.read()
    infos = parse_mountinfo(text)
    assert len(infos) == text.count(b"\n")
    assert any(info.mount_point == "/" for info in infos)


@pytest.mark.parametrize("line", ["36 35 98:0 / / rw ext4 x rw", "36 35 98:0 / / rw - ext4", "x"])
def test_a_broken_line_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="mountinfo line"):
        parse_mountinfo(line)


@pytest.mark.parametrize(
    ("text", "meant"), [(r"\04", r"\04"), (r"\400", r"\400"), (r"a\134040", r"a\040"), ("\\", "\\")]
)
def test_what_is_no_escape_stays(text: str, meant: str) -> None:
    assert unescape(text) == meant
