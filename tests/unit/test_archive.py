"""The file that a boot root imports lcinit's code from, each case in an interpreter of its own."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

import lcinit
from lcinit.archive import NAME
from lcinit.tools.code_archive import write

TAG = sys.implementation.cache_tag


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("compiled")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(lcinit.__file__).parent, site / "lcinit", ignore=ignore)
    compileall.compile_dir(site, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    write(str(site), TAG)
    return site


@pytest.fixture
def site(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "site"))


def run(site: Path, code: str) -> str:
    """What `code` prints, after modules are imported from the file."""
    start = f"import sys; sys.path.append({str(site)!r})\nfrom lcinit import archive; archive.use()\n"
    argv = [sys.executable, "-I", "-S", "-c", start + code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def loaders(site: Path, *names: str) -> list[bool]:
    """Whether modules come from the file."""
    code = f"""
import importlib
for name in {names!r}:
    print(isinstance(importlib.import_module(name).__spec__.loader, archive.Loader))
"""
    return [line == "True" for line in run(site, code).splitlines()]


def test_all_that_pid_1_imports_comes_from_it(site: Path) -> None:
    names = """
from lcinit.cli import init, main
from lcinit.boot import boot, reading
from lcinit.service import early, stay
held = early.held
held.hold(*early.FOR_FUNCTIONS)
stay.prepare()
from lcinit.guest import stay
for name, module in sys.modules.items():
    if name.startswith("lcinit.") and not isinstance(module.__spec__.loader, archive.Loader):
        print(name)
"""
    assert run(site, names) == "lcinit.archive\n"


def test_a_module_looks_as_if_it_had_been_imported_from_its_file(site: Path) -> None:
    code = """
from lcinit.service import task
import lcinit.service
print(task.__file__, task.__cached__, task.__package__, lcinit.service.__file__, *lcinit.service.__path__)
print(task.Task.happen.__code__.co_filename)
"""
    words = run(site, code).split()
    package = site / "lcinit" / "service"
    cached = package / "__pycache__" / f"task.{TAG}.pyc"
    of_package = ["lcinit.service", str(package / "__init__.py"), str(package)]
    assert words[:-1] == [str(package / "task.py"), str(cached), *of_package]
    assert words[-1].endswith("/lcinit/service/task.py")


def test_commands_of_a_shell_are_not_in_it(site: Path) -> None:
    assert loaders(site, "lcinit.cli.status", "lcinit.tools.links", "lcinit.cli.init") == [False, False, True]


def test_what_is_held_comes_from_it(site: Path) -> None:
    code = """
from lcinit import record
from lcinit.boot import guard, held
held.hold("lcinit.service.states")
import os
os.unlink(sys.modules["lcinit"].__path__[0] + "/service/states.py")
guard.close()
from lcinit.service import states
print(states.__file__, archive.Finder in sys.meta_path)
try:
    from lcinit.control import keeper
except ImportError as error:
    print(error)
"""
    first, second = run(site, code).splitlines()
    assert first == f"{site}/lcinit/service/states.py False"
    assert second.startswith("lcinit.control must be imported before the root changes")


@pytest.mark.parametrize("what", ["gone", "another size"])
def test_a_module_that_was_compiled_again_comes_from_its_own_file(site: Path, what: str) -> None:
    source, cached = site / "lcinit" / "history.py", site / "lcinit" / "__pycache__" / f"history.{TAG}.pyc"
    source.write_text("print('this one')\n")
    if what == "gone":
        cached.unlink()
    else:
        compileall.compile_file(source, quiet=1, force=True)
    assert run(
        site, "from lcinit import history, record\nprint(isinstance(record.__spec__.loader, archive.Loader))"
    ) == ("this one\nTrue\n")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _data: None, id="there is none"),
        pytest.param(lambda _data: b"", id="empty"),
        pytest.param(lambda data: bytes(4) + data[4:], id="another interpreter's"),
        pytest.param(lambda data: data.replace(lcinit.__version__.encode(), b"9.9.9", 1), id="another lcinit's"),
        pytest.param(lambda data: data[:6], id="cut off in its size"),
        pytest.param(lambda data: data[:100], id="cut off in its index"),
        pytest.param(lambda data: data[:-1], id="cut off in its code"),
    ],
)
def test_a_file_that_is_not_for_this_lcinit_is_not_used(site: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    file = site / NAME
    data = spoil(file.read_bytes())
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    assert loaders(site, "lcinit.history") == [False]


def test_it_is_not_read_by_the_numbers_of_descriptors_that_were_open(site: Path) -> None:
    assert run(site, "import os\nos.closerange(3, 100)\nfrom lcinit import history\nprint('here')") == "here\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="a boot root is made by root")
def test_the_boot_root_starts_with_it(boot_root: str) -> None:
    assert os.path.exists(f"{boot_root}/usr/lib/lcinit/site/{NAME}")
    code = "import sys; sys.argv = ['lcinit', '--version']; exec(open('/usr/lib/lcinit/bin/lcinit').read())"
    code = f"try:\n    {code}\nexcept SystemExit:\n    print(sys.modules['lcinit.cli.main'].__spec__.loader)"
    argv = ["chroot", boot_root, "/usr/bin/python3", "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert "lcinit.archive.Loader object" in done.stdout, done
