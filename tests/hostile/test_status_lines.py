"""Row 47: a process that is in so many groups that its /proc/PID/status is longer than anybody expects."""

from __future__ import annotations

import os
import signal

import pytest

from lcinit.control import keeper, rebooting
from lcinit.control.reboot_call import holds_sys_boot
from lcinit.control.stopping import listens
from lcinit.guest import ask
from lcinit.linux import capabilities

GROUPS = 65536  # NGROUPS_MAX of linux/limits.h
PERFMON = 38  # four hexadecimal digits above CAP_SYS_BOOT (22), which it would be in a line that is cut there


@pytest.mark.row(47)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for the groups")
def test_the_status_of_a_process_in_all_groups_is_read_to_its_end() -> None:
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(range(4294900000, 4294900000 + GROUPS))
            signal.signal(signal.SIGUSR2, lambda *_: None)
            capabilities.set_capabilities(1 << PERFMON, 1 << PERFMON, 0)
            os.write(tell, b"1")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.read(told, 1)
        directory = os.open(f"/proc/{pid}", os.O_PATH)
        status = rebooting._read(directory, "status")
        os.close(directory)
        assert f"CapEff:\t{1 << PERFMON:016x}\n" in status
        assert not holds_sys_boot(status)
        for text in (ask._read(f"/proc/{pid}/status").decode(), status):
            assert listens(text, signal.SIGUSR2)
        assert len(status) < min(keeper.STATUS_SIZE, rebooting._STATUS_SIZE, ask._STATUS_SIZE)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(told)
        os.close(tell)
