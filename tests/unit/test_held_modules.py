"""Modules that are read at the start and imported later, each case in an interpreter of its own."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

import lcinit

PACKAGE = Path(lcinit.__file__).parent


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.path += {[str(path) for path in (PACKAGE.parent, *paths)]!r}\n"
    argv = [sys.executable, "-I", "-S", "-c", start + "from lcinit.boot import guard, held\n" + code]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


# what `lcinit init` does in this order
SPAWNER = """
from lcinit.cli import init, main
from lcinit.boot import reading
from lcinit.service import early
held.hold(*early.FOR_FUNCTIONS)
"""
IMPORT_ALL = """
guard.close()
names = sorted(held.names())
for name in names:
    __import__(name)
print(len(names), *held.names())
"""


@pytest.mark.parametrize(
    ("before", "count"),
    [
        pytest.param(SPAWNER, 15, id="spawner"),
        pytest.param(
            SPAWNER + "from lcinit.boot import boot\nfrom lcinit.service import stay; stay.prepare()", 25, id="PID 1"
        ),
    ],
)
def test_all_that_they_import_is_there_once_imports_are_refused(before: str, count: int) -> None:
    done = run(before + IMPORT_ALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= count


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "__init__.py").write_text("")
    (tmp_path / "kept" / "one.py").write_text("from kept import two\nVALUE = two.VALUE + 1\n")
    (tmp_path / "kept" / "two.py").write_text("VALUE = 1\ndef fail():\n    raise ValueError(__file__)\n")
    return tmp_path


def test_it_is_run_when_it_is_imported_and_not_read_again(package: Path) -> None:
    code = f"""
import os
held.hold("kept.one", "kept.two")
guard.close()
os.unlink({str(package / "kept" / "one.py")!r})
before = "kept.one" in sys.modules
from kept import one
print(before, one.VALUE, one.__file__, held.names(), sys.modules["kept"].one is one)
try:
    one.two.fail()
except ValueError as error:
    print(error, error.__traceback__.tb_next.tb_frame.f_code.co_filename)
"""
    done = run(code, package)
    two = package / "kept" / "two.py"
    assert done.stdout.splitlines() == [f"False 2 {package}/kept/one.py frozenset() True", f"{two} {two}"], done


def test_what_a_module_wants_beside_it_is_refused_by_name(package: Path) -> None:
    done = run('held.hold("kept.one")\nguard.close()\nfrom kept import one', package)
    assert "kept.two must be imported before the root changes" in done.stderr
    assert done.returncode == 1


def test_one_that_could_not_be_run_can_be_imported_later(package: Path) -> None:
    code = """
held.hold("kept.one")
try:
    sys.modules["kept.two"] = None
    import kept.one
except ImportError:
    del sys.modules["kept.two"]
import kept.one
print(kept.one.VALUE)
"""
    assert run(code, package).stdout == "2\n"


HASHED = {
    "by hash": py_compile.PycInvalidationMode.CHECKED_HASH,
    "by hash, unchecked": py_compile.PycInvalidationMode.UNCHECKED_HASH,
}


@pytest.mark.parametrize("compiled", ["not at all", "of another source", *HASHED, "without its source", "broken"])
def test_code_is_that_of_the_source(package: Path, compiled: str) -> None:
    source = package / "kept" / "two.py"
    if compiled == "of another source":
        py_compile.compile(str(source))
        source.write_text("VALUE = 10  # longer\n")
    elif compiled in HASHED:
        py_compile.compile(str(source), invalidation_mode=HASHED[compiled])
        if compiled == "by hash, unchecked":
            source.write_text("VALUE = 2\n")
    elif compiled == "broken":
        Path(py_compile.compile(str(source)) or "").write_bytes(b"no code")
    elif compiled == "without its source":
        py_compile.compile(str(source), cfile=str(source) + "c")
        os.unlink(source)
    done = run('held.hold("kept.two")\nguard.close()\nimport kept.two\nprint(kept.two.VALUE)', package)
    assert done.stdout == ("10\n" if compiled == "of another source" else "1\n"), done


def test_what_is_not_there_is_an_error(package: Path) -> None:
    assert "there is no module kept.three" in run('held.hold("kept.three")', package).stderr
