"""What PID 1 has around its services: the sockets, the logger, the reader; put together, and taken apart at the end."""

from __future__ import annotations

import asyncio

from lcinit import log
from lcinit.boot.console import terminal_is_foreign
from lcinit.control.initctl_service import InitctlService
from lcinit.control.notify import ManagerSocket
from lcinit.control.ratelimit import RateLimit
from lcinit.control.service import ControlServer
from lcinit.errors import LcinitError, SystemFailure
from lcinit.service.aggregate import Aggregate
from lcinit.service.cgroups import Cgroups
from lcinit.service.command import COMMAND, on_console
from lcinit.service.emptying import emptied
from lcinit.service.launch import Launcher
from lcinit.service.logger import Logger
from lcinit.service.notify import NotifySocket
from lcinit.service.paths import Paths
from lcinit.service.programs import limits_of
from lcinit.service.services import Means
from lcinit.service.supervisor import Supervisor
from lcinit.service.tracking import Members, Table
from lcinit.supervisor.meanings import meaning
from lcinit.supervisor.reaper import describe_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.world import World
    from lcinit.control.service import Serving
    from lcinit.errors import CommandFailed
    from lcinit.linux.signals import SignalInfo
    from lcinit.plan.steps import KeepServices
    from lcinit.plan.supervision import Supervision
    from lcinit.service.launch import Process
    from lcinit.service.notifications import Notification
    from lcinit.service.reader import Reader
    from lcinit.service.reload import Reloading
    from lcinit.service.task import Task
    from lcinit.supervisor.guest_state import Action
    from lcinit.supervisor.reaper import Status
    from lcinit.supervisor.spawner import Spawner

LOG_LATER = 0.05  # seconds after the first services were begun: until then what they say stays in their pipes
LAST_WORDS = 0.5  # seconds that the end waits for what services had to say, and for those that were killed


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
        self._reloads: Reloading | None = None
        self._root_fd = -1
        self._closing = False
        self._complaints = RateLimit()
        self._launcher: Launcher
        self._logger: Logger
        self._supervisor: Supervisor
        self._paths: Paths

    async def run(self, step: KeepServices, root_fd: int, answer: int) -> Action:
        """Until it is over; `answer` is what the reader was asked for."""
        world = self._world
        self._root_fd = root_fd
        reading = asyncio.get_running_loop().create_task(self._reader.answer(answer))
        self._spawner.enter()
        cgroups = Cgroups(world.service_cgroup)
        self._launcher = Launcher(self._spawner, world.reaper)
        self._reader.start = lambda root, channel: self._launcher.launch_function("reader", (root, channel), None)
        self._logger = Logger(self._start_logger, held=True)
        members = Members(cgroups, self._table)
        environment = dict(step.environment)
        means = Means(self._launcher, self._logger, cgroups, members, environment, limits_of(step.limits))
        supervisor = self._supervisor = Supervisor(world, step, means, Aggregate(self._manager.tell))
        foreign = terminal_is_foreign(world)
        supervisor.services.adapted[COMMAND] = lambda program: on_console(program, own_session=foreign)
        supervisor.find_main = self._find_main
        supervisor.on_signal = self._take_signal
        self._open_notify()
        catalogue = await reading
        cgroups.prepare()
        supervisor.reread = lambda: self._reloading().quietly()
        self._paths = Paths(self._launcher, root_fd, world.config.services_dir)
        # before there is a service, which may mount over these places what never answers
        await self._serve()
        supervisor.begin(catalogue)
        asyncio.get_running_loop().call_later(LOG_LATER, self._logger.release)
        try:
            return await supervisor.run()
        finally:
            await self._close()
            await emptied(cgroups, LAST_WORDS)
            cgroups.close()

    def _start_logger(self, channel: int) -> int:
        """Start a logger process; its PID comes later, and its end is told to the logger's handle."""
        self._launcher.launch_function("logger", (channel, self._table.procfs), self)
        return 0

    # what the launcher tells of the logger process

    def executed(self, _process: Process) -> None:
        """It writes."""

    def unstartable(self, _process: Process, failure: CommandFailed) -> None:
        """There is none."""
        log.error(f"what services say is not written: {failure.message}")
        if not self._closing:
            self._logger.ended()

    def ended(self, _process: Process, status: Status) -> None:
        """It has ended."""
        if not self._closing:
            log.warning(f"the process that writes what services say has ended: {describe_status(status)}")
            self._logger.ended()

    def _open_notify(self) -> None:
        try:
            self._notify = NotifySocket(self._notified)
            self._notify.start(asyncio.get_running_loop())
        except SystemFailure as error:
            log.error(f"{error}; services cannot say that they are ready")

    def _notified(self, pid: int, _uid: int, said: Notification) -> None:
        """Give it to the service that has said it, if it may speak for itself."""
        services = self._supervisor.services
        name = services.members.service_of(pid)
        task = services.tasks.get(name) if name is not None else services.task_of(pid)
        if task is None:
            log.debug(f"a notification of process {pid}, which is no service's")
            return
        if task.service.notify_access == "main" and pid != task.leader:
            log.debug(f"a notification of process {pid}, which is not the main process of {task.name}")
            return
        for problem in said.problems:
            log.debug(f"{task.name} notifies: {problem}")
        if said.main_pid is not None and said.main_pid != task.leader:
            if services.members.belongs(task.name, task.last_leader, said.main_pid):
                task.adopt(said.main_pid)
            elif self._complaints.take(asyncio.get_running_loop().time()):
                log.warning(f"{task.name} names process {said.main_pid} as its main one, which is not its own")
        task.notified(said)

    def _take_signal(self, info: SignalInfo) -> None:
        if meaning(info.signo, info.code, self._rules).what == "initctl" and self._initctl is not None:
            self._initctl.look()

    async def _serve(self) -> None:
        """What outsiders may say to PID 1; each that cannot be had says so itself, and the others go on. What they say
        is heard in the next turn of the loop.
        """
        world, supervisor = self._world, self._supervisor
        if world.control is not None:
            self._control = ControlServer(
                self._serve_clients, path=world.control, later=True, bind_later=self._paths.bind
            )
            try:
                await self._control.start()
            except SystemFailure as error:
                log.error(str(error))
        if world.config.initctl is not False:
            self._initctl = InitctlService(
                supervisor.request, runlevel=supervisor.set_runlevel, elsewhere=self._paths.initctl
            )
            await self._initctl.start()

    # what is imported only when it is needed

    def _serve_clients(self, descriptor: int) -> Serving:
        from lcinit.control.serving import serving
        from lcinit.service.offered import Offered

        offered = Offered(self._supervisor, self._reloading(), self._paths)
        return serving(offered, offered, procfs=self._table.procfs)(descriptor)

    def _reloading(self) -> Reloading:
        if self._reloads is None:
            from lcinit.service.reload import Reloading

            self._reloads = Reloading(self._supervisor, self._reader, self._root_fd)
        return self._reloads

    def _find_main(self, task: Task) -> None:
        from lcinit.service.pid_process import PidFiles

        services = self._supervisor.services
        PidFiles(self._launcher, self._root_fd, services.members, services.task_of).find(task)

    async def _close(self) -> None:
        self._closing = True
        sockets = []
        if self._control is not None:
            place = self._control.stop()
            sockets.append((place.directory, place.name, place.made))
        initctl = None if self._initctl is None else self._initctl.stop()
        if self._notify is not None:
            sockets.append(self._notify.stop())
        removing = asyncio.get_running_loop().create_task(self._paths.remove(sockets, initctl))
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._logger.stop()
        except TimeoutError:
            log.warning("what services said last is not all written")
        try:
            await removing
        except LcinitError as error:
            log.warning(str(error))
