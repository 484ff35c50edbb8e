"""From service files to services: the catalogue's, the guest's, and those of the configuration itself.

What the guest has is hostile: it is read by handles, up to a size, and never waited for; a file that is wrong is the
trouble of its service alone. Whoever parses it may have given up all rights by then, also that to read the library: so
what is imported on demand elsewhere is imported before, see `import_all`.
"""

from __future__ import annotations

import errno
import os
import stat

import lcinit
from lcinit.config.diagnostics import MAX_PROBLEMS, Problems, quoted
from lcinit.config.document import NULL, Allowance, compose
from lcinit.config.service_checks import merge
from lcinit.config.service_names import is_name
from lcinit.config.service_schema import SERVICE
from lcinit.config.service_values import Broken, Catalogue, GuestFiles, ServicePart
from lcinit.config.shapes import INVALID, Reading
from lcinit.config.yaml_parser import yaml_parser
from lcinit.errors import LcinitError, SystemFailure
from lcinit.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from lcinit.config.service_values import Service

SUFFIX: Final = ".yml"
LARGEST: Final = 64 * 1024
"""Bytes of one file."""
LARGEST_TOGETHER: Final = 4 << 20
"""Bytes of all files of a guest: parsing them takes seconds by then."""
MOST_VALUES_TOGETHER: Final = 200_000
"""Values in all files of a guest, their aliases expanded: a short file can stand for thousands."""
MOST_FILES: Final = 4096
"""Entries of a directory that are looked at."""
_MOST_PROBLEMS: Final = 20
_MANY_BROKEN: Final = 50
"""So many services may have all their problems told; of each further one it is the first."""
_MOST_SHOWN: Final = 10
_RESOLVE: Final = files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS
_NEEDED_LATER: Final = (
    *("difflib", "heapq", "ipaddress", "re"),
    *("lcinit.config.other_words", "lcinit.linux.capabilities", "lcinit.linux.signals"),
)
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def import_all() -> None:
    """Import what reading a service file may need, and what telling of mistakes in one needs."""
    yaml_parser()
    for name in _NEEDED_LATER:
        __import__(name)


def catalogue_directory() -> str:
    """Where lcinit's own service files are: in its package, or beside that in a source tree."""
    package = os.path.dirname(lcinit.__file__)
    installed = os.path.join(package, "data", "services")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "services")


def parse_service(
    data: bytes, origin: str, name: str, most_problems: int = MAX_PROBLEMS, allowance: Allowance | None = None
) -> ServicePart:
    """What one file says. Raises InvalidFile with every problem, up to so many."""
    problems = Problems(origin, most_problems)
    node = compose(data, problems, allowance)
    part = ServicePart(name=name, origin=origin)
    if node.kind != NULL:
        read = SERVICE.read(node, "", Reading(problems))
        part = part if read is INVALID else read.replace(name=name)
    problems.raise_if_any()
    return part


def read_catalogue(directory: str) -> Callable[[str], bytes | None]:
    """Reads a trusted directory: what gives a file's content by its service's name, None where there is none.

    That raises LcinitError for a file that could not be read. Nothing is parsed, so those that nobody asks for are
    cheap; and all are read at once, since whoever asks may have given up the right to. Raises SystemFailure.
    """
    contents: dict[str, bytes | LcinitError] = {}
    try:
        handle = os.open(directory, _DIRECTORY)
    except FileNotFoundError:
        return lambda _name: None
    except OSError as error:
        raise SystemFailure.from_os_error(f"read {directory}", error) from error
    try:
        for entry in os.listdir(handle):
            if entry.endswith(SUFFIX):
                name = entry[: -len(SUFFIX)]
                try:
                    contents[name] = _read(handle, entry)
                except (LcinitError, OSError) as error:
                    contents[name] = _unreadable(os.path.join(directory, entry), error)
    finally:
        os.close(handle)

    def read(name: str) -> bytes | None:
        found = contents.get(name)
        if isinstance(found, LcinitError):
            raise found
        return found

    return read


def read_guest(root_fd: int, directory: str) -> GuestFiles:
    """The service files of a guest by the handle of its root, and which services it enables. Never waits.

    What stands where no service can is told as broken under the name of its directory.
    """
    complaints: list[str] = []
    broken: list[Broken] = []
    contents: list[tuple[str, bytes]] = []
    nameless: list[str] = []
    misnamed: list[str] = []
    left = LARGEST_TOGETHER
    for entry in _entries(root_fd, directory, complaints):
        stem, suffix = os.path.splitext(entry)
        if suffix != SUFFIX:
            if suffix.lower() in (".yaml", ".yml"):
                misnamed.append(entry)
            continue
        if not is_name(stem):
            nameless.append(entry)
            continue
        path = f"{directory}/{entry}"
        try:
            data = _read(root_fd, path, min(left, LARGEST))
        except (LcinitError, OSError) as error:
            broken.append(Broken(name=stem, text=str(_unreadable(path, error))))
            continue
        left -= len(data)
        contents.append((stem, data))
    complaints += _complaint(directory, nameless, "no service can have these names", "rename the files")
    complaints += _complaint(directory, misnamed, "these are not read", f"have their names end in {SUFFIX}")
    if complaints:
        broken.append(Broken(name=directory, text="\n".join(complaints)))
    links = f"{os.path.dirname(directory)}/enabled"
    complaints = []
    entries = _entries(root_fd, links, complaints)
    enabled = [name for name in entries if is_name(name)]
    odd = [name for name in entries if not is_name(name)]
    complaints += _complaint(links, odd, "no service can have these names", "remove the links")
    if complaints:
        broken.append(Broken(name=links, text="\n".join(complaints)))
    return GuestFiles(directory=directory, contents=tuple(contents), enabled=tuple(enabled), broken=tuple(broken))


def _complaint(directory: str, names: list[str], what: str, right: str) -> Iterable[str]:
    """One line for all of these names, which the guest chose."""
    if names:
        shown = ", ".join(quoted(name) for name in names[:_MOST_SHOWN])
        more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
        yield f"{directory}: {what}: {shown}{more}; {right}"


def _entries(root_fd: int, directory: str, complaints: list[str]) -> list[str]:
    """The names in a directory, but for hidden ones; nothing where there is none."""
    found: list[str] = []
    try:
        handle = files.openat2(root_fd, directory, _DIRECTORY, 0, _RESOLVE)
    except FileNotFoundError:
        return []
    except OSError as error:
        right = "let root read it" if error.errno == errno.EACCES else "make it a directory"
        complaints.append(f"cannot read {directory}: {_cause(error)}; {right}")
        return []
    try:
        with os.scandir(handle) as entries:
            for number, entry in enumerate(entries):
                if number == MOST_FILES:
                    complaints.append(f"{directory}: holds more than {MOST_FILES} entries; remove what is no service's")
                    break
                if entry.name[0] != ".":
                    found.append(entry.name)
    except OSError as error:
        complaints.append(f"cannot read {directory}: {_cause(error)}; what was not seen is missing")
    finally:
        os.close(handle)
    return sorted(found)


def _read(directory: int, path: str, most: int = LARGEST) -> bytes:
    """A regular file, at most `most` bytes. Raises OSError, LcinitError. Never waits."""
    fd = files.openat2(directory, path, _FILE, 0, _RESOLVE)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise LcinitError("it is no regular file", hint="write a file there, or remove it")
        chunks = []
        size = 0
        while size <= most and (chunk := os.read(fd, most + 1 - size)):
            chunks.append(chunk)
            size += len(chunk)
    finally:
        os.close(fd)
    if size > most:
        if most < LARGEST:
            raise LcinitError(f"all files hold more than {LARGEST_TOGETHER} bytes", hint="write shorter ones")
        raise LcinitError(f"it is longer than {LARGEST} bytes", hint="write a shorter file")
    return b"".join(chunks)


def _unreadable(path: str, error: LcinitError | OSError) -> LcinitError:
    if isinstance(error, LcinitError):
        return LcinitError(f"cannot read {path}: {error.message}", hint=error.hint)
    return LcinitError(f"cannot read {path}: {_cause(error)}", hint="mend it or remove it")


def _cause(error: OSError) -> str:
    """Without the name of the call."""
    return os.strerror(error.errno or 0)


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
    allowance = Allowance(MOST_VALUES_TOGETHER)
    pending = sorted({*own, *theirs, *guest.enabled}, reverse=True)
    seen: set[str] = set(broken)
    services: list[Service] = []
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        most = _MOST_PROBLEMS if len(broken) < _MANY_BROKEN else 1
        try:
            parts = _parts(name, read_catalogue_file, catalogue_origin, theirs, guest.directory, most, allowance)
            if name in own:
                parts.append(own[name])
            if not parts:
                continue  # nobody knows it: whoever requires it is told
            service, mistakes = merge(name, parts)
            text = "\n".join(each.text() for each in mistakes[:most])
            if len(mistakes) > most:
                text = f"{text}\n{mistakes[0].origin}: and more problems"
        except LcinitError as error:
            text = str(error)
        except (MemoryError, RecursionError):
            text = f"{guest.directory}/{name}{SUFFIX}: it takes more memory than there is to read it; write less"
        if text:
            broken[name] = Broken(name=name, text=text)
            continue
        services.append(service)
        pending += (each for each in (*service.requires, *service.wants) if each not in seen)
    services.sort(key=lambda service: service.name)
    known = {service.name for service in services}
    enabled = {*own, *guest.enabled} & known
    for name in guest.enabled:
        if name not in known and name not in broken:
            text = f"{os.path.dirname(guest.directory)}/enabled/{name}: there is no such service; remove the link"
            broken[name] = Broken(name=name, text=text)
    return Catalogue(services=tuple(services), enabled=tuple(sorted(enabled)), broken=tuple(broken.values()))


def _parts(
    name: str,
    read_catalogue_file: Callable[[str], bytes | None],
    catalogue_origin: str,
    theirs: dict[str, bytes],
    directory: str,
    most_problems: int,
    allowance: Allowance,
) -> list[ServicePart]:
    """What the catalogue and the guest say of a service. Raises LcinitError."""
    parts = []
    shipped = read_catalogue_file(name)
    if shipped is not None:
        parts.append(parse_service(shipped, f"{catalogue_origin}/{name}{SUFFIX}", name))
    if name in theirs:
        parts.append(parse_service(theirs[name], f"{directory}/{name}{SUFFIX}", name, most_problems, allowance))
    return parts
