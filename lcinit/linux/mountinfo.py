"""/proc/PID/mountinfo, read as proc_pid_mountinfo(5) describes it. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class MountInfo:
    """One mount. Paths and the source are decoded and may hold surrogates for bytes that are not UTF-8.

    `root` is what of the file system is mounted, `options` belong to the mount, `super_options` to the file system;
    `shared` and `master` are peer groups, None without one.
    """

    __slots__ = (
        "fstype",
        "major",
        "master",
        "minor",
        "mount_id",
        "mount_point",
        "optional",
        "options",
        "parent_id",
        "root",
        "shared",
        "source",
        "super_options",
    )

    def __init__(self, line: str) -> None:
        before = line.split(" ")
        try:
            separator = before.index("-", 6)
        except ValueError:
            raise ValueError(f"mountinfo line without separator: {line!r}") from None
        after = before[separator + 1 :]
        if len(after) < 3:
            raise ValueError(f"mountinfo line with missing fields: {line!r}")
        self.mount_id = int(before[0])
        self.parent_id = int(before[1])
        major, _, minor = before[2].partition(":")
        self.major = int(major)
        self.minor = int(minor)
        self.root = unescape(before[3])
        self.mount_point = unescape(before[4])
        self.options = tuple(before[5].split(","))
        self.optional = tuple(before[6:separator])
        self.shared = _peer_group(self.optional, "shared:")
        self.master = _peer_group(self.optional, "master:")
        self.fstype = unescape(after[0])
        self.source = unescape(after[1])
        self.super_options = unescape(" ".join(after[2:]))

    def __repr__(self) -> str:
        return f"MountInfo({self.mount_id}, {self.mount_point!r}, {self.fstype!r}, {self.source!r})"


def _peer_group(optional: tuple[str, ...], tag: str) -> int | None:
    for field in optional:
        if field.startswith(tag):
            return int(field[len(tag) :])
    return None


def unescape(text: str) -> str:
    r"""Undo the kernel's `\ooo` for space, tab, newline, backslash and hash; other backslashes stay as they are."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    return first + "".join(_unescaped(rest))


def _unescaped(pieces: list[str]) -> Iterator[str]:
    for piece in pieces:
        digits = piece[:3]
        if len(digits) == 3 and all(digit in "01234567" for digit in digits) and digits <= "177":
            yield chr(int(digits, 8)) + piece[3:]
        else:
            yield "\\" + piece


def parse_mountinfo(text: str | bytes) -> list[MountInfo]:
    """All mounts, in the kernel's order. ValueError names a line that does not follow the format.

    Lines end at a newline alone: other separators of str.splitlines() are not escaped and may be part of a name.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return [MountInfo(line) for line in text.split("\n") if line]
