"""The guests themselves, booted by nspawn without lcinit: what they do there, lcinit is held to."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest

from tests.lab import guests
from tests.lab.container import Container
from tests.lab.probe import SYSTEMD_STATE, add_probe, await_probe

#: what each calls itself, where that is not the name it was started by
COMM = {"runit": "runit", "runit-etc": "runit", "openrc": "openrc-init", "finit": "finit", "s6": "s6-svscan"}
WITH_INIT = sorted(name for name, recipe in guests.RECIPES.items() if recipe.init != "none")


@pytest.mark.parametrize("name", WITH_INIT)
def test_guest_boots_and_powers_off_in_a_plain_container(
    name: str, container: Callable[..., Container], guest_copy: Callable[..., str]
) -> None:
    root = guest_copy(name)
    recipe = guests.RECIPES[name]
    systemd = recipe.init == "systemd"
    add_probe(root, name, SYSTEMD_STATE if systemd else "echo init $(cat /proc/1/comm)")
    booted = container("nspawn").start(root, cache=False, init=recipe.command[0], args=recipe.command[1:])
    result = await_probe(booted, 60)
    assert result.status == 0
    if systemd:
        assert result.value("state") == "running"
        assert not result.values("failed")
        assert result.value("init").endswith("/systemd")
    else:
        assert result.value("init") == COMM.get(name, "init")
    assert booted.wait(30).status == 0


def test_shifted_copy_keeps_modes_and_links_and_moves_every_owner(guest_copy: Callable[..., str]) -> None:
    original, shifted = guests.guest("sysvinit"), guest_copy("sysvinit", shift=100000)
    checked = 0
    for parent, directories, files in os.walk(original):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            before, after = os.lstat(path), os.lstat(shifted + path[len(original) :])
            assert (after.st_uid, after.st_gid) == (before.st_uid + 100000, before.st_gid + 100000), path
            assert after.st_mode == before.st_mode, path
            checked += bool(before.st_mode & stat.S_ISUID)
    assert checked, "no set-user-id file in the guest: this test would not see the bit get lost"
