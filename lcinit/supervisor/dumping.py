"""lcinit's processes are not to be looked into: no ptrace, no core, no /proc/PID/mem (prctl(2), PR_SET_DUMPABLE)."""

from __future__ import annotations

from lcinit.errors import SystemFailure
from lcinit.linux import process


def forbid_dumping() -> None:
    """Not dumpable, verified: a change of ids may have set what fs.suid_dumpable says (proc_sys_fs(5)), and has to be
    followed by this. Raises SystemFailure.
    """
    process.set_dumpable(False)
    if process.get_dumpable() != 0:
        raise SystemFailure("the kernel keeps this process dumpable, so that a guest could look into it")
