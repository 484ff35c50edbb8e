"""The links that give lcinit its other names."""

from __future__ import annotations

import os

import pytest

from lcinit.errors import SystemFailure
from lcinit.tools.links import MULTICALL_NAMES, link_names


def test_every_name_becomes_a_link_and_a_second_run_changes_nothing(tmp_path: os.PathLike[str]) -> None:
    directory = str(tmp_path)
    assert link_names(directory, "/usr/lib/lcinit/bin/lcinit") == list(MULTICALL_NAMES)
    assert {os.readlink(os.path.join(directory, name)) for name in MULTICALL_NAMES} == {"/usr/lib/lcinit/bin/lcinit"}
    assert link_names(directory, "/usr/lib/lcinit/bin/lcinit") == []


@pytest.mark.parametrize("foreign", ["file", "other link"])
def test_a_foreign_file_is_refused_before_anything_is_made(tmp_path: os.PathLike[str], foreign: str) -> None:
    directory = str(tmp_path)
    # the last name of all: a refusal half-way would have made the others
    path = os.path.join(directory, MULTICALL_NAMES[-1])
    if foreign == "file":
        with open(path, "w") as file:
            file.write("somebody's")
    else:
        os.symlink("/somewhere/else", path)
    with pytest.raises(SystemFailure, match="not ours"):
        link_names(directory, "/usr/lib/lcinit/bin/lcinit")
    assert os.listdir(directory) == [MULTICALL_NAMES[-1]]


def test_a_directory_that_is_not_there_is_one_clear_error(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(SystemFailure, match=r"cannot link .*absent/init"):
        link_names(os.path.join(tmp_path, "absent"), "/x")
