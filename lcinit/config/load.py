"""Reading a configuration file: the one way from /mnt/init.yml to a Config.

Nothing else of this package, and no YAML, is imported until there is a file to read.
"""

from __future__ import annotations

import errno
import os
import stat

from lcinit.config.values import Config
from lcinit.errors import EX_NOPERM, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEFAULT_PATH: Final = "/mnt/init.yml"
MAX_BYTES: Final = 1 << 20
"""The longest file that is read."""


def load(path: str | None = None, default: str = DEFAULT_PATH) -> Config:
    """The configuration in the file `path`; without one that in `default`, and all defaults where that is absent.

    Raises ConfigError (exit code 78; 77 when reading it is not permitted): for a file that cannot be read with the
    cause, for a wrong one with every problem it has.
    """
    if path is None:
        # lexists: a link that leads nowhere is a mistake, not the wish for defaults.
        if not os.path.lexists(default):
            return Config()
        path = default
    return parse(read_file(path), path)


def parse(text: bytes, name: str) -> Config:
    """The configuration that `text` means. Raises InvalidFile, a ConfigError, with every problem in it."""
    from lcinit.config.checks import check
    from lcinit.config.diagnostics import Problems
    from lcinit.config.document import NULL, compose
    from lcinit.config.schema import CONFIG
    from lcinit.config.shapes import Reading

    problems = Problems(name)
    node = compose(text, problems)
    reading = Reading(problems)
    config = Config() if node.kind == NULL else CONFIG.read(node, "", reading)
    check(reading)
    problems.raise_if_any()
    if not isinstance(config, Config):
        raise AssertionError("a configuration that is invalid without a problem")
    return config


def read_file(path: str) -> bytes:
    """The content of a regular file, or of /dev/null, at most MAX_BYTES of it. ConfigError says why it cannot be read.

    Never waits: a FIFO, a terminal or a device is refused after an open that does not block.
    """
    if "\0" in path:
        raise ConfigError(f"cannot read {path!r}: the path holds a NUL byte", hint="write the file's path")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not _is_null(status):
            kind = _kind(status.st_mode)
            raise ConfigError(f"cannot read {path}: it is {kind}", hint="name a regular file")
        chunks: list[bytes] = []
        length = 0
        while length <= MAX_BYTES and (chunk := os.read(descriptor, MAX_BYTES + 1 - length)):
            chunks.append(chunk)
            length += len(chunk)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)
    if length > MAX_BYTES:
        raise ConfigError(f"cannot read {path}: it is longer than {MAX_BYTES} bytes", hint="write a shorter file")
    return b"".join(chunks)


def _is_null(status: os.stat_result) -> bool:
    """Whether this is /dev/null, with which users say "an empty file"."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def _unreadable(path: str, error: OSError) -> ConfigError:
    hints = {
        errno.ENOENT: "name a file that is there",
        errno.EACCES: "make it readable to lcinit",
        errno.EPERM: "make it readable to lcinit",
        errno.ENXIO: "name a regular file: this is a socket or a device without a driver",
    }
    code = EX_NOPERM if error.errno in (errno.EACCES, errno.EPERM) else None
    message = f"cannot read {path}: {error.strerror or error}"
    return ConfigError(message, hint=hints.get(error.errno or 0, "name a regular file"), exit_code=code)
