"""What the doctor's trials, capabilities and Python modules are for, what is lost without them, what helps. Data."""

from __future__ import annotations

from lcinit.record import Record


class Meaning(Record):
    """What a trial stands for: `what` is tried, what is `lost` where it does not work, and what helps."""

    what: str
    lost: str
    remedy: str
    needed: bool = False


NEEDED_CAPABILITIES = {
    "sys_admin": "mounts and namespaces",
    "setuid": "the uid map",
    "setgid": "the gid map",
    "chown": "files of the guest's root",
    "dac_override": "what lcinit makes in directories of the guest's root",
    "fowner": "modes of files of the guest's root",
}
USEFUL_CAPABILITIES = {
    "mknod": "device nodes are bound from outside instead of made, and `devices` brings in fewer",
    "net_admin": "network interfaces cannot be moved into the guest",
    "sys_boot": "no guest can reboot(2), and its manager sees an exit",
    "sys_chroot": "root.mode chroot and an initramfs cannot be used",
    "sys_resource": "`limits` cannot raise a hard limit",
    "sys_ptrace": "a running guest cannot be inspected from here, nor its reboot(2) answered where it has an id map",
}

GRANT = "have the manager allow it: its seccomp filter, its capabilities, or run it privileged"
KERNEL = "run a kernel that has it"
NO_CHROOT = "start lcinit from a root that is a mount point (no chroot)"

TRIALS = {
    "mount-namespace": Meaning(
        what="a private mount namespace (unshare, mount_setattr)",
        lost="nothing can be mounted",
        remedy=GRANT,
        needed=True,
    ),
    "user-namespace": Meaning(
        what="a new user namespace",
        lost="no guest can be rootless",
        remedy="allow them in the manager's seccomp filter and AppArmor profile, and start lcinit in no chroot",
        needed=True,
    ),
    "namespaces": Meaning(
        what="new mount, UTS, IPC, network and cgroup namespaces",
        lost="the guest would share them",
        remedy="allow them, or set namespaces: {NAME: false} for the one that is refused",
        needed=True,
    ),
    "id-map": Meaning(
        what="writing the id map of a guest",
        lost="no guest can be rootless",
        remedy="give lcinit CAP_SETUID and CAP_SETGID over the ids of the map",
        needed=True,
    ),
    "setns": Meaning(what="entering a namespace (setns)", lost="network interfaces cannot be moved", remedy=GRANT),
    "clone3": Meaning(
        what="clone3 with a pidfd", lost="no id map on a mount of its own, no nested guest", remedy=GRANT
    ),
    "openat2": Meaning(what="openat2", lost="guest roots cannot be entered safely", remedy=GRANT, needed=True),
    "close_range": Meaning(what="close_range", lost="descriptors would leak", remedy=GRANT, needed=True),
    "pivot_root": Meaning(
        what="pivot_root",
        lost="root.mode pivot cannot be used",
        remedy=NO_CHROOT,
        needed=True,
    ),
    "mknod": Meaning(
        what="making and opening device nodes",
        lost="nodes are bound from outside: no chmod of them in the guest changes anything",
        remedy="keep CAP_MKNOD, and allow `c 1:* rwm` and `c 5:0 rwm` in the device cgroup",
    ),
    "proc-outside": Meaning(what="mounting proc", lost="no guest has a /proc", remedy=GRANT, needed=True),
    "tmpfs-outside": Meaning(what="mounting tmpfs", lost="no guest has a /dev", remedy=GRANT, needed=True),
    "overlay": Meaning(what="mounting overlay", lost="the command `overlay` fails", remedy="load the module overlay"),
    "sysfs-inside": Meaning(
        what="mounting sysfs in the guest",
        lost="no /sys of the guest's own network namespace",
        remedy="have the manager leave a sysfs with nothing mounted over it, or set namespaces: {network: false}",
        needed=True,
    ),
    "devpts-inside": Meaning(what="mounting devpts in the guest", lost="no terminals", remedy=KERNEL, needed=True),
    "mqueue-inside": Meaning(
        what="mounting mqueue in the guest",
        lost="no POSIX message queues",
        remedy="run a kernel with CONFIG_POSIX_MQUEUE",
        needed=True,
    ),
    "cgroup2-inside": Meaning(
        what="mounting cgroup2 in the guest", lost="the guest has no cgroups", remedy="run a kernel with CONFIG_CGROUPS"
    ),
    "proc-inside": Meaning(
        what="mounting proc in a nested PID namespace",
        lost="a nested guest needs a pristine proc aside",
        remedy="have the manager leave a proc with nothing mounted over it",
    ),
    "idmap-boot-root": Meaning(
        what="idmapping the boot root's file system",
        lost="its directories cannot be given shifted to a guest",
        remedy="use ext4, xfs, btrfs, tmpfs or squashfs, or chown the files to the guest's outer ids",
    ),
    "idmap-guest-root": Meaning(
        what="idmapping the guest root's file system",
        lost="a root that is not shifted on the disk cannot be shifted by a mount",
        remedy="use ext4, xfs, btrfs, tmpfs or squashfs, or chown the files to the guest's outer ids",
    ),
    "seccomp-notify": Meaning(
        what="answering reboot(2) of a guest with an id map (seccomp user notification)",
        lost="its reboot looks like its poweroff, and not every init can be handed over to (see `reboot`)",
        remedy="have the manager put no seccomp listener on its containers, or use exec.mode: tolerant",
    ),
    "keyctl": Meaning(
        what="a session keyring for the guest (keyctl)",
        lost="the guest's processes see the manager's session keyring",
        remedy="allow keyctl in the manager's seccomp filter (nspawn: --system-call-filter=keyctl)",
    ),
    "pidfd_getfd": Meaning(
        what="pidfd_getfd", lost="nothing that a handoff uses", remedy="none is needed for a handoff"
    ),
}

# Module → what is lost without it, and what helps.
PARTS = {
    "yaml": ("no configuration file can be read", "install PyYAML built with libyaml"),
    "uvloop": ("asyncio's own event loop is used", "install uvloop"),
    "aiofiles": ("needed by the supervising phase alone", "install aiofiles"),
}
