"""Variables from files, as systemd.exec(5) has them under EnvironmentFile=. The files are the guest's: hostile."""

from __future__ import annotations

import os
import stat

from lcinit.errors import SystemFailure
from lcinit.linux import files
from lcinit.linux.calls import AT_FDCWD

_LARGEST = 1 << 20
_BLANK = " \t"


def read(path: str) -> dict[str, str]:
    """The variables of a file; none where it is missing and `path` begins with `-`. Raises OSError, SystemFailure.

    A regular file is read, never a FIFO waited for, and no magic link is followed.
    """
    optional = path.startswith("-")
    path = path.removeprefix("-")
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        file = files.openat2(AT_FDCWD, path, flags, 0, files.RESOLVE_NO_MAGICLINKS)
    except FileNotFoundError:
        if optional:
            return {}
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise SystemFailure(f"environment_file {path} is not a regular file of at most {_LARGEST} bytes")
        with open(file, "rb", closefd=False) as reader:
            text = reader.read(_LARGEST)
    finally:
        os.close(file)
    return parse(text.decode("utf-8", "surrogateescape"))


def parse(text: str) -> dict[str, str]:
    """NAME=VALUE lines. `#` and `;` begin a comment line; `\\` before a line's end goes on with the next line.

    Within single quotes all is literal, within double quotes `\\` takes the meaning of `"`, `\\`, `` ` `` and `$`;
    without quotes it takes that of any character, and blanks at both ends are left out. A line without a name is passed
    over.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        while at < len(text) and text[at] in _BLANK + "\r\n":
            at += 1
        if text[at : at + 1] in ("#", ";"):
            at = _end_of_comment(text, at)
            continue
        end = at
        while end < len(text) and text[end] not in "=\n":
            end += 1
        name = text[at:end].strip(_BLANK)
        if text[end : end + 1] != "=":
            at = end + 1
            continue
        value, at = _value(text, end + 1)
        if _is_name(name) and "\0" not in value:
            found[name] = value
    return found


def _end_of_comment(text: str, at: int) -> int:
    while at < len(text) and text[at] != "\n":
        at += 2 if text[at] == "\\" else 1
    return at + 1


def _is_name(name: str) -> bool:
    return name.isascii() and name.replace("_", "a").isalnum() and not name[:1].isdigit()


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins there, and where its line ends."""
    value: list[str] = []
    kept = 0  # how much of it stays although it ends with blanks
    quote = ""
    while at < len(text):
        char = text[at]
        at += 1
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and text[at : at + 1] in ('"', "\\", "`", "$"):
                value.append(text[at])
                at += 1
            elif char == "\\" and quote == '"' and text[at : at + 1] == "\n":
                at += 1
            else:
                value.append(char)
            kept = len(value)
        elif char == "\n":
            break
        elif char in ("'", '"'):
            quote = char
            kept = len(value)
        elif char == "\\":
            if at < len(text) and text[at] != "\n":
                value.append(text[at])
                kept = len(value)
            at += 1
        elif char in _BLANK + "\r":
            if value or kept:
                value.append(char)
        else:
            value.append(char)
            kept = len(value)
    return "".join(value[:kept]), at
