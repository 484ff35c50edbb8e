"""Single values: words of commands, durations, paths, names, limits, mounts."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lcinit.config.commands import split_words
from lcinit.config.diagnostics import InvalidFile, Unfit
from lcinit.config.load import parse
from lcinit.config.mounts import parse_path
from lcinit.config.names import MAX_DURATION, parse_duration
from lcinit.config.values import Config, Limit, Mount
from lcinit.linux.capabilities import CAPABILITIES


def read(text: str) -> Config:
    return parse(text.encode(), "f")


def problem(text: str) -> str:
    with pytest.raises(InvalidFile) as caught:
        read(text)
    return str(caught.value).removeprefix("f:")


@settings(max_examples=500, deadline=None)
@given(
    st.text(alphabet=st.sampled_from(list("ab#;|$`~*\"'\\ \t\n\r\f\x0b\xa0\x85é")), max_size=24) | st.text(max_size=12)
)
@example("\\\n")
@example('""')
@example('a\'\'b "\\c\\"\\\\"')
def test_words_are_those_of_shlex(text):
    try:
        expected = shlex.split(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"closed|nothing follows"):
            split_words(text)
    else:
        assert split_words(text) == expected


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=5))
def test_words_survive_quoting(words):
    assert split_words(shlex.join(words)) == words


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("5", 5.0),
        ("1.5", 1.5),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("2h", 7200.0),
        ("1d2h3m4.5s6ms", 93784.506),
        ("7d", 604800.0),
        ('"1m30s"', 90.0),
        ("null", None),
    ],
)
def test_duration(written, seconds):
    assert read(f"setup: {{timeout: {written}}}").setup.timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    [
        "0",
        "-1",
        "0s",
        "7d1ms",
        "604801",
        '"90"',
        "1.5m",
        "s",
        "1s1m",
        "1m1m",
        "1 m",
        "1M",
        "٣s",
        "1min",
        '""',
        "true",
        "[1]",
    ],
)
def test_what_is_no_duration(written):
    assert problem(f"setup: {{timeout: {written}}}").startswith("1:18: setup.timeout: ")


UNITS = st.tuples(*(st.integers(0, limit) for limit in (6, 23, 59, 59, 999)))


@settings(deadline=None)
@given(UNITS)
def test_duration_adds_up(amounts):
    text = "".join(
        f"{amount}{unit}" for amount, unit in zip(amounts, ("d", "h", "m", "s", "ms"), strict=True) if amount
    )
    days, hours, minutes, seconds, milliseconds = amounts
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds + milliseconds / 1000
    if not text:
        with pytest.raises(Unfit):
            parse_duration(text)
    else:
        assert parse_duration(text) == pytest.approx(total)
        assert total <= MAX_DURATION


@settings(deadline=None)
@given(st.text(alphabet="0123456789dhms. \n-", max_size=12))
def test_any_text_is_a_duration_or_unfit(text):
    try:
        assert 0 < parse_duration(text) <= MAX_DURATION
    except Unfit as unfit:
        assert unfit.what and unfit.right


@settings(deadline=None)
@given(st.text(alphabet="a/.é", max_size=12))
def test_a_path_is_absolute_and_has_no_detours(text):
    try:
        path = parse_path(text)
    except Unfit:
        assert not text.startswith("/") or ".." in text.split("/")
    else:
        assert path == "/" or (path[0] == "/" and all(part not in ("", ".", "..") for part in path[1:].split("/")))


@pytest.mark.parametrize("name", ["a", "a-b", "guest.example.org", "x" * 63, "1a", f"{'x' * 60}.abc"])
def test_hostname(name):
    assert read(f"hostname: {name}").hostname == name


@pytest.mark.parametrize(
    "name", ["-a", "a-", "a_b", "a..b", ".a", "a.", '"a b"', '""', "x" * 64, f"{'x' * 61}.abc", "é", '"a\\n"']
)
def test_what_is_no_hostname(name):
    assert problem(f"hostname: {name}").startswith("1:11: hostname: ")


@pytest.mark.parametrize("names", ["[eth0]", "[eth0.5, wg-1, br0@x]", "[é]", "[]"])
def test_interfaces(names):
    assert isinstance(read(f"network: {{interfaces: {names}}}").network.interfaces, tuple)


@pytest.mark.parametrize(
    "names", ["[lo]", "[.]", "[..]", "[-x]", "[a/b]", "['a b']", "['a:b']", "[sixteen-letters0]", "eth0", "[1]"]
)
def test_what_is_no_interface(names):
    assert ": network.interfaces" in problem(f"network: {{interfaces: {names}}}")


@pytest.mark.parametrize("name", ["Z", "_a", "LC_ALL", "a1"])
def test_variable(name):
    assert read(f"environment: {{{name}: v}}").environment == ((name, "v"),)


@pytest.mark.parametrize("name", ['"A=B"', "1A", '""', "A-B", "é", '"A\\n"'])
def test_what_is_no_variable(name):
    assert problem(f"environment: {{{name}: v}}").startswith("1:15: environment.")


def test_a_variable_must_be_text_with_the_quoted_form_shown():
    assert 'environment.A: is the number 1; write text ("1", with the quotes, is text)' in problem(
        "environment: {A: 1}"
    )


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        ("1024", (1024, 1024)),
        ("0", (0, 0)),
        ("infinity", (None, None)),
        ("unlimited", (None, None)),
        ("1024:4096", (1024, 4096)),
        ('"1:30"', (1, 30)),
        ("1024:infinity", (1024, None)),
        ("{soft: 1, hard: 2}", (1, 2)),
        ("{soft: 1, hard: infinity}", (1, None)),
    ],
)
def test_limit(written, limit):
    assert read(f"limits: {{nofile: {written}}}").limits == (Limit(name="nofile", soft=limit[0], hard=limit[1]),)


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ("{nofile: '5:4'}", "limits.nofile: the soft limit 5 is above the hard limit 4; write soft at most hard"),
        ("{nofile: infinity:4}", "the soft limit infinity is above the hard limit 4"),
        ("{nofile: {soft: 5}}", "the key hard is missing"),
        ("{nofile: -1}", "-1 is out of range"),
        ("{nofile: 1:30}", "is a number to base 60"),
        ("{nofile: '5'}", 'limits.nofile: "5" does not fit'),
        ("{nofil: 5}", 'limits.nofil: "nofil" is not known; did you mean nofile?'),
        ("[nofile]", "limits: is a list; write a mapping of resources to limits"),
    ],
)
def test_what_is_no_limit(limits, fault):
    assert fault in problem(f"limits: {limits}")


def test_capabilities_in_every_spelling():
    found = read("capabilities: {drop: [CAP_SYS_ADMIN, cap_mknod, Net_Raw], keep: [sys_time]}").capabilities
    assert found.drop == ("sys_admin", "mknod", "net_raw")
    assert found.keep == ("sys_time",)
    every = ", ".join(CAPABILITIES)
    assert read(f"capabilities: {{keep: [{every}]}}").capabilities.keep == tuple(CAPABILITIES)
    assert "did you mean sys_admin?" in problem("capabilities: {drop: [sys_admim]}")


def test_signals_are_named_in_one_way():
    found = read("initctl: true\nexec: {stop: {poweroff: SIGRTMIN+4, halt: rtmin+3, reboot: Int}}").exec.stop
    assert found == (("poweroff", "SIGRTMIN+4"), ("halt", "SIGRTMIN+3"), ("reboot", "SIGINT"))


@pytest.mark.parametrize(
    "stop", ["{poweroff: SIGFOO}", "{poweroff: SIGRTMIN+99}", "{poweroff: 15}", "{kill: SIGTERM}", "{halt: '15'}"]
)
def test_what_is_no_signal(stop):
    assert ": exec.stop." in problem(f"initctl: true\nexec: {{stop: {stop}}}")


@pytest.mark.parametrize(("name", "device"), [("/dev/fuse", "fuse"), ("net/tun", "net/tun"), ("/dev//dri/*", "dri/*")])
def test_device(name, device):
    assert read(f'devices: {{include: "{name}"}}').devices.include == (device,)


@pytest.mark.parametrize("name", ["/etc/passwd", "../etc/passwd", "/dev/../etc", "/dev/", "/", ""])
def test_what_is_no_device(name):
    assert problem(f'devices: {{include: ["{name}"]}}').startswith("1:21: devices.include[0]: ")


def test_an_expression_must_compile():
    assert "is no regular expression: " in problem("devices: {rexclude: ['(']}")


@pytest.mark.parametrize(
    ("written", "mount"),
    [
        ("{source: /a, target: /b}", Mount(source="/a", target="/b")),
        (
            "{source: /a/, target: /b, type: none, options: [rbind, ro]}",
            Mount(source="/a", target="/b", options=("ro", "rbind")),
        ),
        (
            "{source: /a, target: /b, type: bind, options: 'ro,x-a=b'}",
            Mount(source="/a", target="/b", options=("ro",)),
        ),
        (
            "{target: /b, type: tmpfs, options: 'size=1m,defaults'}",
            Mount(target="/b", type="tmpfs", options=("size=1m",)),
        ),
        ("{source: /dev/vda1, target: /b, type: ext4}", Mount(source="/dev/vda1", target="/b", type="ext4")),
    ],
)
def test_mount(written, mount):
    assert read(f"mounts: [{written}]").mounts == (mount,)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("{source: /a}", "mounts[0]: the key target is missing"),
        ("{source: /a, target: b}", 'mounts[0].target: "b" is a relative path'),
        ("{source: /a, target: /../b}", "mounts[0].target: "),
        ("{source: /a, target: /}", "the target / is the guest root itself"),
        ("{source: a, target: /b}", 'the source "a" is a relative path'),
        ("{target: /b}", "a bind mount has no source; write the source, or a type"),
        ("{source: UUID=5, target: /b, type: ext4}", '"UUID=5" needs udev to be found'),
        ("{source: /a, target: /b, type: ext4, options: [bind]}", "a bind mount has no type"),
        ("{source: /a, target: /b, options: [dev]}", 'the option "dev" is not possible here; device nodes come'),
        ("{source: /a, target: /b, options: [nofail]}", 'the option "nofail" is not possible here; it is for fstab'),
        ("{source: /a, target: /b, options: ['a,b']}", '"a,b" does not fit'),
        ("{source: /a, target: /b, tpye: ext4}", "did you mean type?"),
    ],
)
def test_what_is_no_mount(written, fault):
    assert fault in problem(f"mounts: [{written}]")


@pytest.mark.parametrize(("written", "user"), [("1000", 1000), ("root", "root"), ("a.b_c$", "a.b_c$"), ("null", None)])
def test_user(written, user):
    assert read(f"exec: {{user: {written}}}").exec.user == user


@pytest.mark.parametrize("written", ['"1000"', "-1", "4294967295", '"a:b"', '"a b"', "-x", '""', "true"])
def test_what_is_no_user(written):
    assert problem(f"exec: {{user: {written}}}").startswith("1:14: exec.user: ")


def test_pass_environment_is_a_word_or_globs():
    assert read("pass_environment: all").pass_environment == "all"
    assert read('pass_environment: [A, "LC_*"]').pass_environment == ("A", "LC_*")
    assert "did you mean none?" in problem("pass_environment: nome")


def test_a_command_with_everything_it_can_have():
    (command,) = read(
        "exec: {before: {command: [a], input: '', environment: {B: c}, cwd: /d/, user: e, group: 5, timeout: 1m, "
        "ignore_errors: yes}}"
    ).exec.before
    assert command.values() == {
        "argv": ("a",),
        "input": "",
        "environment": (("B", "c"),),
        "cwd": "/d",
        "user": "e",
        "group": 5,
        "timeout": 60.0,
        "ignore_errors": True,
    }
