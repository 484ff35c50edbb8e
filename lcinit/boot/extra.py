"""`mounts` and `fstab`: what the user brings into the guest, before the user namespace exists, so that it is locked.

A source is a path of the boot root. The guest's own files must not choose what is mounted, so a source inside the
guest root is reached without following any link.
"""

from __future__ import annotations

import os
import stat

from lcinit import log
from lcinit.boot import mounts, sources, targets
from lcinit.boot.world import World
from lcinit.config.fstab import parse_fstab
from lcinit.config.values import Mount
from lcinit.errors import SystemFailure
from lcinit.linux import files, mount
from lcinit.plan import steps as s

# Words of mount(8) that ask for what a mount is anyway; the configuration has taken out those that mean nothing here.
NEUTRAL = frozenset(("rw", "suid", "exec", "relatime", "nofail"))
LARGEST_FSTAB = 1 << 20


def mount_extra(world: World, step: s.MountExtra) -> None:
    """One of `mounts`."""
    _mount(
        world, Mount(source=step.source, target=step.target, type=step.fstype, options=step.options, id_map=step.id_map)
    )


def mount_fstab(world: World, step: s.MountFstab) -> None:
    """Every line, in order. One with `nofail` that cannot be mounted is told and passed over."""
    for entry in parse_fstab(_read_fstab(world, step.path), step.path):
        try:
            _mount(world, entry)
        except (OSError, SystemFailure) as error:
            if "nofail" not in entry.options:
                raise
            log.warning(f"{step.path}: {entry.target} is not mounted (nofail): {error}")


def _read_fstab(world: World, path: str) -> bytes:
    """The file's text. One that lies in the guest root would have the guest say what of the outside it is given."""
    handle = sources.open_source(world, path, "fstab")
    try:
        if sources.is_in(sources.root_path(world), handle):
            raise SystemFailure(f"refused: fstab: {path} is a file of the guest", hint="keep it in the boot root")
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FSTAB:
            raise SystemFailure(f"fstab: {path} is not a regular file of at most {LARGEST_FSTAB} bytes")
        file = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(handle)
    try:
        return os.read(file, LARGEST_FSTAB)
    finally:
        os.close(file)


def _mount(world: World, entry: Mount) -> None:
    attributes, rest = split_options(entry.options)
    recursive = "rbind" in rest
    if entry.type is None:
        unknown = [word for word in rest if word != "rbind"]
        if unknown:
            raise SystemFailure(f"mounts: /{entry.target}: {unknown[0]!r} is no option of a bind mount")
        fd = _bind(world, entry.source or "", recursive=recursive)
    else:
        source = _resolved(world, entry.source) if entry.source else entry.type
        options = _file_system_options(rest)
        if "ro" in entry.options:
            options["ro"] = None  # for the file system too: its device may be read-only
        fd = mount.new_mount(entry.type, options, 0, source=source)
    try:
        mounts.set_id_map(fd, entry.id_map, attributes | mount.MOUNT_ATTR_NODEV, recursive=recursive)
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        target = _target(world, entry.target.strip("/"), directory=directory)
        try:
            mounts.attach(fd, target)
        finally:
            os.close(target)
    finally:
        os.close(fd)


def split_options(options: tuple[str, ...]) -> tuple[int, list[str]]:
    """mount(8) words → mount attributes, and the words that the file system itself must understand."""
    attributes = 0
    rest = []
    for word in options:
        if word in mounts.ATTRIBUTES:
            attributes |= mounts.ATTRIBUTES[word]
        elif word not in NEUTRAL:
            rest.append(word)
    return attributes, rest


def _file_system_options(words: list[str]) -> dict[str, str | None]:
    options: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        options[key] = value if equals else None
    return options


def _bind(world: World, source: str, *, recursive: bool) -> int:
    handle = sources.open_source(world, source)
    try:
        return mounts.clone_handle(handle, recursive=recursive)
    finally:
        os.close(handle)


def _resolved(world: World, source: str) -> str:
    """The source of a file system as the kernel will look it up: a path, if it is one, that no link can lead astray."""
    if not source.startswith("/") or not os.path.lexists(source):
        return source  # tmpfs, server:/export, a tag
    handle = sources.open_source(world, source)
    try:
        if sources.is_in(sources.root_path(world), handle):
            raise SystemFailure(f"refused: the mount source {source} is a file of the guest")
        return sources.path_of(handle)
    finally:
        os.close(handle)


def _target(world: World, path: str, *, directory: bool) -> int:
    """A target chosen by the user: links of the guest are followed, inside its root only (/lib is rightfully one)."""
    try:
        handle = files.openat2(
            world.root_fd,
            path,
            os.O_PATH | os.O_CLOEXEC,
            0,
            files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS,
        )
    except FileNotFoundError:
        return targets.directory(world, path) if directory else targets.regular_file(world, path)
    except OSError as error:
        raise targets.refusal(world, path, error) from error
    if stat.S_ISDIR(os.fstat(handle).st_mode) != directory:
        os.close(handle)
        kind = "directory" if directory else "file"
        raise SystemFailure(f"mounts: /{path} in the guest root is not a {kind} as its source is")
    return handle
