"""Reading files: what is read, what is refused at once, and what it costs PID 1."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from lcinit.cli import check
from lcinit.config.load import MAX_BYTES, load
from lcinit.config.values import Config, Root
from lcinit.errors import EX_CONFIG, EX_NOPERM, ConfigError, UsageError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "init.yml"
    path.write_text("root: /srv\n")
    return str(path)


def refused(path: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value


def test_a_file_is_read_by_name_and_by_default(file):
    assert load(file) == load(None, file) == Config(root=Root(path="/srv"))


def test_no_default_file_means_defaults(tmp_path):
    assert load(None, str(tmp_path / "init.yml")) == Config()
    assert load(None, str(tmp_path / "no" / "init.yml")) == Config()


def test_a_default_that_leads_nowhere_is_an_error(tmp_path):
    link = tmp_path / "init.yml"
    link.symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"init\.yml: No such file or directory"):
        load(None, str(link))


def test_a_named_file_must_exist(tmp_path):
    error = refused(str(tmp_path / "x"))
    assert error.exit_code == EX_CONFIG
    assert str(error) == (f"cannot read {tmp_path}/x: No such file or directory; name a file that is there")


@pytest.mark.row(24)
@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "device", "long"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, kind):
    path = str(tmp_path / "x")
    server = socket.socket(socket.AF_UNIX)
    if kind == "directory":
        os.mkdir(path)
        cause = "it is a directory"
    elif kind == "fifo":
        os.mkfifo(path)
        cause = "it is a FIFO"
    elif kind == "socket":
        server.bind(path)
        cause = "No such device or address"
    elif kind == "device":
        path, cause = "/dev/zero", "it is a character device"
    else:
        with open(path, "wb") as long:
            long.truncate(MAX_BYTES + 1)
        cause = f"it is longer than {MAX_BYTES} bytes"
    error = refused(path)
    server.close()
    assert error.exit_code == EX_CONFIG
    assert cause in str(error)


def test_dev_null_is_an_empty_file():
    assert load("/dev/null") == Config()


def test_a_file_of_the_greatest_length_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"root: /srv\n".ljust(MAX_BYTES, b"\n"))
    assert load(str(path)).root.path == "/srv"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "x"
    path.touch(mode=0o600)
    code = (
        "import os, sys\nfrom lcinit.config.load import load\nfrom lcinit.errors import ConfigError\n"
        "os.seteuid(65534)\n"
        "try: load(sys.argv[1])\n"
        "except ConfigError as error: print(error.exit_code, error)"
    )
    for directory in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(directory, 0o755)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{EX_NOPERM} cannot read {path}: Permission denied; make it readable to lcinit\n"


def test_reading_leaves_no_descriptor_open(tmp_path, file):
    before = len(os.listdir("/proc/self/fd"))
    load(file)
    refused(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has after some code."""
    script = f"import sys\nsys.path.insert(0, {os.getcwd()!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_without_a_file_nothing_is_imported_to_read_one():
    modules = modules_after("from lcinit.config.load import load\nload(None, '/nonexistent/init.yml')")
    assert {name for name in modules if name.startswith("lcinit")} == {
        *("lcinit", "lcinit.config", "lcinit.config.load", "lcinit.config.values", "lcinit.errors", "lcinit.record")
    }
    assert not modules & {"yaml", "re", "typing", "dataclasses"}


TYPICAL = """
root: /mnt/root
exec: {mode: tolerant, pid: shared}
services:
  web: {command: /srv/web --port 80, restart: always, restart_delay: 0, requires: data_base.1}
"""


def test_a_typical_file_takes_few_modules_and_next_to_nothing_of_yaml(tmp_path):
    import yaml

    site = os.path.dirname(os.path.dirname(yaml.__file__))
    without = modules_after("import os, errno, __future__")
    (tmp_path / "init.yml").write_text(TYPICAL)
    path = str(tmp_path / "init.yml")
    modules = modules_after(f"sys.path.append({site!r})\nfrom lcinit.config.load import load\nload({path!r})")
    of_yaml = {f"yaml.{name}" for name in ("_yaml", "error", "events", "nodes", "tokens")}
    others = {name for name in modules - without if "cython" not in name and not name.startswith("lcinit.")}
    assert others <= of_yaml | {"lcinit", "select"}
    assert not modules & {"typing", "dataclasses", "inspect", "difflib", "shlex", "json", "argparse", "ctypes"}


def test_check_prints_ok_or_every_problem(file, tmp_path, capsys):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("rot: /\nhostname: 1\n")
    assert check.run([file]) == 0
    assert capsys.readouterr() == (f"{file}: ok\n", "")
    assert check.run([file, str(wrong)]) == EX_CONFIG
    out, err = capsys.readouterr()
    assert out == f"{file}: ok\n"
    assert err.splitlines() == [
        f'{wrong}:1:1: rot: the key "rot" is unknown; did you mean root?',
        f'{wrong}:2:11: hostname: is the number 1; write a host name or null ("1", with the quotes, is text)',
    ]


def test_check_as_json(file, tmp_path, capsys):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("rot: /\n")
    assert check.run(["--json", file, str(wrong), str(tmp_path / "none")]) == EX_CONFIG
    right, bad, missing = json.loads(capsys.readouterr().out)
    assert right == {"file": file, "ok": True, "error": None, "problems": []}
    assert bad["problems"] == [
        {"line": 1, "column": 1, "path": "rot", "what": 'the key "rot" is unknown', "right": "did you mean root?"}
    ]
    assert (bad["ok"], missing["ok"], missing["problems"]) == (False, False, [])
    assert "No such file" in missing["error"]


def test_check_without_a_file_is_a_usage_error():
    with pytest.raises(UsageError, match="FILE"):
        check.run([])


def test_check_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        check.run(["--help"])
    assert ended.value.code == 0
    assert "lcinit check /mnt/init.yml" in capsys.readouterr().out
