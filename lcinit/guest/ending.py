"""How lcinit itself ends, so that whoever started it understands (reboot(2), pid_namespaces(7))."""

from __future__ import annotations

import os

from lcinit import log
from lcinit.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.plan.supervision import Supervision
    from lcinit.supervisor.guest_state import Action

_COMMANDS = {
    "poweroff": process.LINUX_REBOOT_CMD_POWER_OFF,
    "halt": process.LINUX_REBOOT_CMD_HALT,
    "reboot": process.LINUX_REBOOT_CMD_RESTART,
}
_KILLED = 137
REBOOT_STATUS = 129  # what a reboot that the manager could not be told looks like


def end(action: Action, rules: Supervision, reboot: Callable[[int], None] = process.reboot) -> int:
    """The exit code for the action "end"; where reboot(2), or `reboot` in its place, tells more than an exit code, it
    does not return.

    The code of a guest that is no init is passed on also after a poweroff. As the first process of a machine PID 1 may
    not exit at all: the machine would panic.
    """
    status = action.status
    tells_nothing = action.how != "exit" and (action.by_reboot or status in (0, _KILLED))
    if rules.first or (action.how == "reboot" or tells_nothing):
        how = "poweroff" if action.how == "exit" else action.how
        if rules.may_reboot and os.getpid() == 1:
            try:
                reboot(_COMMANDS[how])
            except OSError as error:
                log.debug(f"{how} by reboot(2): {error.strerror}")
        if action.how == "reboot":
            return REBOOT_STATUS
        if tells_nothing:
            return 0
    return status
