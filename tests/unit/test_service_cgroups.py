"""What is known of a service's cgroup without asking the kernel, with a directory in the place of a hierarchy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.config.service_values import CgroupLimits
from lcinit.service.cgroups import Cgroups
from lcinit.service.tracking import Members, Table


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    cgroups = Cgroups(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
    table = Table(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY))
    yield Members(cgroups, table)
    os.close(table.procfs)


def kills(tmp_path: Path, number: int) -> None:
    (tmp_path / "a.service" / "memory.events").write_text(f"oom 1\noom_kill {number}\n")


def test_a_cgroup_that_was_made_for_a_start_has_no_kills_before_it(members: Members, tmp_path: Path) -> None:
    assert members.cgroups.make("a", CgroupLimits()) >= 0
    kills(tmp_path, 5)  # nobody looks
    assert members.oom_kills_before("a", used=False) == 0
    assert members.oom_kills("a") == 5


def test_kills_of_commands_before_the_main_process_are_not_its_own(members: Members, tmp_path: Path) -> None:
    members.cgroups.make("a", CgroupLimits())
    kills(tmp_path, 1)
    assert members.oom_kills_before("a", used=True) == 1


@pytest.mark.parametrize("used", [False, True])
def test_the_next_start_in_it_looks(used: bool, members: Members, tmp_path: Path) -> None:
    members.cgroups.make("a", CgroupLimits())
    kills(tmp_path, 1)
    members.oom_kills_before("a", used=used)
    members.cgroups.make("a", CgroupLimits())
    assert members.oom_kills_before("a", used=False) == 1


def test_one_that_was_there_before_is_not_new(members: Members, tmp_path: Path) -> None:
    (tmp_path / "a.service").mkdir()
    kills(tmp_path, 3)
    members.cgroups.make("a", CgroupLimits())
    assert members.oom_kills_before("a", used=False) == 3
