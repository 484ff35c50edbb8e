"""What a guest's reboot(2) asks for, and what its caller's status says of the right to ask. Pure.

The rules are the kernel's (kernel/reboot.c): the right is looked at first, then the magic numbers, then the command.
"""

from __future__ import annotations

import errno

from lcinit.linux.capabilities import CAPABILITIES
from lcinit.linux.process import (
    LINUX_REBOOT_CMD_CAD_OFF,
    LINUX_REBOOT_CMD_CAD_ON,
    LINUX_REBOOT_CMD_HALT,
    LINUX_REBOOT_CMD_POWER_OFF,
    LINUX_REBOOT_CMD_RESTART,
)

# linux/reboot.h; the second magic number is one of four dates.
LINUX_REBOOT_MAGIC1 = 0xFEE1DEAD
LINUX_REBOOT_MAGIC2 = (672274793, 85072278, 369367448, 537993216)
LINUX_REBOOT_CMD_RESTART2 = 0xA1B2C3D4

_CAP_SYS_BOOT = 1 << CAPABILITIES["sys_boot"]
_INT = 0xFFFFFFFF  # the call takes three ints: what is above them in the registers does not count


def judge(arguments: tuple[int, ...], *, machine: bool) -> tuple[int, int | None]:
    """`(errno, command)`: what the call of somebody who may make it returns, and what is to be done before.

    The command of RESTART2 stays in the caller's memory: it is a plain RESTART here. Kexec and suspend are the
    machine's, and no guest's. What ctrl-alt-del does is too, but inits that start say so once and look at the answer:
    it is passed on where the guest has the `machine` to itself, and heard without effect elsewhere.
    """
    magic1, magic2, command = (argument & _INT for argument in arguments[:3])
    if magic1 != LINUX_REBOOT_MAGIC1 or magic2 not in LINUX_REBOOT_MAGIC2:
        return errno.EINVAL, None
    if command in (LINUX_REBOOT_CMD_RESTART, LINUX_REBOOT_CMD_RESTART2):
        return 0, LINUX_REBOOT_CMD_RESTART
    if command in (LINUX_REBOOT_CMD_HALT, LINUX_REBOOT_CMD_POWER_OFF):
        return 0, command
    if command in (LINUX_REBOOT_CMD_CAD_ON, LINUX_REBOOT_CMD_CAD_OFF):
        return 0, command if machine else None
    return errno.EINVAL, None


def holds_sys_boot(status: str) -> bool:
    """Whether a /proc/PID/status text (proc_pid_status(5)) has CAP_SYS_BOOT among the effective capabilities."""
    return bool(int(_field(status, "CapEff") or "0", 16) & _CAP_SYS_BOOT)


def is_in_own_pidns(status: str) -> bool:
    """Whether the process has a PID namespace below the one of the procfs that the text comes from."""
    return len(_field(status, "NSpid").split()) > 1


def _field(status: str, name: str) -> str:
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""
