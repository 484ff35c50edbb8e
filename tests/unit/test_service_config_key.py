"""The keys `services`, `services_dir` and `runlevel` of a configuration, and what they demand of others."""

from __future__ import annotations

import pytest

from lcinit.config.diagnostics import InvalidFile
from lcinit.config.load import parse
from lcinit.config.service_values import ServiceLog, ServicePart
from lcinit.config.values import Config

SHARED = "exec: {mode: tolerant, pid: shared}\n"


def read(text: str) -> Config:
    return parse((SHARED + text).encode(), "f")


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        parse(text.encode(), "f")
    return [line.removeprefix("f:") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(("text", "parts"), [("", None), ("services:", None), ("services: {}", ())])
def test_without_the_key_there_are_no_services_and_with_an_empty_one_those_of_the_guest(text, parts):
    assert read(text).services == parts


@pytest.mark.parametrize("value", ["", " null", " ~"])
def test_a_service_may_be_as_its_file_says(value):
    (part,) = read(f"services:\n  sshd:{value}\n").services
    assert (part.name, part.origin, part.given, part.path) == ("sshd", "f", (), "services.sshd")
    assert part.place[0] == 3


def test_an_empty_mapping_says_as_little():
    assert read("services: {sshd: {}}").services == (
        ServicePart(name="sshd", origin="f", place=(2, 18), path="services.sshd"),
    )


def test_each_service_has_the_keys_that_it_gives_with_their_places():
    found = read("services:\n  a.b:\n    command: x y\n    log: file\n  c: {restart: no}\n").services
    assert found == (
        ServicePart(
            name="a.b",
            origin="f",
            given=(("command", ("x", "y")), ("log", ServiceLog(to="file"))),
            places=((4, 14), (5, 10)),
            place=(4, 5),
            path="services.a.b",
        ),
        ServicePart(
            name="c", origin="f", given=(("restart", "no"),), places=((6, 16),), place=(6, 6), path="services.c"
        ),
    )


@pytest.mark.parametrize("text", ["[sshd]", "sshd", "true"])
def test_services_are_a_mapping(text):
    (line,) = problems(f"{SHARED}services: {text}")
    assert line.startswith("2:11: services: is ")
    assert line.endswith("; write a mapping of services' names to {command, …} or null")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{-a: {}}", '2:12: services.-a: "-a" does not fit; write a service\'s name: letters, digits, _ . @ -'),
        ("{lcinit: }", '2:12: services.lcinit: "lcinit" is lcinit\'s own name; choose another one'),
        ("{exec.command: }", '2:12: services.exec.command: "exec.command" is lcinit\'s own name; choose another one'),
        ("{a: [x]}", "2:15: services.a: is a list; write the keys of a service"),
        ("{a: x}", '2:15: services.a: is the text "x"; write the keys of a service'),
        ("{a: {comand: x}}", '2:16: services.a.comand: the key "comand" is unknown; did you mean command?'),
        ("{a: {health: {tcp: x:1}}}", '2:30: services.a.health.tcp: "x" is no IP address; write an IP address or'),
        ("{a: {timer: 1h}}", "2:16: services.a.timer: timer is not possible here; it comes with a later version;"),
        (
            "{a: {type: simple, watchdog: 5}}",
            "2:40: services.a.watchdog: has no effect for type simple; write type: notify, or leave it out",
        ),
        ("{a: {requires: a}}", "2:26: services.a.requires: names the service itself; leave it out"),
        ("{a: {restart: no, restart_delay: 5}}", "2:44: services.a.restart_delay: has no effect with restart: no;"),
    ],
)
def test_what_is_wrong_in_a_service_is_wrong_in_the_configuration(text, line):
    (found,) = problems(f"{SHARED}services: {text}\n")
    assert found.startswith(line)


def test_all_problems_of_all_services_come_at_once():
    assert [
        line.split(":")[2].strip() for line in problems(f"{SHARED}services: {{a: {{x: 1, nice: 99}}, b: 1}}\nroot: 1")
    ] == [
        "services.a.x",
        "services.a.nice",
        "services.b",
        "root",
    ]


def test_what_another_file_may_mend_is_no_mistake_here():
    assert len(read("services: {a: , b: {watchdog: 5}, c: {restart_delay: 2m}}").services) == 3


def test_services_dir_and_runlevel():
    assert (read("services: {}").services_dir, read("services: {}").runlevel) == ("/etc/lcinit/services", "3")
    assert read("services: {}\nservices_dir: /srv//units/").services_dir == "/srv/units"
    for text, runlevel in (("1", "1"), ("5", "5"), ("S", "1"), ("s", "1"), ("3", "3")):
        assert read(f"services: {{}}\nrunlevel: {text}").runlevel == runlevel


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("services_dir: units", '3:15: services_dir: "units" is a relative path; write an absolute path'),
        ("services_dir: null", "3:15: services_dir: is null; write an absolute path"),
        ("runlevel: 0", "3:11: runlevel: 0 is out of range; write a runlevel from 1 to 5, or S"),
        ("runlevel: 6", "3:11: runlevel: 6 is out of range; write a runlevel from 1 to 5, or S"),
        ('runlevel: "3"', '3:11: runlevel: is the text "3"; write 3 without quotes'),
        ("runlevel: default", '3:11: runlevel: is the text "default"; write a runlevel from 1 to 5, or S'),
    ],
)
def test_what_is_no_directory_and_no_runlevel(text, line):
    assert problems(f"{SHARED}services: {{}}\n{text}\n") == [line]


NOWHERE = (
    "services: lcinit supervises services where it is the guest's own init; "
    "write exec: {mode: tolerant, pid: shared}, or leave it out"
)


@pytest.mark.parametrize(
    "first", ["exec: {}", "exec: /bin/x", "exec: {mode: tolerant}", "exec: {mode: tolerant, pid: nested}"]
)
def test_services_need_a_guest_whose_init_lcinit_is(first):
    text = f"{first}\n" if first != "exec: {}" else "initctl: auto\n"
    assert problems(f"{text}services: {{}}\n") == [f"2:11: {NOWHERE}"]


def test_a_wrong_mode_is_told_alone():
    (line,) = problems("exec: {mode: tolerantly, pid: shared}\nservices: {}\n")
    assert line.startswith("1:14: exec.mode: ")


@pytest.mark.parametrize("text", ["services_dir: /x", "runlevel: 2", "runlevel: S"])
@pytest.mark.parametrize("first", ["", SHARED, f"{SHARED}services: null\n"])
def test_what_is_said_of_services_needs_services(text, first):
    (line,) = problems(f"{first}{text}\n")
    key = text.partition(":")[0]
    assert line.endswith(f" {key}: has no effect without services; write services, if only {{}}, or leave it out")


@pytest.mark.parametrize("text", ["services_dir: /etc/lcinit/services", "runlevel: 3", "services: null"])
def test_what_asks_for_nothing_needs_nothing(text):
    assert parse(text.encode(), "f") == Config()


def test_wrong_services_are_told_without_what_else_they_would_mean():
    (line,) = problems("services: 1\n")
    assert line.startswith("1:11: services: is the number 1")
    (line,) = problems(f"{SHARED}services: 1\nrunlevel: 2\n")
    assert line.startswith("2:11: services: is the number 1")


@pytest.mark.parametrize("text", ["initctl: true", "exec: {mode: tolerant, pid: shared, on_reboot: restart}"])
def test_with_services_the_guest_can_be_asked_to_reboot(text):
    whole = text if text.startswith("exec") else f"{SHARED}{text}"
    parse(f"{whole}\nservices: {{}}\n".encode(), "f")
    (line,) = problems(whole)
    assert "with exec.pid: shared" in line


OF_A_COMMAND = [
    ("on_exit", "restart"),
    ("forward_to", "group"),
    ("stop", "{poweroff: INT}"),
    ("user", "1000"),
    ("group", "1000"),
    ("groups", "[audio]"),
]


@pytest.mark.parametrize(("key", "value"), OF_A_COMMAND)
def test_what_is_for_a_command_needs_one_beside_services(key, value):
    text = f"exec: {{mode: tolerant, pid: shared, {key}: {value}"
    (line,) = problems(f"{text}}}\nservices: {{}}\n")
    assert line.endswith(f": exec.{key}: there is no exec.command beside the services; write one, or leave it out")
    assert getattr(parse(f"{text}, command: x}}\nservices: {{}}\n".encode(), "f").exec, key)
    parse(f"{text}}}\n".encode(), "f")


def test_a_command_may_stand_beside_services():
    assert read("services: {}").exec.command_given is False
    config = parse(b"exec: {mode: tolerant, pid: shared, command: /bin/x}\nservices: {}\n", "f")
    assert (config.exec.command, config.exec.command_given) == (("/bin/x",), True)


def test_shutdown_commands_stay_out_of_reach():
    (line,) = problems(f"{SHARED}services: {{}}\nshutdown: {{after: sync}}\n")
    assert "shutdown.after: the boot root is out of reach with exec.pid: shared" in line
