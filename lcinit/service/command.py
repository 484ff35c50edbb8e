"""`exec.command` beside services: one more service, which starts when all others have settled; its end is the end."""

from __future__ import annotations

import fcntl

from lcinit.config.service_values import Service, ServiceLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.values import Config
    from lcinit.plan.steps import KeepServices
    from lcinit.plan.supervision import Supervision
    from lcinit.supervisor.spawn import Program

COMMAND = "exec.command"
"""Its name among the services."""


def command_service(step: KeepServices, config: Config, rules: Supervision) -> Service:
    """The service that the configuration's command is. Its limits and variables are the guest's already."""
    return Service(
        name=COMMAND,
        origin="exec.command",
        command=step.argv,
        runlevels=("S", "1", "2", "3", "4", "5"),
        start_timeout=None,
        stop_timeout=rules.timeout,
        stop_signal=dict(step.stop).get("poweroff", "SIGTERM"),
        restart="always" if config.exec.on_exit == "restart" else "no",
        start_limit_burst=None,
        essential=True,
        user=step.user,
        group=step.group,
        groups=step.groups,
        cwd=step.cwd,
        log=ServiceLog(to="none"),
    )


def on_console(program: Program, *, own_session: bool) -> Program:
    """The program on lcinit's own streams; `own_session` where the terminal is not the guest's to have."""
    return program.replace(
        stdin=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10), stdout=1, stderr=2, session="new" if own_session else "group"
    )
