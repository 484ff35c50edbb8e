"""What a process has from where it is and who made it: told by PID 1, taken by the spawner for its children."""

from __future__ import annotations

import marshal
import os
import select

from lcinit.errors import LcinitError, SystemFailure
from lcinit.linux import capabilities, mount, namespaces, process, signals
from lcinit.supervisor.dumping import forbid_dumping
from lcinit.supervisor.spawner_messages import NO_SLOT, packets

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

PATIENCE = 5.0  # seconds for the spawner to follow
_LARGEST = 64 * 1024
# The user namespace last: who is root outside may enter all the others from there, whoever owns them (setns(2)).
_NAMESPACES = {
    "mnt": namespaces.CLONE_NEWNS,
    "uts": namespaces.CLONE_NEWUTS,
    "ipc": namespaces.CLONE_NEWIPC,
    "net": namespaces.CLONE_NEWNET,
    "cgroup": namespaces.CLONE_NEWCGROUP,
    "time": namespaces.CLONE_NEWTIME,
    "user": namespaces.CLONE_NEWUSER,
}


def own_namespaces(procfs: int) -> dict[str, tuple[int, int]]:
    """Device and inode of each; a kind that this kernel does not have is missing."""
    found = {}
    for name in _NAMESPACES:
        try:
            status = os.stat(f"self/ns/{name}", dir_fd=procfs)
        except FileNotFoundError:
            continue
        found[name] = status.st_dev, status.st_ino
    return found


def changed_namespaces(procfs: int, before: dict[str, tuple[int, int]]) -> list[tuple[int, int]]:
    """CLONE_NEW* and a handle of each namespace that is another one than `own_namespaces` told before."""
    now = own_namespaces(procfs)
    return [
        (flag, os.open(f"self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs))
        for name, flag in _NAMESPACES.items()
        if now.get(name) != before.get(name)
    ]


def place_of(namespaces_entered: list[tuple[int, int]]) -> dict[str, Any]:
    """What PID 1 has that its children have from it: see `enter`."""
    return {
        "namespaces": [flag for flag, _ in namespaces_entered],
        "ids": (os.getresuid(), os.getresgid(), os.getgroups()),
        "capabilities": capabilities.get_capabilities(),
        "bounding": sum(1 << number for number in capabilities.bounding_set()),
        "no_new_privs": process.get_no_new_privs(),
        "keyring": process.session_keyring(),
    }


def enter(place: dict[str, Any], descriptors: list[int], kept: set[int]) -> None:
    """Become what a fork of PID 1 would be: `descriptors` are its namespaces, the user namespace the last of them, its
    root and its standard streams. All but `kept` are closed afterwards. Raises OSError, LcinitError.
    """
    *spaces, root, stdin, stdout, stderr = descriptors
    forbid_dumping()
    for fd, flag in zip(spaces, place["namespaces"], strict=True):
        if flag == namespaces.CLONE_NEWUSER:
            _enter_root(root)
        namespaces.setns(fd, flag)
    _enter_root(root)
    os.chdir("/")
    uids, gids, groups = place["ids"]
    if os.getgroups() != groups:
        os.setgroups(groups)
    if os.getresgid() != gids:
        os.setresgid(*gids)
    if os.getresuid() != uids:
        os.setresuid(*uids)
    forbid_dumping()
    process.set_pdeathsig(signals.SIGKILL)  # a change of ids has undone it
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream, number, inheritable=True)
    process.close_all_but(kept)
    if process.session_keyring() != place["keyring"]:
        process.join_session_keyring()
    capabilities.drop_bounding(number for number in range(64) if not place["bounding"] >> number & 1)
    capabilities.set_capabilities(*place["capabilities"])
    if place["no_new_privs"]:
        process.set_no_new_privs()


def _enter_root(root: int) -> None:
    own = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(own), os.fstat(root)) and mount.mount_id(own) == mount.mount_id(root):
            return
    finally:
        os.close(own)
    os.fchdir(root)
    os.chroot(".")


def bring(channel: socket.socket, procfs: int, before: dict[str, tuple[int, int]]) -> None:
    """Have the spawner at the other end of a channel come to where this process is. `procfs` is closed.

    `before` is what `own_namespaces` told when the spawner was forked. Raises LcinitError.
    """
    spaces: list[tuple[int, int]] = []
    root = -1
    try:
        spaces = changed_namespaces(procfs, before)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for packet in packets(NO_SLOT, ("enter", place_of(spaces)), [*(fd for _, fd in spaces), root, 0, 1, 2]):
            packet.send(channel)
        reply = _reply(channel)
    except OSError as error:
        raise SystemFailure.from_os_error("take the spawner into the guest", error) from error
    finally:
        for fd in (*(fd for _, fd in spaces), root, procfs):
            if fd >= 0:
                os.close(fd)
    if not reply:
        raise SystemFailure("the spawner ended before it was in the guest")
    code, message, hint = marshal.loads(reply)
    if code:
        raise LcinitError(message, hint=hint, exit_code=code)


def _reply(channel: socket.socket) -> bytes:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(PATIENCE * 1000):
        raise SystemFailure(f"the spawner does not answer within {PATIENCE:g} s")
    return channel.recv(_LARGEST)
