"""The child that reads the configuration: what PID 1 gets of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Never

import pytest

from lcinit.boot import reading
from lcinit.boot.reading import Reading
from lcinit.config.values import Config
from lcinit.errors import LcinitError

SERVICES = "exec: {mode: tolerant, pid: shared}\nservices: {b: {command: /b}, a: {command: /a}}\n"


def go_on(_config: Config, _path: str | None, _channel: object) -> Never:
    os._exit(0)


def read(path: Path, text: str, *, goes_on: bool = True) -> Config:
    path.write_text(text)
    child = Reading(str(path), go_on if goes_on else None)
    config = child.result()
    if goes_on and config.services is not None:
        assert os.waitpid(child.pid, 0)[1] == 0
    return config


def test_of_services_that_are_read_on_it_has_the_names(tmp_path: Path) -> None:
    config = read(tmp_path / "init.yml", SERVICES)
    assert config.services is not None
    assert [(part.name, part.given) for part in config.services] == [("b", ()), ("a", ())]


def test_without_anybody_who_goes_on_it_has_all_of_them(tmp_path: Path) -> None:
    config = read(tmp_path / "init.yml", SERVICES, goes_on=False)
    assert config.services is not None and all(part.given for part in config.services)


def test_what_is_wrong_is_told_as_it_was_found(tmp_path: Path) -> None:
    with pytest.raises(LcinitError) as caught:
        read(tmp_path / "init.yml", "exec: 3\n")
    assert caught.value.exit_code == 78 and "init.yml:1:7: exec" in str(caught.value)


def test_the_child_may_run_anywhere_the_parent_may(tmp_path: Path) -> None:
    (tmp_path / "init.yml").write_text(SERVICES)
    reader, writer = os.pipe()
    before = os.sched_getaffinity(0)

    def tell(*_anything: object) -> Never:
        os.write(writer, repr(sorted(os.sched_getaffinity(0))).encode())
        os._exit(0)

    child = Reading(str(tmp_path / "init.yml"), tell)
    child.result()
    os.waitpid(child.pid, 0)
    os.close(writer)
    assert os.read(reader, 4096).decode() == repr(sorted(before))
    os.close(reader)
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("error", [OSError(1, "not permitted"), ValueError("no number"), IndexError("too short")])
def test_a_processor_that_cannot_be_chosen_costs_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_pid: int) -> set[int]:
        raise error

    monkeypatch.setattr(reading.os, "sched_getaffinity", fail)
    assert read(tmp_path / "init.yml", SERVICES).services
