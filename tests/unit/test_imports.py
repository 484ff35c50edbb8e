"""Modules from their .pyc files, each case in an interpreter of its own."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

import lcinit

PACKAGE = Path(lcinit.__file__).parent
TAG = sys.implementation.cache_tag
UNCHECKED, BY_TIME, CHECKED = (
    PycInvalidationMode.UNCHECKED_HASH,
    PycInvalidationMode.TIMESTAMP,
    PycInvalidationMode.CHECKED_HASH,
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A package `some` with a module `one`, which imports a package `some.within`."""
    (tmp_path / "some" / "within").mkdir(parents=True)
    (tmp_path / "some" / "__init__.py").write_text("")
    (tmp_path / "some" / "one.py").write_text("from some import within\nfrom some.within import two\nVALUE = 1\n")
    (tmp_path / "some" / "within" / "__init__.py").write_text("HERE = True\n")
    (tmp_path / "some" / "within" / "two.py").write_text("def fail():\n    raise ValueError\n")
    return tmp_path


def compiled(site: Path, mode: PycInvalidationMode = UNCHECKED) -> Path:
    compileall.compile_dir(site, quiet=1, invalidation_mode=mode, force=True)
    return site


def run(site: Path, code: str, *options: str) -> list[str]:
    """The lines that `code` prints, with the finder in use."""
    start = f"import sys; sys.path += {[str(PACKAGE.parent), str(site)]!r}\nfrom lcinit import imports; imports.use()\n"
    start += "def ours(module): return isinstance(module.__spec__.loader, imports.Loader)\n"
    argv = [sys.executable, "-I", "-S", "-B", *options, "-c", start + code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("mode", [UNCHECKED, BY_TIME])
def test_modules_and_packages_look_as_the_interpreters_own(site: Path, mode: PycInvalidationMode) -> None:
    code = """
from some import one
import some.within
for module in (one, some.within, some.within.two):
    spec = module.__spec__
    print(ours(module), module.__name__, module.__package__, module.__file__, module.__cached__, spec.origin,
          spec.cached, spec.parent, spec.has_location, spec.submodule_search_locations, spec.loader_state,
          getattr(module, "__path__", None))
print(one.VALUE, one.within.HERE, some.one is one)
try:
    some.within.two.fail()
except ValueError as error:
    print(error.__traceback__.tb_next.tb_frame.f_code.co_filename)
"""
    compiled(site, mode)
    own = run(site, code)
    usual = run(site, "sys.meta_path.remove(imports.Finder)\n" + code)
    assert [line.split()[0] for line in own[:3]] == ["True"] * 3
    assert [line.split()[0] for line in usual[:3]] == ["False"] * 3
    assert [line.removeprefix("True ") for line in own] == [line.removeprefix("False ") for line in usual]


def test_a_module_that_was_changed_is_compiled_anew(site: Path) -> None:
    compiled(site, BY_TIME)
    (site / "some" / "one.py").write_text("VALUE = 22\n")
    assert run(site, "from some import one\nprint(one.VALUE, ours(one))") == ["22 False"]


def test_one_that_was_changed_within_the_same_second_and_size_is_seen_by_its_time(site: Path) -> None:
    compiled(site, BY_TIME)
    source = site / "some" / "within" / "__init__.py"
    source.write_text("HERE = None\n")
    os.utime(source, (0, 12345))
    assert run(site, "from some import within\nprint(within.HERE, ours(within))") == ["None False"]


def test_one_that_was_compiled_again_is_taken_as_it_is_now(site: Path) -> None:
    compiled(site)
    assert run(site, "from some.within import two\nprint(ours(two))") == ["True"]
    (site / "some" / "one.py").write_text("VALUE = 2\n")
    compiled(site)
    assert run(site, "from some import one\nprint(one.VALUE, ours(one))") == ["2 True"]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _data: b"", id="empty"),
        pytest.param(lambda data: data[:9], id="cut off in its head"),
        pytest.param(lambda data: b"\0\0\0\0" + data[4:], id="another interpreter's"),
        pytest.param(lambda data: data[:4] + b"\2\0\0\0" + data[8:], id="of a kind that is not known"),
    ],
)
def test_a_file_that_does_not_stand_for_its_source_is_not_taken(site: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    compiled(site)
    cached = site / "some" / "__pycache__" / f"one.{TAG}.pyc"
    data = spoil(cached.read_bytes())
    cached.write_bytes(data)
    code = "from lcinit.imports import compiled\nimport some\nprint(compiled('some.one', some.__path__))"
    assert run(site, code) == ["None"]


def test_what_is_no_case_of_it_is_left_to_the_others(site: Path) -> None:
    code = """
import types, some, json.decoder
from some import one
other = types.ModuleType("other")
print(ours(some), ours(one), ours(json))
print(imports.Finder.find_spec("some.nothing", some.__path__), imports.Finder.find_spec("some"),
      imports.Finder.find_spec("some.one", [*some.__path__, "/nowhere"]))
"""
    compiled(site, CHECKED)
    assert run(site, code) == ["False False False", "None None None"]


def test_under_the_option_for_other_files_it_is_not_used(site: Path) -> None:
    compiled(site)
    assert run(site, "from some import one\nprint(ours(one))", "-O") == ["False"]


def test_pid_1_imports_so(tmp_path: Path) -> None:
    """`lcinit init` of a process that is not PID 1 gets as far as its refusal before; so a look at what it did."""
    code = """
from lcinit.cli import init
import os
os.getpid = lambda: 1
init.take_streams = lambda: print(imports.Finder in sys.meta_path) or sys.exit(0)
sys.meta_path.remove(imports.Finder)
init.run([], "lcinit init")
"""
    assert run(tmp_path, code) == ["True"]
