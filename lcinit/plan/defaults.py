"""What every guest goes without, unless the configuration says otherwise."""

from __future__ import annotations

DEFAULT_DROPPED = (
    "sys_module",
    "sys_rawio",
    "sys_time",
    "mac_admin",
    "mac_override",
    "audit_control",
    "audit_read",
)

# What OCI runtimes protect in /proc of a container whose root is the machine's (runtime-spec, config-linux.md).
PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_HIDDEN = ("acpi", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")

OLDEST_KERNEL = (5, 12)
