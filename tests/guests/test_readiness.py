"""READY=1 of a nested guest reaches lcinit's own manager, when the guest is ready and not before (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from tests.lab.container import Container

CONFIG = """\
id_map: {users: 0 1000000 65536}
root: {path: /mnt/root, id_map: true}
exec: {mode: tolerant, command: %s}
"""


@pytest.mark.parametrize(
    ("guest", "command", "before"),
    [("systemd252", "/sbin/init", "Reached target.*multi-user"), ("plain", "[/bin/sh, -c, 'echo up; read never']", "")],
    ids=["systemd", "plain"],
)
def test_the_manager_hears_that_the_guest_is_ready(
    guest: str,
    command: str,
    before: str,
    boot_root: str,
    guest_copy: Callable[..., str],
    container: Callable[..., Container],
    tmp_path: object,
) -> None:
    os.mkdir(f"{tmp_path}/notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify/socket")
        manager.settimeout(30)
        running = container("unshare").start(
            boot_root,
            guest_root=guest_copy(guest),
            config=CONFIG % command,
            binds=[(f"{tmp_path}/notify", "/mnt/notify")],
            env={"NOTIFY_SOCKET": "/mnt/notify/socket"},
        )
        assert manager.recv(4096).decode().split("\n")[0] == "READY=1"
        if before:
            assert running.expect(before, 5)
        manager.settimeout(1)
        with pytest.raises(TimeoutError):  # once, and nothing of the guest's own beside it
            manager.recv(4096)
