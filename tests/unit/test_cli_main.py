"""The one program: what it does when its output cannot be written or encoded, and that mistakes are one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcinit.cli.main import COMMANDS

WRITES = (["--help"], ["--version"], ["schema"], ["check", "--help"], ["completion", "bash"])


def _run(
    *words: str, environment: dict[str, str] | None = None, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "lcinit", *words]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(command, stdout=stdout, stderr=stderr, env=inherited | (environment or {}), timeout=30)


@pytest.fixture
def full() -> Iterator[int]:
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    # argparse's own --help says nothing of a write that fails at once
    [(words, flag) for words in WRITES for flag in ("", "1") if not (flag and "--help" in words[1:])],
)
def test_output_that_cannot_be_written_is_one_line(words: list[str], unbuffered: str, full: int) -> None:
    done = _run(*words, environment={"PYTHONUNBUFFERED": unbuffered}, stdout=full)
    name = f"lcinit {words[0]}" if words[0] in COMMANDS else "lcinit"
    assert done.stderr.decode() == f"{name}: cannot write the output: No space left on device\n"
    assert done.returncode == 71


def test_mistakes_that_cannot_be_written_are_told_by_the_exit_code(full: int) -> None:
    assert _run("check", "/nonexistent", stdout=full, stderr=full).returncode == 71


def test_reader_that_has_seen_enough_gets_no_message() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = _run("schema", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (71, b"")


def test_text_that_the_locale_cannot_encode_is_escaped(tmp_path: Path) -> None:
    file = tmp_path / "init.yml"
    file.write_text("root: null\nid_map: false\nexec: [/bin/echo, gr\u00fc\u00dfe]\n", encoding="utf-8")
    done = _run("plan", "--config", str(file), environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"exec /bin/echo gr\\xfc\\xdfe" in done.stdout


@pytest.mark.parametrize(
    ("words", "missing"),
    [(["mount-idmapped"], "SOURCE, TARGET"), (["tolerant"], "PATH"), (["links"], "DIR"), (["run"], "DIR")],
)
def test_what_is_missing_is_what_is_needed(words: list[str], missing: str) -> None:
    done = _run(*words)
    assert done.stderr.decode().startswith(f"lcinit {words[0]}: the following arguments are required: {missing}; see")
    assert done.returncode == 64


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_and_the_exit_codes(command: str) -> None:
    text = _run(command, "--help").stdout.decode()
    assert "example" in text
    assert "exit " in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_links_into_what_is_no_directory_name_it() -> None:
    done = _run("links", "/nonexistent")
    assert (
        done.stderr.decode()
        == "lcinit links: cannot make links in /nonexistent: it is not a directory; make it first\n"
    )
    assert done.returncode == 64


def test_ctrl_c_ends_a_command_without_a_word(tmp_path: Path) -> None:
    """As it ends cat(1): by the signal itself, which is how a shell knows not to go on with its script."""
    waiting = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(waiting))
        server.listen()
        server.settimeout(30)
        command = [sys.executable, "-m", "lcinit", "status", "--socket", str(waiting)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
            connection, _ = server.accept()
            connection.recv(1024)
            asking.send_signal(signal.SIGINT)
            output, errors = asking.communicate(timeout=30)
            connection.close()
    assert (asking.returncode, output, errors) == (-signal.SIGINT, b"", b"")
