"""fstab(5): a file of the boot root that lists mounts for the guest."""

from __future__ import annotations

from lcinit.config.diagnostics import Problems, Unfit, quoted
from lcinit.config.mounts import normalise, parse_path
from lcinit.config.values import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_FIELDS: Final = 6
_ESCAPED: Final = {"040": " ", "011": "\t", "012": "\n", "134": "\\", "043": "#"}
"""What fstab(5) and getmntent(3) write as a backslash and three octal digits."""


def parse_fstab(text: bytes, name: str) -> tuple[Mount, ...]:
    """The mounts that the lines of an fstab(5) ask for, in their order.

    As with `mount -a`, lines with `noauto` and those for swap are left out; so is the line of `/`, which is the guest
    root already. `nofail` stays among the options. Raises InvalidFile, a ConfigError, with every wrong line.
    """
    problems = Problems(name)
    mounts = []
    for number, line in enumerate(text.split(b"\n"), 1):
        # Names of files are bytes: what is not UTF-8 goes through as it is.
        fields = _fields(line.decode("utf-8", "surrogateescape"))
        if not fields or fields[0][1].startswith("#"):
            continue
        mount = _mount(fields, number, problems)
        if mount is not None:
            mounts.append(mount)
    problems.raise_if_any()
    return tuple(mounts)


def _fields(line: str) -> list[tuple[int, str]]:
    """The fields of a line with their columns, from 1; blanks and tabs are between them."""
    fields = []
    start = 0
    for at, character in enumerate(f"{line} ".replace("\r ", "  ")):
        if character in " \t":
            if at > start:
                fields.append((start + 1, line[start:at]))
            start = at + 1
    return fields


def _mount(fields: list[tuple[int, str]], line: int, problems: Problems) -> Mount | None:
    if len(fields) < 3 or len(fields) > MAX_FIELDS:
        what = f"has {len(fields)} fields"
        right = "write SOURCE TARGET TYPE [OPTIONS [DUMP [PASS]]], a blank within a field as \\040"
        problems.add(line, fields[0][0], "(line)", what, right)
        return None
    places = dict(zip(("source", "target", "type", "options", "dump", "pass"), fields, strict=False))
    valid = True
    for key in ("dump", "pass"):
        column, word = places.get(key, (0, "0"))
        if not (word.isascii() and word.isdigit()):
            valid = False
            problems.add(line, column, key, f"{quoted(word)} is no number", "write 0, or leave it out")
    values = {}
    for key in ("source", "target", "type", "options"):
        column, word = places.get(key, (0, ""))
        try:
            values[key] = _unescape(word)
        except Unfit as unfit:
            valid = False
            problems.add(line, column, key, unfit.what, unfit.right)
    if not valid:
        return None
    options = tuple(option for option in values["options"].split(",") if option)
    if values["type"] == "swap" or "noauto" in options or values["target"] == "/":
        return None
    column = places["target"][0]
    try:
        target = parse_path(values["target"])
        column = places["source"][0]
        mount = Mount(source=values["source"], target=target, type=values["type"], options=options)
        return normalise(mount, fstab=True)
    except Unfit as unfit:
        problems.add(line, column, "target" if column == places["target"][0] else "(line)", unfit.what, unfit.right)
        return None


def _unescape(word: str) -> str:
    if "\0" in word:
        raise Unfit("holds a NUL byte", "no path can hold one")
    head, *rest = word.split("\\")
    parts = [head]
    for part in rest:
        if part[:3] not in _ESCAPED:
            right = "write a blank as \\040, a tab as \\011, a newline as \\012, a backslash as \\134"
            raise Unfit(f"the escape {quoted(chr(92) + part[:3])} is not one of fstab(5)", right)
        parts.append(_ESCAPED[part[:3]] + part[3:])
    return "".join(parts)
