"""What services need of a PID 1 that is still small: the spawner, and the functions that its children run.

It is forked as soon as a configuration looks as if it had services: whatever PID 1 imports later, the spawner and its
children never have.
"""

from __future__ import annotations

import os

from lcinit.boot import guard, own
from lcinit.service import log_writer, path_work, pid_look
from lcinit.supervisor.spawner import Spawner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    Function = Callable[[list[int]], int]


class Early:
    """The spawner, before it is known whether there are services."""

    def __init__(self, path: str | None) -> None:
        """With the path that the configuration is read from. Raises SystemFailure."""
        argv = own.reader(path)
        functions: dict[str, Function] = {
            "logger": log_writer.run,
            "path-work": path_work.run,
            "pid-file": pid_look.run,
            "reader": lambda descriptors: _become_reader(argv, descriptors),
        }
        self.spawner = Spawner.start(functions, close_imports=guard.close)

    @property
    def pid(self) -> int:
        """The spawner's."""
        return self.spawner.pid

    def close(self) -> None:
        """There are no services: have it end, and wait for that."""
        self.spawner.close()
        os.waitpid(self.pid, 0)


def _become_reader(argv: list[str], descriptors: list[int]) -> Never:
    """Become a reader of service files in the root that is the first descriptor; the other one is its socket."""
    root, channel = descriptors
    os.fchdir(root)
    os.chroot(".")
    os.dup2(channel, 0)
    os.execve(argv[0], argv, {})
