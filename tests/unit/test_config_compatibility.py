"""Every form that p5-lcboot accepts, and what becomes of it: the rows of docs/coming-from-p5-lcboot.md."""

from __future__ import annotations

import pytest

from lcinit.config.diagnostics import InvalidFile
from lcinit.config.load import load, parse
from lcinit.config.values import Command, Config, Devices, Exec, IdMap, IdRange, Root, Setup
from lcinit.errors import EX_CONFIG, ConfigError

WHOLE = IdMap(
    users=(IdRange(inside=0, outside=1000000, size=65536),), groups=(IdRange(inside=0, outside=1000000, size=65536),)
)
ONE = IdMap(users=(IdRange(inside=0, outside=1000000),), groups=(IdRange(inside=0, outside=1000000),))


def commands(*argvs: list[str]) -> tuple[Command, ...]:
    return tuple(Command(argv=tuple(argv)) for argv in argvs)


def ran(*argv: str) -> Exec:
    return Exec(command=argv, command_given=True)


ACCEPTED = [
    ("", Config()),
    ("# nothing\n", Config()),
    ("---\n", Config()),
    ("null", Config()),
    ("{}", Config()),
    ("root: {}", Config()),
    ("root: {path: /x}", Config(root=Root(path="/x"))),
    ("root: /x/", Config(root=Root(path="/x"))),
    ("root: {mode: null}", Config(root=Root(mode="none"))),
    ("root: {mode: none}", Config(root=Root(mode="none"))),
    ("root: null", Config(root=Root(path=None, mode="none"))),
    ("root: {path: null}", Config(root=Root(path=None, mode="none"))),
    ("id_map: false", Config()),
    ("id_map: null", Config()),
    ("id_map: {users: 0 1000000 65536}", Config(id_map=WHOLE)),
    ("id_map: {groups: 0 1000000 65536}", Config(id_map=WHOLE)),
    ("id_map: {users: [0, 1000000, 65536]}", Config(id_map=WHOLE)),
    ("id_map: {users: [[0, 1000000]]}", Config(id_map=ONE)),
    ("id_map: {users: [0, 1000000]}", Config(id_map=ONE)),
    ("id_map: {users: {internal: 0, external: 1000000}}", Config(id_map=ONE)),
    ('id_map: {users: " 0\\t 1000000 \\n"}', Config(id_map=ONE)),
    ("id_map: {users: &m 0 1000000 65536, groups: *m}", Config(id_map=WHOLE)),
    ("id_map: &m {users: &r [[0, 1000000]], groups: *r}", Config(id_map=ONE)),
    *((f"initctl: {word}", Config(initctl=True)) for word in ("yes", "on", "true")),
    *((f"initctl: {word}", Config(initctl=False)) for word in ("no", "off", "false")),
    ("initctl: auto", Config(initctl="auto")),
    ("devices: {exclude: sda}", Config(devices=Devices(exclude=("sda",)))),
    ('devices: {rexclude: "sd.*"}', Config(devices=Devices(rexclude=("sd.*",)))),
    ("devices: {}", Config()),
    ("setup: none", Config(setup=Setup(mode="none"))),
    ("setup: auto", Config()),
    ("setup: guess", Config()),
    ("setup: generic", Config(setup=Setup(mode="generic"))),
    ("setup: lxc-libvirt", Config(setup=Setup(mode="libvirt-lxc"))),
    ("setup: podman", Config(setup=Setup(mode="podman"))),
    ("setup: overlay -- /a", Config(setup=Setup(mode="none", before=commands(["overlay", "--", "/a"])))),
    ("setup: nonne", Config(setup=Setup(mode="none", before=commands(["nonne"])))),
    ("setup: [a b, [c, d e]]", Config(setup=Setup(mode="none", before=commands(["a", "b"], ["c", "d e"])))),
    *((f"setup: {word}", Config(setup=Setup(mode="none"))) for word in ("false", "[]", "null", "~", "")),
    ("setup: {}", Config()),
    ("setup: {mode: null}", Config(setup=Setup(mode="none"))),
    ("setup: {mode: guess}", Config()),
    ("setup: {before: x y}", Config(setup=Setup(before=commands(["x", "y"])))),
    ("setup: {before: {command: x y}}", Config(setup=Setup(before=commands(["x", "y"])))),
    ("setup: {before: [[x, y]]}", Config(setup=Setup(before=commands(["x", "y"])))),
    ("exec: [/x, y z]", Config(exec=ran("/x", "y z"))),
    ("exec: /x y", Config(exec=ran("/x", "y"))),
    ("exec: {command: {command: /x}}", Config(exec=ran("/x"))),
    ("exec: {command: {command: [/x, y]}}", Config(exec=ran("/x", "y"))),
    ("exec: {before: /x}", Config(exec=Exec(before=commands(["/x"])))),
    ("exec: 'echo # c'", Config(exec=ran("echo", "#", "c"))),
    ('exec: ["echo", "1"]', Config(exec=ran("echo", "1"))),
]

REFUSED = [
    (
        "root: rel/path",
        '1:7: root: "rel/path" is a relative path; write an absolute path: a relative one',
    ),
    ("root: none", '1:7: root: "none" is a relative path; write null to keep the boot root'),
    ("root: /", "1:7: root: / is the boot root; write null"),
    ("root: /mnt/../etc", '1:7: root: "/mnt/../etc" holds ..; '),
    ("id_map: {}", "1:9: id_map: is empty; write users, groups or both"),
    ("id_map: {allow_outer_root: true}", "1:9: id_map: holds neither users nor groups; write users, groups or both"),
    ("id_map: true", "1:9: id_map: is the boolean true; write false, or {users, groups}"),
    (
        'id_map: {users: {internal: 0, external: "5"}}',
        '1:41: id_map.users.external: is the text "5"; write 5 without quotes',
    ),
    ('id_map: {users: ["0 5", ["0", 5]]}', '1:26: id_map.users[1][0]: is the text "0"; write 0 without quotes'),
    ("id_map: {users: 0 010 5}", '1:17: id_map.users: "0 010 5" has leading zeros; ids are decimal: write "0 10 5"'),
    (
        "id_map: {users: [0, 010, 5]}",
        "1:21: id_map.users[1]: 010 is octal in YAML 1.1 and decimal in YAML 1.2; ",
    ),
    ("id_map: {users: 1 5 1}", "1:17: id_map.users: has no range for the guest's id 0; add one such as \"0 1000000"),
    ("a: &m {root: /x}\n<<: *m", '1:1: a: the key "a" is unknown; '),
    ("initctl: 1", "1:10: initctl: is the number 1; write true, false or auto"),
    ("setup: true", "1:8: setup: is the boolean true; write a mode, a command, a list of commands, or {mode"),
    ("setup: {command: x}", '1:9: setup.command: the key "command" is unknown; '),
    ("exec: {}", "1:7: exec: is empty; write {before, command, mode"),
    ("exec: null", "1:7: exec: is null; write a command, or {before, command, …}"),
    ("exec: false", "1:7: exec: is the boolean false; write a command, or {before, command, …}"),
    ("exec: []", "1:7: exec: is an empty list; write a list of words"),
    ('exec: ""', "1:7: exec: is empty; write a command"),
    *(
        (
            f"exec: {{command: {{command: /x, {key}: {value}}}}}",
            f"1:31: exec.command.{key}: {key} is not possible here; the guest's init has none; write it in",
        )
        for key, value in (("input", "x"), ("timeout", 1), ("ignore_errors", "true"))
    ),
    ("exec: [echo, 1]", '1:14: exec[1]: is the number 1; write a word ("1", with the quotes, is text)'),
    ("exec: [echo, yes]", '1:14: exec[1]: is the boolean yes; write a word ("yes", with the quotes, is text)'),
    ("exec: [echo, 1.5]", '1:14: exec[1]: is the number 1.5; write a word ("1.5", with the quotes, is text)'),
    ("exec: [echo, null]", "1:14: exec[1]: is null; write a word"),
    (
        "exec: 'echo \"x'",
        '1:7: exec: "echo "x" cannot be split into words: the quotation that " begins is not',
    ),
    ("false", "1:1: (document): is the boolean false; write the keys of a configuration"),
    ("[]", "1:1: (document): is a list; write the keys of a configuration"),
    ("x", '1:1: (document): is the text "x"; write the keys of a configuration'),
]


@pytest.mark.parametrize(("text", "config"), ACCEPTED, ids=[text for text, _ in ACCEPTED])
def test_accepted_form(text, config):
    assert parse(text.encode(), "f") == config


@pytest.mark.parametrize(("text", "line"), REFUSED, ids=[text for text, _ in REFUSED])
def test_refused_form_says_what_to_write(text, line):
    with pytest.raises(InvalidFile) as caught:
        parse(text.encode(), "f")
    assert caught.value.exit_code == EX_CONFIG
    assert str(caught.value).startswith(f"f:{line}"), str(caught.value)


def test_no_file_means_all_defaults_but_a_named_one_must_be_there(tmp_path):
    missing = str(tmp_path / "init.yml")
    assert load(None, missing) == Config()
    with pytest.raises(ConfigError) as caught:
        load(missing)
    assert caught.value.exit_code == EX_CONFIG


def test_a_command_is_given_or_is_the_default():
    assert parse(b"", "f").exec.command_given is False
    assert parse(b"exec: /sbin/init", "f").exec.command_given is True


def test_a_command_without_input_or_time_out_has_none():
    (command,) = parse(b"exec: {before: x}", "f").exec.before
    assert (command.input, command.timeout, command.ignore_errors) == (None, None, False)
