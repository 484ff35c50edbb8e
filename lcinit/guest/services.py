"""What PID 1 serves beside the guest: the initctl FIFO and the control socket."""

from __future__ import annotations

import os

from lcinit import log
from lcinit.control.initctl_service import InitctlService
from lcinit.control.service import ControlServer, ServedByAnother
from lcinit.control.serving import serving
from lcinit.errors import SystemFailure
from lcinit.guest.offered import Offered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.guest.logfile import LogFile
    from lcinit.guest.reexec import Handed
    from lcinit.guest.supervisor import Supervisor


class Services:
    """Started when the guest is up; each that cannot be had says so itself and the others go on."""

    def __init__(self, supervisor: Supervisor, handed: Handed | None = None) -> None:
        """`handed` has what the lcinit before this one served."""
        world = supervisor.world
        fifo, listening = (-1, -1) if handed is None else (handed.descriptor(name) for name in ("initctl", "control"))
        variables = {} if handed is None else handed.facts["init_variables"]
        self._log_file: LogFile | None = None
        self._initctl: InitctlService | None = None
        if world.config.initctl is not False:
            self._initctl = InitctlService(supervisor.request, adopt=fifo, variables=variables)
        elif fifo >= 0:
            os.close(fifo)
        self._control: ControlServer | None = None
        if world.control is not None:
            self._control = ControlServer(serving(Offered(supervisor)), path=world.control, adopt=listening)
        elif listening >= 0:
            os.close(listening)

    async def start(self) -> None:
        """All of them. Beside another lcinit in the same boot root none: its FIFO is there as well."""
        if self._control is not None:
            try:
                await self._control.start()
            except ServedByAnother as error:
                log.error(f"{error}; this one takes signals alone")
                if self._initctl is not None:
                    self._initctl.close()
                    self._initctl = None
                return
            except SystemFailure as error:
                log.error(str(error))
        if self._initctl is not None:
            await self._initctl.start()

    def descriptors(self) -> dict[str, int]:
        """What an lcinit that takes over goes on with: the FIFO and the listening socket, -1 for none."""
        return {
            "initctl": -1 if self._initctl is None else self._initctl.fifo_fd(),
            "control": -1 if self._control is None else self._control.listening_fd(),
        }

    def init_variables(self) -> dict[str, str]:
        """What initctl requests have set."""
        return {} if self._initctl is None else self._initctl.variables()

    def look(self) -> None:
        """See that the FIFO is still there."""
        if self._initctl is not None:
            self._initctl.look()

    async def drain(self) -> None:
        """See that nothing waits to be written."""
        if self._log_file is not None:
            await self._log_file.drain()

    def close(self) -> None:
        """Serve nothing more."""
        if self._log_file is not None:
            self._log_file.close()
        if self._initctl is not None:
            self._initctl.close()
        if self._control is not None:
            self._control.close()
