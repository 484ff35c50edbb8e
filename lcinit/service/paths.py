"""What PID 1 wants done at paths of the guest while services run: by a process, because they can mount there what never
answers. Each kind of work has its own, so that one that is held up keeps no other waiting.
"""

from __future__ import annotations

import asyncio

from lcinit.control.waiting import Waiting
from lcinit.errors import EX_UNAVAILABLE, LcinitError
from lcinit.service.path_process import PathProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from lcinit.control.initctl_places import Places
    from lcinit.control.socket_place import SocketPlace
    from lcinit.service.launch import Launcher

    Socket = tuple[int, str, tuple[int, int]]
    """A handle of its directory, its name in it, its device and inode."""

MOST_WAITING = 16  # calls of enable and disable
LAST_PATIENCE = 1.0  # seconds for what is taken away at the end


class Paths:
    """Of the guest whose root is `root_fd`; `services` is the directory of its service files. Needs the loop."""

    def __init__(self, launcher: Launcher, root_fd: int, services: str) -> None:
        self._root_fd = root_fd
        self._directory = services
        self._enabling, self._initctl, self._control, self._end = (PathProcess(launcher) for _ in range(4))
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, what: str, names: tuple[str, ...], then: Callable[[tuple[str, ...]], object]) -> Waiting:
        """Have services enabled or disabled, as `what` says; `then` is called with their names when that is done."""
        if len(self._tasks) >= MOST_WAITING:
            raise LcinitError(f"too many others wait for {what}", hint="try again", exit_code=EX_UNAVAILABLE)
        waiting = Waiting()
        task = asyncio.get_running_loop().create_task(self._enable(waiting, what, names, then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return waiting

    async def _enable(
        self, waiting: Waiting, what: str, names: tuple[str, ...], then: Callable[[tuple[str, ...]], object]
    ) -> None:
        try:
            order = {"directory": self._directory, "names": [*names]}
            doing = f"{what} {', '.join(names)}"
            changed, _ = await self._enabling.do(what, order, (self._root_fd,), doing)
            then(names)
            waiting.finish({"changed": changed})
        except Exception as error:
            waiting.fail(error)

    async def initctl(self, what: str, order: dict[str, Any], descriptors: list[int]) -> tuple[Any, list[int]]:
        """For InitctlService."""
        return await self._initctl.do(what, order, descriptors, f"see to {' and '.join(order['paths'])}")

    async def bind(self, place: SocketPlace) -> int:
        """For ControlServer: a socket to listen on, and `place` knows where it stands."""
        doing = f"make the control socket {place.path}"
        made, (listener, directory) = await self._control.do("listen", place.path, (), doing)
        place.take(directory, made)
        return listener

    async def remove(self, sockets: Sequence[Socket], initctl: Places | None) -> None:
        """Take away what lcinit has made, as far as it goes. Raises LcinitError where that takes long."""
        left = [socket for socket in sockets if socket[0] >= 0]
        order, descriptors = (None, []) if initctl is None else initctl.order()
        orders = {"sockets": [(name, made) for _, name, made in left], "initctl": order}
        given = [*(directory for directory, _, _ in left), *descriptors]
        await self._end.do("remove", orders, given, "remove lcinit's sockets and FIFO", seconds=LAST_PATIENCE)
