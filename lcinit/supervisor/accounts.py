"""Users and groups of a root by its own /etc/passwd and /etc/group, without NSS: that would load the guest's code."""

from __future__ import annotations

import os
import stat

from lcinit.errors import EX_CONFIG, SystemFailure
from lcinit.linux import files
from lcinit.record import Record
from lcinit.supervisor.program import Identity

_LARGEST = 4 << 20
_NO_ID = 2**32 - 1


def identity(
    root_fd: int, user: str | int | None, group: str | int | None, groups: tuple[str | int, ...] = ()
) -> Identity | None:
    """Numbers for names (passwd(5), group(5)) in the root of a handle; None where neither user nor group is given.

    A user's group is that of its passwd line unless `group` is given; without `groups` it gets the supplementary
    groups of its name. A number needs no line. Raises SystemFailure (exit code 78) for an unknown name.
    """
    if user is None and group is None:
        return None
    uid, gid, name = 0, 0, "root"
    if user is not None:
        uid, gid, name = _user(root_fd, user)
    if group is not None:
        gid = _group(root_fd, group)
    supplementary = tuple(_group(root_fd, each) for each in groups) if groups else _groups_of(root_fd, name)
    return Identity(uid=uid, gid=gid, groups=tuple(dict.fromkeys((gid, *supplementary))))


class Account(Record):
    """A user as passwd(5) has it; `home` and `shell` may be empty or lead nowhere."""

    name: str
    identity: Identity
    home: str = "/"
    shell: str = ""


def account(root_fd: int, user: str | int) -> Account:
    """The whole line of a user, with its groups. A number needs no line, and neither does `root`.

    Raises SystemFailure (exit code 78) for an unknown name.
    """
    fields = _entry(root_fd, user)
    if fields is not None:
        uid, gid, name = int(fields[2]), int(fields[3]), fields[0]
        groups = tuple(dict.fromkeys((gid, *_groups_of(root_fd, name))))
        return Account(name=name, identity=Identity(uid=uid, gid=gid, groups=groups), home=fields[5], shell=fields[6])
    number = 0 if user == "root" else user
    if isinstance(number, int):
        return Account(name=str(user), identity=Identity(uid=number, gid=number, groups=(number,)))
    raise _unknown_user(number)


def _user(root_fd: int, user: str | int) -> tuple[int, int, str]:
    fields = _entry(root_fd, user)
    if fields is not None:
        return int(fields[2]), int(fields[3]), fields[0]
    if isinstance(user, int):
        return user, user, ""
    raise _unknown_user(user)


def _entry(root_fd: int, user: str | int) -> list[str] | None:
    """The first passwd line of a name or a number."""
    field, wanted = (2, str(user)) if isinstance(user, int) else (0, user)
    return next((fields for fields in _lines(root_fd, "etc/passwd", 7) if fields[field] == wanted), None)


def _unknown_user(user: str) -> SystemFailure:
    return SystemFailure(f"no user {user!r} in /etc/passwd", hint="name one that is there", exit_code=EX_CONFIG)


def _group(root_fd: int, group: str | int) -> int:
    if isinstance(group, int):
        return group
    for fields in _lines(root_fd, "etc/group", 4):
        if fields[0] == group:
            return int(fields[2])
    raise SystemFailure(f"no group {group!r} in /etc/group", hint="name one that is there", exit_code=EX_CONFIG)


def _groups_of(root_fd: int, name: str) -> tuple[int, ...]:
    return tuple(int(f[2]) for f in _lines(root_fd, "etc/group", 4) if name and name in f[3].split(","))


def _lines(root_fd: int, path: str, fields: int) -> list[list[str]]:
    """The well-formed lines of an account file; none where it is missing. The file is hostile: a regular one only."""
    try:
        file = files.openat2(
            root_fd,
            path,
            os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            0,
            files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS,
        )
    except FileNotFoundError:
        return []
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise SystemFailure(f"/{path} is not a regular file of at most {_LARGEST} bytes")
        text = os.read(file, _LARGEST).decode("utf-8", "surrogateescape")
    finally:
        os.close(file)
    split = [line.split(":") for line in text.split("\n")]
    numbers = (2, 3) if fields == 7 else (2,)
    return [f for f in split if len(f) == fields and all(_is_id(f[n]) for n in numbers)]


def _is_id(text: str) -> bool:
    """Whether an account file's number is an id. 4294967295 is none: setresuid(2) takes it for "leave it as it is"."""
    return text.isascii() and text.isdigit() and len(text) <= len(str(_NO_ID)) and int(text) < _NO_ID
