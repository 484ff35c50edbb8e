"""What PID 1 serves beside the guest: the initctl FIFO and the control socket."""

from __future__ import annotations

from lcinit.control.initctl_service import InitctlService
from lcinit.control.service import ControlServer
from lcinit.guest.offered import Offered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.guest.supervisor import Supervisor


class Services:
    """Started when the guest is up; each that cannot be had says so itself and the others go on."""

    def __init__(self, supervisor: Supervisor, listening: int = -1) -> None:
        """`listening` is the control socket of the lcinit before this one."""
        world = supervisor.world
        wanted = world.config.initctl is not False
        self._initctl = InitctlService(supervisor.request) if wanted else None
        self._control = (
            None if world.control is None else ControlServer(Offered(supervisor), path=world.control, adopt=listening)
        )

    async def start(self) -> None:
        """All of them."""
        if self._control is not None:
            await self._control.start()
        if self._initctl is not None:
            await self._initctl.start()

    def listening_fd(self) -> int:
        """The control socket; -1 while there is none."""
        return -1 if self._control is None else self._control.listening_fd()

    def drain(self) -> None:
        """Take the requests that were written by now."""
        if self._initctl is not None:
            self._initctl.drain()

    def look(self) -> None:
        """See that the FIFO is still there."""
        if self._initctl is not None:
            self._initctl.look()

    def close(self) -> None:
        """Serve nothing more."""
        if self._initctl is not None:
            self._initctl.close()
        if self._control is not None:
            self._control.close()
