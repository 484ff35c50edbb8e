"""What PID 1 has around its services: the sockets, the logger, the reader; put together, and taken apart at the end."""

from __future__ import annotations

import asyncio
import os

from lcinit import log
from lcinit.boot.console import terminal_is_foreign
from lcinit.control.initctl_service import InitctlService
from lcinit.control.notify import ManagerSocket
from lcinit.control.service import ControlServer
from lcinit.errors import LcinitError, SystemFailure
from lcinit.service.aggregate import Aggregate
from lcinit.service.cgroups import Cgroups
from lcinit.service.command import COMMAND, on_console
from lcinit.service.enabling import Enabling
from lcinit.service.launch import Launcher
from lcinit.service.logger import Logger
from lcinit.service.notify import NotifySocket
from lcinit.service.offered import Offered
from lcinit.service.pid_file import PidFiles
from lcinit.service.programs import limits_of
from lcinit.service.reload import Reloading
from lcinit.service.services import Means
from lcinit.service.supervisor import Supervisor
from lcinit.service.tracking import Members, Table
from lcinit.supervisor.loop import loop_needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.world import World
    from lcinit.linux.signals import SignalInfo
    from lcinit.plan.steps import KeepServices
    from lcinit.plan.supervision import Supervision
    from lcinit.service.notifications import Notification
    from lcinit.service.reader import Reader
    from lcinit.supervisor.guest_state import Action
    from lcinit.supervisor.spawner import Spawner

LAST_WORDS = 0.5  # seconds that the end waits for what services had to say


class Running:
    """Made in the boot root, run in the guest's."""

    def __init__(self, world: World, rules: Supervision, reader: Reader, spawner: Spawner, procfs: int) -> None:
        self._world = world
        self._rules = rules
        self._reader = reader
        self._spawner = spawner
        self._table = Table(procfs)
        self._manager = ManagerSocket.open()
        self._control: ControlServer | None = None
        self._initctl: InitctlService | None = None
        self._notify: NotifySocket | None = None

    async def run(self, step: KeepServices) -> Action:
        """Until it is over."""
        world = self._world
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        reading = asyncio.get_running_loop().create_task(self._reader.read(root_fd, again=False))
        self._spawner.enter()
        cgroups = Cgroups(world.service_cgroup)
        launcher = Launcher(self._spawner, world.reaper)
        logger = Logger(self._start_logger)
        members = Members(cgroups, self._table)
        means = Means(launcher, logger, cgroups, members, dict(step.environment), limits_of(step.limits))
        supervisor = Supervisor(world, step, means, Aggregate(self._manager.tell))
        foreign = terminal_is_foreign(world)
        supervisor.services.adapted[COMMAND] = lambda program: on_console(program, own_session=foreign)
        supervisor.find_main = PidFiles(self._spawner, root_fd, members).find
        self._open_notify(supervisor, members)
        catalogue = await reading
        cgroups.prepare(wanted=any(any(v is not None for v in s.cgroup.values().values()) for s in catalogue.services))
        reloading = Reloading(supervisor, self._reader, root_fd)
        supervisor.reread = reloading.quietly
        supervisor.begin(catalogue)
        self._serve(Offered(supervisor, reloading, Enabling(root_fd, world.config.services_dir)), supervisor)
        try:
            return await supervisor.run()
        finally:
            self._close()
            await asyncio.wait_for(logger.stop(), LAST_WORDS)
            cgroups.close()
