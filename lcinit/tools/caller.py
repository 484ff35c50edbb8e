"""Who calls, and which ids the caller may map: read from the kernel and from /etc/subuid and /etc/subgid."""

from __future__ import annotations

import os
import pwd
import shutil
import stat

from lcinit.errors import EX_CONFIG, SystemFailure
from lcinit.linux import capabilities
from lcinit.tools import id_ranges, subids
from lcinit.tools.contain_options import FILES, PROGRAMS, SIDES, Side

_LARGEST = 1 << 20
_NEEDED = ("setuid", "setgid", "sys_admin")


def is_privileged() -> bool:
    """Whether the caller is root with what it takes to write any id map and to mount."""
    return os.geteuid() == 0 and all(capabilities.has_capability(name) for name in _NEEDED)


def sides(name: str) -> tuple[Side, Side]:
    """What there is to choose the uid map and the gid map of `name` (run, contain or pseudo) from."""
    privileged = is_privileged()
    user = _user_name()
    uid, gid = (_side(kind, name, user, privileged=privileged) for kind in SIDES)
    return uid, gid


def _side(kind: str, name: str, user: str, *, privileged: bool) -> Side:
    own_id = os.getuid() if kind == "uid" else os.getgid()
    text = _read(f"/proc/self/{kind}_map")
    below = [outside for inside, outside, _ in id_ranges.parse_id_map(_read("/proc/self/uid_map")) if inside == 0]
    ranges: list[subids.SubRange] = []
    problems: list[str] = []
    used: tuple[tuple[int, int], ...] = ()
    if name == "run" or not privileged:
        lines, broken = subids.parse(_read(FILES[kind], missing=""), FILES[kind])
        ranges, unusable = subids.delegated(lines, (user, str(os.getuid())))
        problems = broken + unusable
        used = _used(kind) if privileged and ranges else ()
    return Side(
        kind=kind,  # type: ignore[arg-type]
        own_id=own_id,
        own=tuple(id_ranges.own_ids(text)),
        privileged=privileged,
        root_below=bool(below) and below[0] != 0,
        delegated=tuple(ranges),
        problems=tuple(problems),
        program=shutil.which(PROGRAMS[kind]) is not None,
        user=user,
        used=used,
    )


def _user_name() -> str:
    if os.getuid() == 0:
        return "root"  # whatever it is called, the files and the rules name it so
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _used(kind: str) -> tuple[tuple[int, int], ...]:
    """The `(first, size)` of the maps of all processes that run in user namespaces below this one."""
    own = _read(f"/proc/self/{kind}_map")
    found: set[tuple[int, int]] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            text = _read(f"/proc/{name}/{kind}_map")
        except SystemFailure:
            continue  # it has ended
        if text != own:
            found.update((outside, size) for _, outside, size in id_ranges.parse_id_map(text))
    return tuple(sorted(found))


def _read(path: str, missing: str | None = None) -> str:
    """The text of a regular file; `missing` where there is none. Raises SystemFailure."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if missing is not None:
            return missing
        raise SystemFailure.from_os_error(f"read {path}", error) from error
    except OSError as error:
        raise SystemFailure.from_os_error(f"read {path}", error) from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise SystemFailure(f"{path} is not a regular file", exit_code=EX_CONFIG)
        chunks: list[bytes] = []
        while (chunk := os.read(file, _LARGEST)) and sum(map(len, chunks)) < _LARGEST:
            chunks.append(chunk)
    except OSError as error:
        raise SystemFailure.from_os_error(f"read {path}", error) from error
    finally:
        os.close(file)
    return b"".join(chunks).decode("utf-8", "surrogateescape")
