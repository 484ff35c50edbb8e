"""Which services start with their runlevels: links in /etc/lcinit/enabled of the guest, one of each service's name."""

from __future__ import annotations

import errno
import os

from lcinit.errors import EX_NOPERM, SystemFailure
from lcinit.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_RESOLVE = files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Enabling:
    """The links of the guest whose root is `root_fd`; `directory` is where its service files are."""

    def __init__(self, root_fd: int, directory: str) -> None:
        self._root_fd = root_fd
        self._services = directory
        self._place = os.path.join(os.path.dirname(directory), "enabled")

    def enable(self, names: Sequence[str]) -> list[str]:
        """Make the links that are missing; the names of these. Raises SystemFailure."""
        try:
            directory = self._open(make=True)
            try:
                return [name for name in names if self._link(directory, name)]
            finally:
                os.close(directory)
        except OSError as error:
            raise self._failed("enable", names, error) from error

    def disable(self, names: Sequence[str]) -> list[str]:
        """Remove the links that are there; the names of these. Raises SystemFailure."""
        try:
            directory = self._open(make=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed("disable", names, error) from error
        try:
            return [name for name in names if _unlink(directory, name)]
        except OSError as error:
            raise self._failed("disable", names, error) from error
        finally:
            os.close(directory)

    def _open(self, *, make: bool) -> int:
        parent, name = os.path.split(self._place.strip("/"))
        if make:
            self._make(parent)
        above = files.openat2(self._root_fd, parent or ".", _DIRECTORY, 0, _RESOLVE)
        try:
            if make:
                _make(above, name)
            return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)

    def _make(self, path: str) -> None:
        """The directory of a path, with those above it, below the guest's root."""
        above = os.dup(self._root_fd)
        try:
            for part in path.split("/"):
                _make(above, part)
                below = files.openat2(above, part, _DIRECTORY, 0, _RESOLVE | files.RESOLVE_NO_SYMLINKS)
                os.close(above)
                above = below
        finally:
            os.close(above)

    def _link(self, directory: int, name: str) -> bool:
        try:
            os.symlink(f"../{os.path.basename(self._services)}/{name}.yml", name, dir_fd=directory)
        except FileExistsError:
            return False
        return True

    def _failed(self, what: str, names: Sequence[str], error: OSError) -> SystemFailure:
        hint = ""
        if error.errno == errno.EROFS:
            hint = "the guest's root is read-only: name the service under `services` of the configuration"
        failure = SystemFailure.from_os_error(f"{what} {', '.join(names)} in {self._place}", error, hint=hint)
        if error.errno == errno.EROFS:
            failure.exit_code = EX_NOPERM
        return failure


def _make(directory: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=directory)
    except FileExistsError:
        pass


def _unlink(directory: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True
