"""`lcinit check` with service files, alone, in directories, and beside a configuration."""

from __future__ import annotations

import json

import pytest

from lcinit.cli import check
from lcinit.config.service_tree import is_service
from lcinit.errors import EX_CONFIG, EX_NOPERM, ConfigError


@pytest.fixture
def place(tmp_path):
    """Writes files, by their names and texts."""

    def write(**files):
        for name, text in files.items():
            (tmp_path / f"{name.replace('__', '-')}.yml").write_text(text)
        return tmp_path

    return write


def checked(capsys, *args):
    """The exit code, and the lines of stdout and stderr without the directory."""
    code = check.run([str(arg) for arg in args])
    directory = next((str(arg).rstrip("/") for arg in args if not str(arg).startswith("-")), "")
    directory = directory.rpartition("/")[0] if directory.endswith(".yml") else directory
    out, err = (text.replace(f"{directory}/", "").splitlines() for text in capsys.readouterr())
    return code, out, err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("command: x", True),
        ("command: x\nenvironment: {A: b}\nlog: file\nlimits: {core: 0}\ncapabilities: []", True),
        ("nice: 5\nroot: /x", False),
        ("nice: 5\nuser: x\nroot: /x", True),
        ("root: /x\nhostname: y", False),
        ("log: file", False),
        ("", False),
        ("[]", False),
        ("{[", False),
        ("comand: x", False),
    ],
)
def test_a_service_file_is_known_by_its_keys(text, expected):
    assert is_service("/mnt/x.yml", text.encode()) is expected


@pytest.mark.parametrize("text", ["log: file", "", "{[", "comand: x"])
def test_and_else_by_its_directory(text):
    assert is_service("/x/services/sshd.yml", text.encode())
    assert not is_service("/x/services/sub/sshd.yml", text.encode())


def test_but_a_configuration_stays_one():
    assert not is_service("/x/services/init.yml", b"root: /x")


def test_a_right_service_file_is_ok(place, capsys):
    directory = place(a="command: x\nrequires: nobody\n")
    assert checked(capsys, directory / "a.yml") == (0, ["a.yml: ok"], [])


def test_a_wrong_one_has_all_its_problems_told(place, capsys):
    directory = place(a="command: x\nnice: 99\nrestrat: no\n", b="command: x\nwatchdog: 5\n")
    assert checked(capsys, directory / "a.yml", directory / "b.yml") == (
        EX_CONFIG,
        [],
        [
            "a.yml:2:7: nice: 99 is out of range; write -20 to 19",
            'a.yml:3:1: restrat: the key "restrat" is unknown; did you mean restart?',
            "b.yml:2:11: watchdog: has no effect for type simple; write type: notify, or leave it out",
        ],
    )


def test_a_file_is_read_over_the_catalogues(place, capsys):
    directory = place(sshd="stop_timeout: 20s\n", other="stop_timeout: 20s\n", redis="type: simple\nwatchdog: 5\n")
    assert checked(capsys, directory / "sshd.yml") == (0, ["sshd.yml: ok"], [])
    assert checked(capsys, directory / "other.yml") == (
        EX_CONFIG,
        [],
        ["other.yml:1:1: command: the key is missing; write the program and its arguments"],
    )
    assert checked(capsys, directory / "redis.yml")[2] == [
        "redis.yml:2:11: watchdog: has no effect for type simple; write type: notify, or leave it out"
    ]


def test_files_can_be_said_to_be_services(place, capsys):
    directory = place(a="log: file\n", sshd="log: file\n")
    assert checked(capsys, directory / "sshd.yml")[2] == [
        'sshd.yml:1:6: log: is the text "file"; write {level, format, file}'
    ]
    assert checked(capsys, "--service", directory / "sshd.yml")[0] == 0
    assert checked(capsys, "--service", directory / "a.yml")[0] == EX_CONFIG


@pytest.mark.parametrize("name", ["-a", "lcinit", "a b"])
def test_a_name_that_no_service_can_have(tmp_path, capsys, name):
    (tmp_path / f"{name}.yml").write_text("command: x")
    code, _, (line,) = checked(capsys, tmp_path / f"{name}.yml")
    assert code == EX_CONFIG
    assert line == (
        f'{name}.yml: no service can be called "{name}"; rename it to what fits [A-Za-z0-9_][A-Za-z0-9_.@-]{{0,63}}'
    )


def test_a_directory_stands_for_its_service_files(place, capsys):
    directory = place(b="command: x\nrequires: [a, nginx]\n", a="command: x\n", sshd="log: file")
    (directory / "README.md").write_text("no service")
    (directory / ".hidden.yml").write_text("{[")
    assert checked(capsys, directory) == (0, ["a.yml: ok", "b.yml: ok", "sshd.yml: ok"], [])


def test_what_the_services_of_a_directory_require_must_be_there(place, capsys):
    directory = place(
        a="command: x\nwants: nobody\nstart_after: nobody\n", b="command: x\nrequires:\n- a\n- nobody\n", c="comand: x"
    )
    (directory / "d.yml").write_text("command: x\nrequires: c")
    code, out, err = checked(capsys, directory)
    assert (code, out) == (EX_CONFIG, ["a.yml: ok", "d.yml: ok"])
    assert err == [
        "b.yml:3:1: requires: there is no service nobody; write the file of it, or leave it out",
        'c.yml:1:1: comand: the key "comand" is unknown; did you mean command?',
    ]


def test_what_is_missing_is_told_where_it_is_required_also_by_the_first_key(place, capsys):
    directory = place(a="requires: [nobody]\ncommand: x\n")
    assert checked(capsys, directory)[2] == [
        "a.yml:1:11: requires: there is no service nobody; write the file of it, or leave it out"
    ]


def test_a_file_that_may_not_be_read_has_a_code_of_its_own_unless_another_is_wrong(place, capsys, monkeypatch):
    directory = place(a="command: x\n", b="comand: x\ncommand: x\n")
    read = check.read_file

    def refuse(path):
        if path.endswith("a.yml"):
            raise ConfigError(f"cannot read {path}: Permission denied", exit_code=EX_NOPERM)
        return read(path)

    monkeypatch.setattr(check, "read_file", refuse)
    assert checked(capsys, directory / "a.yml")[0] == EX_NOPERM
    assert checked(capsys, directory / "a.yml", directory / "b.yml")[0] == EX_CONFIG


def test_other_files_that_are_named_count(place, capsys, tmp_path):
    directory = place(a="command: x\nrequires: [b, c]\n")
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "init.yml").write_text("exec: {mode: tolerant, pid: shared}\nservices: {b: {command: x}}\n")
    (other / "c.yml").write_text("command: x\n")
    assert checked(capsys, directory)[0] == EX_CONFIG
    assert checked(capsys, directory, other / "init.yml", other / "c.yml")[0] == 0
    assert checked(capsys, directory, other / "init.yml")[0] == EX_CONFIG


CONFIGURATION = """\
exec: {mode: tolerant, pid: shared}
services:
  own: {command: x, requires: [a, nobody, sshd]}
  a: {requires: ghost}
  c: {restart: "no"}
  d:
"""


def test_what_services_of_a_configuration_require_must_be_there_too(place, capsys, tmp_path):
    (tmp_path / "services").mkdir()
    directory = place(init=CONFIGURATION) / "services"
    (directory / "a.yml").write_text("command: x\nrequires: lost\n")
    (directory / "b.yml").write_text("command: x\nrequires: a\nstart_before: c\n")
    (directory / "c.yml").write_text("command: x\nrestart_delay: 3\nwatchdgo: 5\n")
    init = tmp_path / "init.yml"
    assert checked(capsys, init) == (0, ["init.yml: ok, if the guest has the services a, c, d, ghost, nobody"], [])
    assert checked(capsys, init, directory) == (
        EX_CONFIG,
        ["services/a.yml: ok", "services/b.yml: ok"],
        [
            "init.yml:3:31: services.own.requires: there is no service nobody; write the file of it, or leave it out",
            "init.yml:4:17: services.a.requires: there is no service ghost; write the file of it, or leave it out",
            "init.yml:6:5: services.d.command: the key is missing; write the program and its arguments, "
            "or the name of a service that has a file",
            'services/c.yml:3:1: watchdgo: the key "watchdgo" is unknown; did you mean watchdog?',
        ],
    )


def test_a_circle_through_a_configuration_is_told_where_it_is_written(place, capsys, tmp_path):
    (tmp_path / "services").mkdir()
    config = "exec: {mode: tolerant, pid: shared}\nservices:\n  a: {command: x, wants: b}\n  c: {command: x}\n"
    directory = place(init=config) / "services"
    (directory / "b.yml").write_text("command: x\nrequires: a\n")
    (directory / "c.yml").write_text("command: x\ntype: forking\npid_file: /x\n")
    code, out, err = checked(capsys, tmp_path / "init.yml", directory)
    assert (code, out) == (EX_CONFIG, ["services/c.yml: ok"])
    circle = "it starts after itself: a -> b -> a; leave one of them out"
    assert err == [f"init.yml:3:26: services.a.wants: {circle}", f"services/b.yml:2:11: requires: {circle}"]


def test_services_that_start_after_one_another_in_a_circle(place, capsys):
    directory = place(
        a="command: x\nstart_after: b\n",
        b="command: x\nuser: y\nwants: [c]\n",
        c="command: x\nrequires: d\n",
        d="command: x\n",
        e="command: x\nstart_before: d\nrequires: a\n",
    )
    assert checked(capsys, directory) == (
        EX_CONFIG,
        [],
        [
            f"{file}: it starts after itself: a -> b -> c -> d -> e -> a; leave one of them out"
            for file in (
                "a.yml:2:14: start_after",
                "b.yml:3:8: wants",
                "c.yml:2:11: requires",
                "d.yml:1:1: start_before",
                "e.yml:3:11: requires",
            )
        ],
    )


def test_an_empty_directory_and_one_that_cannot_be_read(tmp_path, capsys, monkeypatch):
    code, out, (line,) = checked(capsys, tmp_path)
    assert (code, out, line) == (EX_CONFIG, [], f"{tmp_path}: there is no service file here; name them NAME.yml")

    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lcinit.cli.check.shipped", lambda: {}.get)
    monkeypatch.setattr("os.listdir", refuse)
    assert checked(capsys, tmp_path)[2] == [f"cannot read {tmp_path}: Permission denied"]


def test_as_json(place, capsys):
    directory = place(a="command: x\nwatchdog: 5\n", b="command: x\nrequires: nobody\n", c="command: x\n")
    assert check.run(["--json", str(directory)]) == EX_CONFIG
    found = {each.pop("file"): each for each in json.loads(capsys.readouterr().out)}
    assert found == {
        f"{directory}/a.yml": {
            "ok": False,
            "error": None,
            "problems": [
                {
                    "line": 2,
                    "column": 11,
                    "path": "watchdog",
                    "what": "has no effect for type simple",
                    "right": "write type: notify, or leave it out",
                }
            ],
        },
        f"{directory}/b.yml": {
            "ok": False,
            "error": None,
            "problems": [
                {
                    "line": 2,
                    "column": 11,
                    "path": "requires",
                    "what": "there is no service nobody",
                    "right": "write the file of it, or leave it out",
                }
            ],
        },
        f"{directory}/c.yml": {"ok": True, "error": None, "problems": []},
    }


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert checked(capsys, tmp_path / "x.yml")[2] == [
        "cannot read x.yml: No such file or directory; name a file that is there"
    ]
