"""`tolerant` run as users run it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
TOLERANT = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from lcinit.cli.main import main; sys.exit(main(sys.argv))",
    ROOT,
    "tolerant",
]


def tolerant(*args: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOLERANT, *map(str, args)], capture_output=True, text=True, timeout=20, **options)


def script(path: Path, body: str, mode: int = 0o644) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def test_a_file_takes_tolerants_place(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*TOLERANT, script(tmp_path / "s", "echo $$ $1"), "arg"], stdout=subprocess.PIPE, text=True
    )
    assert process.communicate(timeout=20)[0] == f"{process.pid} arg\n"


def test_options_behind_the_path_are_the_programs_own(tmp_path: Path) -> None:
    assert tolerant(script(tmp_path / "s", 'echo "$@"'), "--help", "--", "-x").stdout == "--help -- -x\n"


def test_signals_that_python_ignores_are_not_inherited_as_ignored(tmp_path: Path) -> None:
    for path in (script(tmp_path / "s", "grep SigIgn /proc/self/status"), tmp_path):
        ignored = int(tolerant(path).stdout.split()[1], 16)
        # GNU make leaves the C library's own 32 and 33 ignored, which no program can see to (nptl(7))
        assert ignored & ~(3 << 31) == 0
        assert tolerant(path).returncode == 0


def test_the_first_failure_of_a_directory_is_the_result(tmp_path: Path) -> None:
    script(tmp_path / "1", "echo one $1")
    script(tmp_path / "2", "echo two; exit 7", 0o755)
    script(tmp_path / "3", "echo three")
    done = tolerant(tmp_path, "x")
    assert (done.stdout, done.returncode) == ("one x\ntwo\n", 7)


def test_a_child_killed_by_a_signal_is_128_and_its_number(tmp_path: Path) -> None:
    script(tmp_path / "1", "kill -USR1 $$")
    assert tolerant(tmp_path).returncode == 128 + signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGRTMIN + 3])
def test_a_signal_is_passed_to_the_child(tmp_path: Path, number: int) -> None:
    script(tmp_path / "1", f"trap 'echo caught; exit 5' {int(number)}; echo ready; while :; do sleep 0.05; done")
    process = subprocess.Popen([*TOLERANT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == "caught\n"
    assert process.returncode == 5


def test_a_termination_ends_the_run_even_if_the_child_takes_it_well(tmp_path: Path) -> None:
    script(tmp_path / "1", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    script(tmp_path / "2", "echo second")
    process = subprocess.Popen([*TOLERANT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 128 + signal.SIGTERM


def test_what_cannot_be_run_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no script")
    (tmp_path / "gone").write_text("#!/nowhere/sh\n")
    for path, code in (
        (tmp_path / "data", 126),
        (tmp_path / "missing", 127),
        (tmp_path, 126),
        (tmp_path / "gone", 126),
    ):
        done = tolerant(path)
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == 1
        assert str(path) in done.stderr


def test_a_bare_interpreter_and_a_bare_name_come_from_path(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("#!sh -e\necho $0\nfalse\necho not reached\n")
    done = tolerant("hook", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (done.stdout, done.returncode) == (f"{tmp_path}/hook\n", 1)


def test_children_of_a_directory_leave_nothing_behind(tmp_path: Path) -> None:
    script(tmp_path / "1", "exec sleep 30")
    process = subprocess.Popen([*TOLERANT, str(tmp_path)])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 10
    while not (child := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.02)
    while Path(f"/proc/{child[0]}/comm").read_text() != "sleep\n" and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{child[0]}").exists()
