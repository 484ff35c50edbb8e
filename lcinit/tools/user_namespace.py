"""A user namespace with a chosen map, made by root or by an ordinary user, and going into it (user_namespaces(7))."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

from lcinit.boot.namespaces import leave_groups
from lcinit.errors import EX_NOPERM, LcinitError, SystemFailure
from lcinit.linux import namespaces
from lcinit.supervisor.userns import any_procfs, map_text, new_user_namespace
from lcinit.tools.contain_options import PROGRAMS, Choice, Side

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lcinit.config.values import IdRange

_LIMITS = ("/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone")

_APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


def enter(choice: Choice, sides: Sequence[Side]) -> None:
    """Become uid and gid 0 of a new user namespace with the chosen map. Raises LcinitError.

    Root leaves its supplementary groups; an ordinary user keeps them, whether or not the kernel would let go of them:
    a group can also deny (CVE-2018-7169), and to give that up is for nobody to do unasked.
    """
    refuse_where_disabled()
    privileged = all(side.privileged for side in sides)
    namespace = new_user_namespace(lambda procfs, pid: _write(procfs, pid, choice, sides), hint=_why_refused())
    try:
        namespaces.setns(namespace, namespaces.CLONE_NEWUSER)
        if privileged:
            leave_groups()
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        raise SystemFailure.from_os_error("enter the new user namespace", error, hint=_why_refused()) from error
    finally:
        os.close(namespace)


def refuse_where_disabled() -> None:
    """Raise SystemFailure (77) where an administrator has switched user namespaces off.

    The kernel's own answers, ENOSPC and EPERM, do not tell that.
    """
    for path in _LIMITS:
        try:
            with open(path, encoding="utf-8") as file:
                value = file.read().strip()
        except OSError:
            continue  # not in this kernel, or not shown in this container
        if value == "0" and (os.geteuid() != 0 or "max" in path):
            raise SystemFailure(
                f"cannot make a user namespace: {path} is 0",
                hint=f"have root write a larger number there: sysctl -w {path[10:].replace('/', '.')}=1000",
                exit_code=EX_NOPERM,
            )


def _why_refused() -> str:
    """What may stand behind an EPERM, and the next step."""
    try:
        with open(_APPARMOR, encoding="utf-8") as file:
            if file.read().strip() == "1":
                return f"AppArmor restricts user namespaces here: have root write 0 to {_APPARMOR}"
    except OSError:
        pass  # no AppArmor that does so
    return "a chroot, a sandbox or a security module around this process forbids it (user_namespaces(7))"


def own_namespaces() -> None:
    """Where the cgroup namespace is not of this user namespace, make one: only that shows a hierarchy to mount.

    Its root is the caller's own cgroup, which a service manager may have delegated to the caller (cgroup v2,
    "Delegation"); the guest's is made there then. To mount at all takes a mount namespace of one's own, too. Raises
    SystemFailure.
    """
    try:
        procfs = any_procfs()
        try:
            if not namespaces.is_owned_here(procfs, "cgroup"):
                namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWCGROUP)
        finally:
            os.close(procfs)
    except OSError as error:
        raise SystemFailure.from_os_error("make a mount and a cgroup namespace", error) from error


def _write(procfs: int, pid: int, choice: Choice, sides: Sequence[Side]) -> None:
    """Both maps of the process `pid`: by this process, or by newuidmap(1) and newgidmap(1)."""
    maps = (choice.id_map.users, choice.id_map.groups)
    for side, ranges in zip(sides, maps, strict=True):
        text = map_text(f"{side.kind}s", [(r.inside, r.outside, r.size) for r in ranges])
        own_only = ranges[0].outside == side.own_id and len(ranges) == ranges[0].size == 1
        if not side.privileged and not own_only:
            _run_program(PROGRAMS[side.kind], pid, ranges)
            continue
        try:
            if side.kind == "gid" and not side.privileged:
                # or the kernel refuses the map: with it everybody could leave a group that denies (CVE-2014-8989)
                namespaces.write_proc_file(procfs, pid, "setgroups", b"deny")
            namespaces.write_proc_file(procfs, pid, f"{side.kind}_map", text)
        except OSError as error:
            hint = _why_refused() if error.errno in (errno.EPERM, errno.EACCES) else ""
            raise SystemFailure.from_os_error(f"write the {side.kind} map", error, hint=hint) from error


def _run_program(name: str, pid: int, ranges: Sequence[IdRange]) -> None:
    path = shutil.which(name)
    if path is None:
        raise LcinitError(f"{name} is not there any more", exit_code=EX_NOPERM)
    words = [str(number) for r in ranges for number in (r.inside, r.outside, r.size)]
    try:
        done = subprocess.run([path, str(pid), *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise SystemFailure.from_os_error(f"run {path}", error) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().replace("\n", "; ")
        raise LcinitError(
            f"{name} refused the map: {said or f'exit code {done.returncode}'}",
            hint="it must be setuid root or have file capabilities, and not lie on a nosuid mount",
            exit_code=EX_NOPERM,
        )
