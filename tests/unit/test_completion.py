"""The bash completion: its table says what every command's --help says, and bash offers what the table says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lcinit.cli import completion
from lcinit.cli.main import CALLED, COMMANDS

_OPTION = re.compile(r"^  (?:(-\w), )?(--?[\w-]+)(?: ([A-Z][^ ]*))?(?:  |$)")

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def _help(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lcinit", *command.split(), "--help"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _options(text: str) -> dict[str, bool]:
    """Option → whether it takes a value, as the lines of a help text have it."""
    found = {}
    for line in text.splitlines():
        if match := _OPTION.match(line):
            found[match[2]] = match[3] is not None
    return found


def test_every_command_is_in_the_table() -> None:
    assert {name.partition(" ")[0] for name in completion.TABLE} == set(COMMANDS)


@pytest.mark.parametrize("command", completion.TABLE)
def test_table_has_the_options_that_help_has(command: str) -> None:
    wanted = _options(_help(command))
    assert wanted, "no option was found in the help text"
    table = {option: bool(kind) for option, kind in completion.TABLE[command].options}
    assert table | dict.fromkeys(completion.COMMON, False) == wanted


@pytest.mark.parametrize("command", completion.TABLE)
def test_table_has_arguments_where_help_has(command: str) -> None:
    usage = _help(command).partition("\n\n")[0].removeprefix("usage: ")
    without_options = re.sub(r"\[-[^][]*(\[[^]]*\])?[^][]*\]|--?\w[\w-]*(=| )[A-Z]+(\.\.\.)?", "", usage)
    assert bool(re.search(r"\b[A-Z]{3,}|\bbash\b", without_options)) == bool(completion.TABLE[command].arguments)


def _complete(*words: str, cwd: Path | None = None) -> list[str]:
    """What bash offers for the last word."""
    script = completion.bash() + (
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lcinit; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words], capture_output=True, text=True, cwd=cwd, timeout=30
    )
    assert done.stderr == ""
    return sorted(filter(None, done.stdout.split("\n")))


@needs_bash
def test_commands_are_offered_first() -> None:
    assert _complete("lcinit", "") == sorted([*COMMANDS, *completion.COMMON])
    assert _complete("lcinit", "d") == ["daemon-reload", "demo", "disable", "doctor"]


@needs_bash
@pytest.mark.parametrize("command", [name for name in completion.TABLE if " " not in name])
def test_options_are_offered_for_a_dash(command: str) -> None:
    wanted = sorted([*(option for option, _ in completion.TABLE[command].options), *completion.COMMON])
    assert _complete("lcinit", command, "-") == wanted


@needs_bash
@pytest.mark.parametrize("name", CALLED)
def test_the_other_names_complete_as_the_commands_do(name: str) -> None:
    assert _complete(f"/sbin/{name}", "--") == _complete("lcinit", name, "--")
    assert f" {name}" in completion.bash().splitlines()[-1]


@needs_bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("lcinit", "telinit", ""), sorted("0123456789sSqQabcuU")),
        (("lcinit", "initctl", "s"), ["s", "serve"]),
        (("lcinit", "initctl", "--fifo", "x", "6"), ["6"]),
        (("lcinit", "initctl", "serve", "--p"), ["--pid", "--poweroff"]),
        (("lcinit", "initctl", "serve", "--halt", "SIGTER"), ["SIGTERM"]),
        (("initctl", "-t", "0"), []),
        (("lcinit", "init", "0"), ["0"]),
        (("lcinit", "init", "/bin/sh", "-"), []),
        (("lcinit", "completion", ""), ["bash"]),
        (("lcinit", "completion", "bash", ""), []),
        (("lcinit", "demo", "--s"), ["--shell", "--show-config", "--steps"]),
        (("lcinit", "log-level", ""), ["debug", "error", "info", "warning"]),
        (("lcinit", "log-level", "info", ""), []),
        (("lcinit", "kill", "--whom", ""), ["all", "init", "main"]),
        (("lcinit", "wait", "--for", ""), ["ready", "stopped"]),
        (("lcinit", "daemon-reload", ""), []),
        (("runlevel", "-"), ["--help", "--json", "--socket", "--version"]),
        (("lcinit", "nonsense", ""), []),
        (("lcinit", "mount-idmapped", "--map-mount", "="), ["/proc/", "b:", "g:", "u:"]),
    ],
)
def test_offers(words: tuple[str, ...], offered: list[str]) -> None:
    assert _complete(*words) == offered


@needs_bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("lcinit", "start", ""), ["getty@tty1", "nginx", "sshd"]),
        (("lcinit", "stop", "nginx", "s"), ["sshd"]),
        (("lcinit", "restart", "--no-block", "n"), ["nginx"]),
        (("lcinit", "status", "g"), ["getty@tty1"]),
        (("lcinit", "kill", "-s", "HUP", "ng"), ["nginx"]),
        (("lcinit", "kill", "nginx", ""), []),
        (("lcinit", "events", "--follow", "x"), []),
    ],
)
def test_offers_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], offered: list[str]
) -> None:
    program = tmp_path / "lcinit"
    names = r"""nginx sshd getty@tty1 '$(echo evil)' 'a b'"""
    program.write_text(f'#!/bin/sh\n[ "$*" = "status --names" ] && printf "%s\\n" {names}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert _complete(*words) == offered


@needs_bash
def test_no_services_are_offered_where_lcinit_does_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "lcinit"
    program.write_text("#!/bin/sh\necho no >&2\nexit 71\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert _complete("lcinit", "start", "") == []


@needs_bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("lcinit", "check", ""), ["a b.yml", "adir", "other"]),
        (("lcinit", "check", "other", "a"), ["a b.yml", "adir"]),
        (("lcinit", "plan", "--config", "o"), ["other"]),
        (("lcinit", "plan", "--config", "=", "a b"), ["a b.yml"]),
        (("lcinit", "plan", "--config", "="), ["a b.yml", "adir", "other"]),
        (("lcinit", "plan", "--config", "=", "other", "--j"), ["--json"]),
        (("lcinit", "overlay", "--path", ""), ["adir"]),
        (("lcinit", "overlay", "--", "a"), ["adir"]),
        (("lcinit", "overlay", "--", "-"), []),
        (("tolerant", "o"), ["other"]),
        (("tolerant", "other", "-"), []),
        (("lcinit", "links", ""), ["adir"]),
    ],
)
def test_offers_files(tmp_path: Path, words: tuple[str, ...], offered: list[str]) -> None:
    (tmp_path / "a b.yml").touch()
    (tmp_path / "other").touch()
    (tmp_path / "adir").mkdir()
    assert _complete(*words, cwd=tmp_path) == offered


@needs_bash
def test_lcinit_completion_bash_prints_it() -> None:
    command = [sys.executable, "-m", "lcinit", "completion"]
    done = subprocess.run([*command, "bash"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, completion.bash())
    assert subprocess.run([*command, "csh"], capture_output=True, text=True, timeout=30).returncode == 64
    checked = subprocess.run(["bash", "-n"], input=done.stdout, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stderr) == (0, "")
