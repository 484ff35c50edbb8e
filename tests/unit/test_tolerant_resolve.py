"""What `tolerant PATH` means, before anything runs."""

import os
from pathlib import Path

import pytest

from lcinit.errors import CommandFailed
from lcinit.tools.tolerant import Step, resolve


def make(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o644) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_an_executable_runs_as_it_is_with_what_was_written_as_argv_0(tmp_path: Path) -> None:
    program = make(tmp_path / "program", mode=0o755)
    assert resolve(program, ["a", "b"]).steps == (Step(file=program, argv=(program, "a", "b")),)


def test_a_link_keeps_the_name_that_was_written(tmp_path: Path) -> None:
    """busybox looks at argv[0] for what it is."""
    make(tmp_path / "busybox", mode=0o755)
    (tmp_path / "ls").symlink_to("busybox")
    assert resolve(str(tmp_path / "ls")).steps[0].argv == (str(tmp_path / "ls"),)


def test_a_bare_name_is_looked_up_and_stays_argv_0(tmp_path: Path) -> None:
    make(tmp_path / "tool", mode=0o755)
    (step,) = resolve("tool", ["x"], search=f"/nowhere:{tmp_path}").steps
    assert step == Step(file=str(tmp_path / "tool"), argv=("tool", "x"))


def test_a_bare_name_prefers_what_is_executable(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    make(tmp_path / "one" / "tool")
    good = make(tmp_path / "two" / "tool", mode=0o755)
    assert resolve("tool", search=f"{tmp_path}/one:{tmp_path}/two").steps[0].file == good
    assert resolve("tool", search=f"{tmp_path}/one").steps[0].argv == ("/bin/sh", f"{tmp_path}/one/tool")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#!/bin/sh\n", ("/bin/sh",)),
        ("#!/bin/sh", ("/bin/sh",)),
        ("#! /bin/sh -e\t-u  \n", ("/bin/sh", "-e", "-u")),
        ("#!/usr/bin/env -S sh -e\r\n", ("/usr/bin/env", "-S", "sh", "-e")),
    ],
)
def test_the_words_of_a_script_are_split_on_blanks(tmp_path: Path, line: str, words: tuple[str, ...]) -> None:
    script = make(tmp_path / "script", line)
    assert resolve(script, ["x y"]).steps == (Step(file=words[0], argv=(*words, script, "x y")),)


def test_a_bare_interpreter_is_searched_in_path(tmp_path: Path) -> None:
    interpreter = make(tmp_path / "mysh", mode=0o755)
    script = make(tmp_path / "script", "#!mysh -x\n")
    (step,) = resolve(script, search=str(tmp_path)).steps
    assert step == Step(file=interpreter, argv=("mysh", "-x", script))
    with pytest.raises(CommandFailed) as caught:
        resolve(script, search="/nowhere")
    assert caught.value.exit_code == 127


@pytest.mark.parametrize("text", ["", "echo hi\n", "#!\n", "#!   \n", "\x7fELF", "#!/" + "x" * 5000])
def test_neither_executable_nor_a_script_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandFailed, match="not executable") as caught:
        resolve(make(tmp_path / "file", text))
    assert caught.value.exit_code == 126


def test_a_directory_is_sorted_recursed_and_its_leavings_skipped(tmp_path: Path) -> None:
    for name in ("b", "a", "B", ".hidden", "a~", "ä"):
        make(tmp_path / name, mode=0o755)
    (tmp_path / "aa").mkdir()
    make(tmp_path / "aa" / "2")
    make(tmp_path / "aa" / "1", mode=0o755)
    (tmp_path / ".d").mkdir()
    make(tmp_path / ".d" / "no", mode=0o755)
    commands = resolve(str(tmp_path), ["arg"])
    assert commands.directory
    names = [os.path.relpath(step.argv[-2], tmp_path) for step in commands.steps]
    assert names == ["B", "a", "aa/1", "aa/2", "b", "ä"]
    assert all(step.argv[-1] == "arg" for step in commands.steps)


def test_an_empty_directory_is_nothing_to_do(tmp_path: Path) -> None:
    commands = resolve(str(tmp_path))
    assert commands.directory
    assert commands.steps == ()


def test_a_link_loop_is_refused_and_a_second_way_to_a_directory_is_not(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    make(tmp_path / "d" / "x", mode=0o755)
    (tmp_path / "e").symlink_to("d")
    assert len(resolve(str(tmp_path)).steps) == 2
    (tmp_path / "d" / "up").symlink_to("..")
    with pytest.raises(CommandFailed, match="lies in itself") as caught:
        resolve(str(tmp_path))
    assert caught.value.exit_code == 126


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("l")
    with pytest.raises(CommandFailed, match="symbolic links") as caught:
        resolve(str(tmp_path))
    assert caught.value.exit_code == 126


@pytest.mark.row(24)
def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o755)
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(CommandFailed, match="neither a file nor") as caught:
            resolve(str(path))
        assert caught.value.exit_code == 126


@pytest.mark.parametrize("name", ["missing", "file/below"])
def test_what_is_not_there_is_127(tmp_path: Path, name: str) -> None:
    make(tmp_path / "file")
    with pytest.raises(CommandFailed) as caught:
        resolve(str(tmp_path / name))
    assert caught.value.exit_code == 127


def test_a_dangling_link_in_a_directory_stops_before_the_first_runs(tmp_path: Path) -> None:
    make(tmp_path / "a", mode=0o755)
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(CommandFailed) as caught:
        resolve(str(tmp_path))
    assert caught.value.exit_code == 127
