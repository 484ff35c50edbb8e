"""What services need of a PID 1 that is still small: the spawner, and the functions that its children run.

It is forked as soon as a configuration looks as if it had services: whatever PID 1 imports later, the spawner and its
children never have. What only the functions need is held, and imported by the child that runs one.
"""

from __future__ import annotations

import _json  # noqa: F401 - a library of its own
import os

from lcinit.boot import guard, held, own
from lcinit.supervisor.spawner import Spawner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    Function = Callable[[list[int]], int]


_LOGGER = ("log_writer", "log_console", "log_files", "log_lines", "log_output", "log_source")
_LOOKS = ("path_work", "path_messages", "enabling", "pid_look", "pid_file", "notifications")
FOR_FUNCTIONS = (
    *(f"lcinit.service.{name}" for name in (*_LOGGER, *_LOOKS)),
    *(f"lcinit.control.{name}" for name in ("fifo", "initctl_places", "socket_place")),
    *("lcinit.config.service_values", "lcinit.linux.pipes"),
)


class Early:
    """The spawner, before it is known whether there are services."""

    def __init__(self, path: str | None) -> None:
        """With the path that the configuration is read from. Raises SystemFailure."""
        argv = own.reader(path)
        functions: dict[str, Function] = {
            "logger": _write_logs,
            "path-work": _work_at_paths,
            "pid-file": _look_for_pid,
            "reader": lambda descriptors: _become_reader(argv, descriptors),
        }
        held.hold(*FOR_FUNCTIONS)
        self.spawner = Spawner.start(functions, close_imports=guard.close)

    @property
    def pid(self) -> int:
        """The spawner's."""
        return self.spawner.pid

    def close(self) -> None:
        """There are no services: have it end, and wait for that."""
        self.spawner.close()
        os.waitpid(self.pid, 0)


def _write_logs(descriptors: list[int]) -> int:
    from lcinit.service import log_writer

    return log_writer.run(descriptors)


def _work_at_paths(descriptors: list[int]) -> int:
    from lcinit.service import path_work

    return path_work.run(descriptors)


def _look_for_pid(descriptors: list[int]) -> int:
    from lcinit.service import pid_look

    return pid_look.run(descriptors)


def _become_reader(argv: list[str], descriptors: list[int]) -> Never:
    """Become a reader of service files in the root that is the first descriptor; the other one is its socket."""
    root, channel = descriptors
    os.fchdir(root)
    os.chroot(".")
    os.dup2(channel, 0)
    os.execve(argv[0], argv, {})
