"""From service files to services: the catalogue's, the guest's, and those of the configuration itself.

What the guest has is hostile: it is read by handles, up to a size, and never waited for; a file that is wrong is the
trouble of its service alone.
"""

from __future__ import annotations

import os
import stat

from lcinit.config.diagnostics import Problems
from lcinit.config.document import NULL, compose
from lcinit.config.service_checks import merge
from lcinit.config.service_names import is_name
from lcinit.config.service_schema import SERVICE
from lcinit.config.service_values import Broken, Catalogue, GuestFiles, ServicePart
from lcinit.config.shapes import INVALID, Reading
from lcinit.errors import LcinitError
from lcinit.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from lcinit.config.service_values import Service

SUFFIX: Final = ".yml"
LARGEST: Final = 64 * 1024
MOST_FILES: Final = 4096
_RESOLVE: Final = files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def parse_service(data: bytes, origin: str, name: str) -> ServicePart:
    """What one file says. Raises InvalidFile with every problem."""
    problems = Problems(origin)
    node = compose(data, problems)
    part = ServicePart(name=name, origin=origin)
    if node.kind != NULL:
        read = SERVICE.read(node, "", Reading(problems))
        part = part if read is INVALID else read.replace(name=name)
    problems.raise_if_any()
    return part


def read_catalogue(directory: str) -> Callable[[str], bytes | None]:
    """What gives a file of a trusted directory by its service's name, None where there is none."""
    try:
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return lambda _name: None

    def read(name: str) -> bytes | None:
        try:
            return _read(handle, f"{name}{SUFFIX}")
        except FileNotFoundError:
            return None

    return read


def read_guest(root_fd: int, directory: str) -> GuestFiles:
    """The service files of a guest by the handle of its root, and which services it enables."""
    broken: list[Broken] = []
    contents: list[tuple[str, bytes]] = []
    for entry in _entries(root_fd, directory, broken):
        name, suffix = entry[: -len(SUFFIX)], entry[-len(SUFFIX) :]
        if suffix != SUFFIX or entry.startswith("."):
            continue
        path = f"{directory}/{entry}"
        if not is_name(name):
            broken.append(Broken(name=name, text=f"{path}: no service can have this name; rename the file"))
            continue
        try:
            contents.append((name, _read(root_fd, path)))
        except LcinitError as error:
            broken.append(Broken(name=name, text=str(error)))
        except OSError as error:
            broken.append(Broken(name=name, text=f"cannot read {path}: {error.strerror}; mend it or remove it"))
    enabled = [name for name in _entries(root_fd, f"{os.path.dirname(directory)}/enabled", broken) if name[0] != "."]
    return GuestFiles(directory=directory, contents=tuple(contents), enabled=tuple(enabled), broken=tuple(broken))


def _entries(root_fd: int, directory: str, broken: list[Broken]) -> list[str]:
    try:
        handle = files.openat2(root_fd, directory, _DIRECTORY, 0, _RESOLVE)
    except FileNotFoundError:
        return []
    except OSError as error:
        broken.append(Broken(name=directory, text=f"cannot read {directory}: {error.strerror}; make it a directory"))
        return []
    try:
        found: list[str] = []
        with os.scandir(handle) as entries:
            for entry in entries:
                if len(found) == MOST_FILES:
                    text = f"{directory}: holds more than {MOST_FILES} entries, some are not read; remove some"
                    broken.append(Broken(name=directory, text=text))
                    break
                found.append(entry.name)
        return sorted(found)
    finally:
        os.close(handle)


def _read(directory: int, path: str) -> bytes:
    """A regular file, at most LARGEST bytes. Raises OSError, LcinitError. Never waits."""
    fd = files.openat2(directory, path, _FILE, 0, _RESOLVE)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise LcinitError(f"cannot read {path}: it is no regular file", hint="write a file there, or remove it")
        chunks = []
        size = 0
        while size <= LARGEST and (chunk := os.read(fd, LARGEST + 1 - size)):
            chunks.append(chunk)
            size += len(chunk)
    finally:
        os.close(fd)
    if size > LARGEST:
        raise LcinitError(f"cannot read {path}: it is longer than {LARGEST} bytes", hint="write a shorter file")
    return b"".join(chunks)


def combine(
    inline: tuple[ServicePart, ...],
    read_catalogue_file: Callable[[str], bytes | None],
    guest: GuestFiles,
    catalogue_origin: str,
) -> Catalogue:
    """All services that are named anywhere, and those that they require or want: the catalogue's, the guest's over it,
    the configuration's over both. Those of the configuration are enabled, and those that the guest enables.
    """
    own = {part.name: part for part in inline}
    theirs = dict(guest.contents)
    broken = {each.name: each for each in guest.broken}
    pending = sorted({*own, *theirs, *(name for name in guest.enabled if is_name(name))}, reverse=True)
    seen: set[str] = set()
    services: list[Service] = []
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in broken:
            continue
        try:
            parts = _parts(name, read_catalogue_file, catalogue_origin, theirs, guest.directory)
        except LcinitError as error:
            broken[name] = Broken(name=name, text=str(error))
            continue
        if name in own:
            parts.append(own[name])
        if not parts:
            continue  # nobody knows it: whoever requires it is told
        service, mistakes = merge(name, parts)
        if mistakes:
            broken[name] = Broken(name=name, text="\n".join(each.text() for each in mistakes))
            continue
        services.append(service)
        pending += (each for each in (*service.requires, *service.wants) if each not in seen)
    known = {service.name for service in services}
    enabled = {*own, *guest.enabled} & known
    for name in guest.enabled:
        if name not in known and name not in broken:
            text = f"{os.path.dirname(guest.directory)}/enabled/{name}: there is no such service; remove the link"
            broken[name] = Broken(name=name, text=text)
    services.sort(key=lambda service: service.name)
    return Catalogue(services=tuple(services), enabled=tuple(sorted(enabled)), broken=tuple(broken.values()))


def _parts(
    name: str,
    read_catalogue_file: Callable[[str], bytes | None],
    catalogue_origin: str,
    theirs: dict[str, bytes],
    directory: str,
) -> list[ServicePart]:
    """What the catalogue and the guest say of a service. Raises InvalidFile."""
    parts = []
    shipped = read_catalogue_file(name)
    if shipped is not None:
        parts.append(parse_service(shipped, f"{catalogue_origin}/{name}{SUFFIX}", name))
    if name in theirs:
        parts.append(parse_service(theirs[name], f"{directory}/{name}{SUFFIX}", name))
    return parts
