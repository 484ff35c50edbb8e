"""Where service files are found, what a guest may put there, and which services there are in the end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import marshal
import os
import resource
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcinit.boot.reading import from_plain, to_plain
from lcinit.config import service_files
from lcinit.config.load import parse
from lcinit.config.service_files import (
    LARGEST,
    catalogue_directory,
    combine,
    parse_service,
    read_catalogue,
    read_guest,
)
from lcinit.config.service_schema import SERVICE
from lcinit.config.service_values import (
    Broken,
    Catalogue,
    CgroupLimits,
    GuestFiles,
    Health,
    Service,
    ServiceLog,
    ServicePart,
)
from lcinit.config.values import Command, Limit
from lcinit.errors import LcinitError, SystemFailure
from lcinit.service import reader
from lcinit.service.reader_process import MEMORY_FOR_FILES, MOST_CPU, MOST_MEMORY
from lcinit.service.reader_protocol import MOST_ANSWER
from tests.unit.test_service_config_fields import ACCEPTED, REFUSED

DIRECTORY = "/etc/lcinit/services"
ENABLED = "/etc/lcinit/enabled"


class Guest:
    """A guest's root below a test's directory."""

    def __init__(self, path):
        self.path = path / "root"
        self.services = self.path / "etc/lcinit/services"
        self.enabled = self.path / "etc/lcinit/enabled"
        self.services.mkdir(parents=True)
        self.enabled.mkdir()

    def read(self, directory=DIRECTORY, root=None):
        fd = os.open(root or self.path, os.O_PATH | os.O_DIRECTORY)
        try:
            return read_guest(fd, directory)
        finally:
            os.close(fd)

    def broken(self, name):
        """The text of what is broken under a name."""
        (text,) = (each.text for each in self.read().broken if each.name == name)
        return text


@pytest.fixture
def guest(tmp_path):
    return Guest(tmp_path)


def test_files_are_read_by_name_and_nothing_else_is_looked_at(guest):
    for name in ("b.yml", "a@1.x.yml", ".hidden.yml", "c.yml~", "README", "d.yml.dpkg-old"):
        (guest.services / name).write_text(f"# {name}")
    (guest.services / "sub.d").mkdir()
    assert guest.read() == GuestFiles(directory=DIRECTORY, contents=(("a@1.x", b"# a@1.x.yml"), ("b", b"# b.yml")))


def test_a_guest_without_files_has_none(tmp_path):
    fd = os.open(tmp_path, os.O_PATH)
    assert read_guest(fd, DIRECTORY) == GuestFiles(directory=DIRECTORY)
    os.close(fd)


def test_only_the_names_count_in_the_directory_of_what_is_enabled(guest):
    (guest.enabled / "a").symlink_to("../services/a.yml")
    (guest.enabled / "b").symlink_to("nowhere")
    (guest.enabled / "c").touch()
    os.mkfifo(guest.enabled / "d")
    (guest.enabled / "e").mkdir()
    (guest.enabled / ".hidden").touch()
    assert guest.read() == GuestFiles(directory=DIRECTORY, enabled=("a", "b", "c", "d", "e"))


def test_what_is_enabled_stands_beside_the_services_wherever_those_are(guest):
    (guest.path / "srv").mkdir()
    (guest.path / "srv/units").mkdir()
    (guest.path / "srv/units/x.yml").write_text("command: x")
    (guest.path / "srv/enabled").mkdir()
    (guest.path / "srv/enabled/x").touch()
    found = guest.read("/srv/units")
    assert found == GuestFiles(directory="/srv/units", contents=(("x", b"command: x"),), enabled=("x",))


@pytest.mark.row(24)
@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "dangling", "loop", "long"])
def test_what_is_no_file_is_the_trouble_of_its_service_and_is_not_waited_for(guest, kind):
    path = guest.services / "x.yml"
    (guest.services / "y.yml").write_text("command: y")
    server = socket.socket(socket.AF_UNIX)
    cause = f"cannot read {DIRECTORY}/x.yml: "
    if kind == "directory":
        path.mkdir()
        cause += "it is no regular file; write a file there, or remove it"
    elif kind == "fifo":
        os.mkfifo(path)
        cause += "it is no regular file; write a file there, or remove it"
    elif kind == "socket":
        here = os.open(guest.services, os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/x.yml")
        os.close(here)
        cause += "No such device or address; mend it or remove it"
    elif kind == "dangling":
        path.symlink_to("nowhere.yml")
        cause += "No such file or directory; mend it or remove it"
    elif kind == "loop":
        path.symlink_to("x.yml")
        cause += "Too many levels of symbolic links; mend it or remove it"
    else:
        path.write_bytes(b"#" * (LARGEST + 1))
        cause += f"it is longer than {LARGEST} bytes; write a shorter file"
    began = time.monotonic()
    found = guest.read()
    server.close()
    assert time.monotonic() - began < 5
    assert found == GuestFiles(
        directory=DIRECTORY, contents=(("y", b"command: y"),), broken=(Broken(name="x", text=cause),)
    )


def test_a_file_of_the_greatest_length_is_read(guest):
    (guest.services / "x.yml").write_bytes(b"#" * LARGEST)
    assert [(name, len(data)) for name, data in guest.read().contents] == [("x", LARGEST)]


def test_links_are_followed_in_the_guest_alone(guest, tmp_path):
    (tmp_path / "outside").write_text("command: outside")
    (guest.path / "inside").write_text("command: inside")
    (guest.services / "a.yml").symlink_to("/inside")
    (guest.services / "b.yml").symlink_to("../../../../../../inside")
    (guest.services / "c.yml").symlink_to(tmp_path / "outside")
    (guest.services / "d.yml").symlink_to("../../../../outside")
    found = guest.read()
    assert found.contents == (("a", b"command: inside"), ("b", b"command: inside"))
    assert [each.name for each in found.broken] == ["c", "d"]
    (guest.path / "real").mkdir()
    (guest.path / "real/x.yml").write_text("# x")
    (guest.path / "link").symlink_to("/real")
    assert guest.read("/link").contents == (("x", b"# x"),)


def test_magic_links_are_not_followed(guest, tmp_path):
    (tmp_path / "secret").write_text("command: secret")
    with open(tmp_path / "secret") as secret:
        (guest.services / "x.yml").symlink_to(f"/proc/self/fd/{secret.fileno()}")
        found = guest.read(str(guest.services), root="/")
    assert found.contents == ()
    assert "Too many levels of symbolic links" in found.broken[0].text


@pytest.mark.row(24)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/ptmx"])
def test_devices_are_not_read(guest, device):
    (guest.services / "x.yml").symlink_to(device)
    found = guest.read(str(guest.services), root="/")
    text = f"cannot read {guest.services}/x.yml: it is no regular file; write a file there, or remove it"
    assert (found.contents, found.broken) == ((), (Broken(name="x", text=text),))


@contextmanager
def ordinary_user():
    """Without the rights of root, where the tests have them."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_that_may_not_be_read_is_the_trouble_of_its_service(guest):
    (guest.services / "x.yml").write_text("command: x")
    (guest.services / "y.yml").write_text("command: y")
    (guest.services / "x.yml").chmod(0)
    fd = os.open(guest.path, os.O_PATH)
    with ordinary_user():
        found = read_guest(fd, DIRECTORY)
    os.close(fd)
    assert found.contents == (("y", b"command: y"),)
    text = f"cannot read {DIRECTORY}/x.yml: Permission denied; mend it or remove it"
    assert found.broken == (Broken(name="x", text=text),)


def test_directories_that_may_not_be_read_are_told(guest):
    (guest.services / "x.yml").write_text("command: x")
    fd = os.open(guest.path, os.O_PATH)
    for path in (guest.services, guest.enabled):
        path.chmod(0)
    with ordinary_user():
        found = read_guest(fd, DIRECTORY)
    os.close(fd)
    for path in (guest.services, guest.enabled):
        path.chmod(0o755)
    assert found.contents == ()
    assert found.broken == tuple(
        Broken(name=path, text=f"cannot read {path}: Permission denied; let root read it")
        for path in (DIRECTORY, ENABLED)
    )


def test_a_directory_that_leads_outside_is_the_one_inside(guest, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.yml").write_text("command: outside")
    guest.services.rmdir()
    guest.services.symlink_to(tmp_path / "outside")
    assert guest.read() == GuestFiles(directory=DIRECTORY)
    inside = guest.path / str(tmp_path / "outside")[1:]
    inside.mkdir(parents=True)
    (inside / "x.yml").write_text("command: inside")
    assert guest.read().contents == (("x", b"command: inside"),)


@pytest.mark.parametrize("kind", ["file", "fifo", "loop"])
def test_a_directory_that_is_none_is_told(guest, kind):
    for path in (guest.services, guest.enabled):
        path.rmdir()
        if kind == "file":
            path.touch()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(path.name)
    cause = "Too many levels of symbolic links" if kind == "loop" else "Not a directory"
    assert guest.read().broken == tuple(
        Broken(name=path, text=f"cannot read {path}: {cause}; make it a directory") for path in (DIRECTORY, ENABLED)
    )


def test_names_that_no_service_can_have_are_told_together_and_can_do_no_harm(guest):
    names = ["-x.yml", "a b.yml", "é.yml", "\x1b[31m.yml", "lcinit.yml", "exec.command.yml", "y" * 65 + ".yml"]
    for name in names:
        (guest.services / name).touch()
    with open(os.fsencode(guest.services) + b"/\xff.yml", "w"):
        pass
    (guest.services / "good.yml").write_text("command: x")
    (guest.enabled / "a\nb").touch()
    found = guest.read()
    assert [name for name, _ in found.contents] == ["good"]
    assert found.enabled == ()
    text = guest.broken(DIRECTORY)
    assert text.startswith(f'{DIRECTORY}: no service can have these names: "\\x1b[31m.yml", "-x.yml", "a b.yml", ')
    assert text.endswith("; rename the files")
    assert '"\\udcff.yml"' in text and text.isprintable()
    assert guest.broken(ENABLED) == f'{ENABLED}: no service can have these names: "a\\nb"; remove the links'
    marshal.dumps(to_plain(found))


def test_of_many_bad_names_some_are_shown(guest):
    for number in range(25):
        (guest.services / f" {number:02}.yml").touch()
    assert guest.broken(DIRECTORY).endswith('" 09.yml" and 15 more; rename the files')


def test_ten_bad_names_are_all_shown(guest):
    for number in range(10):
        (guest.services / f" {number:02}.yml").touch()
    assert guest.broken(DIRECTORY).endswith('" 09.yml"; rename the files')


def test_the_bounds_are_those_of_the_documentation():
    bounds = (service_files.LARGEST, service_files.LARGEST_TOGETHER, service_files.MOST_FILES)
    assert bounds == (65536, 4194304, 4096)


def test_names_with_another_ending_are_told(guest):
    for name in ("a.yaml", "b.YML", "c.Yaml", "d.json"):
        (guest.services / name).write_text("command: x")
    assert guest.read().contents == ()
    assert guest.broken(DIRECTORY) == (
        f'{DIRECTORY}: these are not read: "a.yaml", "b.YML", "c.Yaml"; have their names end in .yml'
    )


def test_more_entries_than_are_looked_at(guest, monkeypatch):
    monkeypatch.setattr(service_files, "MOST_FILES", 3)
    for name in "abcd":
        (guest.services / f"{name}.yml").touch()
    assert len(guest.read().contents) == 3
    assert guest.broken(DIRECTORY) == f"{DIRECTORY}: holds more than 3 entries; remove what is no service's"


def test_more_bytes_than_are_read_of_all_files(guest, monkeypatch):
    monkeypatch.setattr(service_files, "LARGEST_TOGETHER", 20)
    for name in "abc":
        (guest.services / f"{name}.yml").write_bytes(b"#" * 9)
    (guest.services / "d.yml").write_bytes(b"#")
    found = guest.read()
    assert [name for name, _ in found.contents] == ["a", "b", "d"]
    assert [each.text for each in found.broken] == [
        f"cannot read {DIRECTORY}/c.yml: all files hold more than 20 bytes; write shorter ones"
    ]


def test_reading_leaves_no_descriptor_open(guest, tmp_path):
    os.mkfifo(guest.services / "x.yml")
    (guest.services / "y.yml").touch()
    before = len(os.listdir("/proc/self/fd"))
    guest.read()
    guest.read("/etc/lcinit/services/y.yml")
    read_catalogue(str(guest.services))
    assert len(os.listdir("/proc/self/fd")) == before


# the catalogue


def test_the_catalogue_gives_files_by_name(tmp_path):
    (tmp_path / "a.yml").write_text("command: a")
    (tmp_path / "README.md").write_text("no service")
    (tmp_path / "b.txt").write_text("no service")
    read = read_catalogue(str(tmp_path))
    assert (read("a"), read("b"), read("README"), read("../a")) == (b"command: a", None, None, None)
    assert read_catalogue(str(tmp_path / "nowhere"))("a") is None


def test_a_file_of_the_catalogue_that_cannot_be_read_is_told_when_it_is_asked_for(tmp_path):
    (tmp_path / "a.yml").mkdir()
    (tmp_path / "b.yml").symlink_to("nowhere")
    (tmp_path / "c.yml").write_text("command: c")
    read = read_catalogue(str(tmp_path))
    assert read("c") == b"command: c"
    for name, cause in (("a", "it is no regular file"), ("b", "No such file or directory")):
        with pytest.raises(LcinitError, match=f"cannot read {tmp_path}/{name}.yml: {cause}"):
            read(name)
    assert combine((), read, GuestFiles(directory=DIRECTORY, enabled=("a", "c")), "cat").enabled == ("c",)


def test_a_catalogue_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(SystemFailure, match=f"read {tmp_path}/x: Not a directory"):
        read_catalogue(str(tmp_path / "x"))


def test_what_was_read_of_the_catalogue_needs_no_right_to_read_it_later(tmp_path):
    (tmp_path / "a.yml").write_text("command: a")
    read = read_catalogue(str(tmp_path))
    (tmp_path / "a.yml").unlink()
    assert read("a") == b"command: a"


def test_all_files_of_our_own_catalogue_are_right():
    directory = catalogue_directory()
    names = sorted(name[:-4] for name in os.listdir(directory) if name.endswith(".yml"))
    assert {"sshd", "cron", "nginx", "redis", "postgresql"} <= set(names)
    found = combine((), read_catalogue(directory), GuestFiles(directory=DIRECTORY, enabled=tuple(names)), directory)
    assert found.broken == ()
    assert [service.name for service in found.services] == names
    assert all(service.command and service.description for service in found.services)


# all together


def part(name, text="", path="services.x"):
    return parse_service(text.encode(), "init.yml", name).replace(path=path)


def together(inline=(), catalogue=None, guest=None, enabled=(), broken=()):
    contents = tuple((name, text.encode()) for name, text in (guest or {}).items())
    shipped = {name: text.encode() for name, text in (catalogue or {}).items()}
    files = GuestFiles(directory=DIRECTORY, contents=contents, enabled=tuple(enabled), broken=tuple(broken))
    return combine(tuple(inline), shipped.get, files, "/cat")


def names(found):
    return [service.name for service in found.services]


def test_the_configuration_goes_over_the_guest_and_both_over_the_catalogue():
    found = together(
        inline=[part("a", "user: inline")],
        catalogue={"a": "command: c\nuser: catalogue\ngroup: catalogue\ncwd: /catalogue"},
        guest={"a": "user: guest\ngroup: guest"},
    )
    (service,) = found.services
    assert service == Service(
        name="a", origin="init.yml", command=("c",), user="inline", group="guest", cwd="/catalogue"
    )
    assert (found.enabled, found.broken) == (("a",), ())


def test_what_is_in_the_configuration_is_enabled_and_what_lies_in_the_guest_is_not():
    found = together(inline=[part("a")], catalogue={"a": "command: a"}, guest={"b": "command: b", "c": "command: c"})
    assert (names(found), found.enabled) == (["a", "b", "c"], ("a",))
    found = together(catalogue={"a": "command: a"}, guest={"b": "command: b"}, enabled=["a", "b"])
    assert (names(found), found.enabled) == (["a", "b"], ("a", "b"))
    assert found.services[0].origin == "/cat/a.yml"
    assert found.services[1].origin == f"{DIRECTORY}/b.yml"


def test_of_the_catalogue_there_is_only_what_somebody_names():
    found = together(
        inline=[part("a", "command: a\nrequires: b")],
        catalogue={
            "b": "command: b\nwants: c",
            "c": "command: c\nrequires: [d, a]",
            "d": "command: d\nstart_after: e\nstart_before: f",
            "e": "command: e",
            "f": "command: f",
        },
    )
    assert (names(found), found.enabled, found.broken) == (["a", "b", "c", "d"], ("a",), ())


def test_services_are_in_the_order_of_their_names():
    catalogue = {"z": "command: z\nwants: b", "b": "command: b"}
    assert names(together(inline=[part("m", "command: m\nrequires: z")], catalogue=catalogue)) == ["b", "m", "z"]


def test_an_unknown_name_is_left_to_whoever_requires_it():
    found = together(inline=[part("a", "command: a\nrequires: nobody\nwants: nobody2")])
    assert (names(found), found.broken) == (["a"], ())


def test_a_link_that_leads_to_no_service_is_told():
    found = together(enabled=["a", "b"], guest={"b": "command: b"})
    assert found.broken == (Broken(name="a", text=f"{ENABLED}/a: there is no such service; remove the link"),)
    assert found.enabled == ("b",)


def test_a_broken_file_is_the_trouble_of_its_service_alone():
    found = together(
        inline=[part("a", "command: a"), part("late", "nice: 1"), part("d")],
        guest={"a": "comand: x\nnice: 50\n", "b": "command: b", "c": "command: c\nwatchdog: 5", "e": "{[}"},
        catalogue={"d": "command: d"},
        enabled=["a", "b", "c", "e"],
    )
    assert (names(found), found.enabled) == (["b", "d"], ("b", "d"))
    assert {each.name: each.text.split("\n") for each in found.broken} == {
        "a": [
            f'{DIRECTORY}/a.yml:1:1: comand: the key "comand" is unknown; did you mean command?',
            f"{DIRECTORY}/a.yml:2:7: nice: 50 is out of range; write -20 to 19",
        ],
        "c": [
            f"{DIRECTORY}/c.yml:2:11: watchdog: has no effect for type simple; write type: notify, or leave it out",
        ],
        "e": [
            f"{DIRECTORY}/e.yml:1:3: [0]: while parsing a flow node, did not find expected node content; "
            "see YAML 1.1, or put text with special characters in quotes",
        ],
        "late": [
            "init.yml:1:1: services.x.command: the key is missing; "
            "write the program and its arguments, or the name of a service that has a file",
        ],
    }


def test_what_could_not_be_read_is_broken_even_if_others_say_something_of_it():
    unread = Broken(name="a", text="cannot read it")
    found = together(inline=[part("a", "command: a")], catalogue={"a": "command: a"}, enabled=["a"], broken=[unread])
    assert found == Catalogue(broken=(unread,))


def test_a_broken_file_of_the_catalogue_is_told_by_its_own_name():
    found = together(inline=[part("a")], catalogue={"a": "command: ''"})
    assert found.broken == (Broken(name="a", text="/cat/a.yml:1:10: command: is empty; write a command"),)


def test_of_many_problems_some_are_told():
    many = "\n".join(f"k{number}: 1" for number in range(50))
    found = together(guest={"a": many})
    lines = found.broken[0].text.split("\n")
    assert (len(lines), lines[-1]) == (21, f"{DIRECTORY}/a.yml: and more problems")


def test_of_many_broken_files_each_has_its_first_problem_told():
    found = together(guest={f"s{number:03}": "a: 1\nb: 2\n" for number in range(60)})
    assert len(found.broken) == 60
    assert [len(each.text.split("\n")) for each in found.broken] == [2] * 50 + [2] * 10
    assert found.broken[-1].text.split("\n")[1] == f"{DIRECTORY}/s059.yml: and more problems"


@pytest.mark.row(54)
def test_files_that_are_made_to_take_long_do_not():
    worst = {
        "keys": "\n".join(f"restrat_dela{number}: 1" for number in range(2500)),
        "names": "capabilities: [" + ", ".join(f"net_rwa_{'x' * (number % 9)}" for number in range(4000)) + "]",
        "aliases": "environment: &a {A: &b [x, x, x]}\nstart_pre: [*a, *a, *b, *b]",
        "long": f"command: {'a' * 60000}\nuser: {'b' * 4000}",
        "digits": f"health: {{tcp: '1:{'9' * 4000}'}}\ncgroup: {{memory_max: {'9' * 4000}K}}",
        "deep": "command: " + "[" * 5000,
        "path": f"? {'k' * 32000}\n: [{'!,' * 15000}]",
        "below": f"limits: {{? {'k' * 32000} : {{{', '.join(f'a{number}: ' for number in range(3400))}}}}}",
        "unknown": "\n".join(f"a{number}: " for number in range(7000)),
        "circle": f"command: x\nstart_before: [&a a{', *a' * 7000}]\nrequires: [&b b{', *b' * 7000}]\nwants: a",
    }

    def read() -> None:
        found = together(guest={f"{kind}{number}": text for kind, text in worst.items() for number in range(12)})
        assert sorted({each.name.rstrip("0123456789") for each in found.broken}) == sorted(worst)
        assert max(len(each.text) for each in found.broken) < 20_000

    assert within_the_readers_limit(read) == 0


ALIASES = {
    "words": f"start_pre: [&x '{'ab ' * 10_000}'{', *x' * 7000}]",
    "runlevels": f"runlevels: [&x {'S' * 32_000}{', *x' * 7000}]",
    "paths": f"environment_file: [&x -{'/a' * 2000}{', *x' * 14_000}]",
    "names": f"environment_file: [&x /{'a' * 4000}{', *x' * 14_000}]",
}


@pytest.mark.row(54)
@pytest.mark.parametrize("text", ALIASES.values(), ids=ALIASES)
def test_what_aliases_of_a_long_text_stand_for_has_bounds(text):
    began = time.process_time()
    found = together(guest={"a": f"command: x\n{text}", "b": "command: b"})
    assert time.process_time() - began < 1
    assert names(found) == ["b"]
    assert "holds more than 20000 values with its aliases expanded" in found.broken[0].text
    assert len(found.broken[0].text) < 300


@pytest.mark.row(54)
def test_what_the_aliases_of_short_files_stand_for_together_has_bounds():
    text = f"command: x\nstart_pre: [&w [{'x,' * 100}]{', *w' * 100}]"
    found = together(guest={"a": "command: a", **{f"s{number:04}": text for number in range(1000)}, "z": "command: z"})
    assert {"a", "s0000", "z"} < {*names(found)}
    assert len(found.services) < 30
    assert {each.text.partition(": (document): ")[2] for each in found.broken} == {
        "all files together hold more than 200000 values with their aliases expanded; "
        "use fewer aliases, above all of long texts, or write shorter files"
    }


@pytest.mark.row(54)
@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_file_that_takes_too_much_memory_is_the_trouble_of_its_service_alone(error, monkeypatch):
    def parse(data, *others):
        if data == b"large":
            raise error
        return parse_service(data, *others)

    monkeypatch.setattr(service_files, "parse_service", parse)
    found = together(guest={"a": "command: a", "b": "large", "c": "command: c"})
    assert names(found) == ["a", "c"]
    text = f"{DIRECTORY}/b.yml: it takes more memory than there is to read it; write less"
    assert found.broken == (Broken(name="b", text=text),)


READ_IN_LITTLE_MEMORY = f"""
import marshal, resource, sys
sys.path[:0] = {[os.getcwd(), *sys.path]!r}
from lcinit.boot.reading import to_plain
from lcinit.config.service_files import combine, import_all
from lcinit.config.service_values import GuestFiles
import_all()
words = "ab " * 10_500
texts = [f"command: {{words}}\\nstart_pre: [&x {{words}}{{', *x' * 8}}]"] * 12 + ["command: " + words * 2] * 51
contents = tuple((f"s{{at:02}}", text.encode()) for at, text in enumerate(texts))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_FOR_FILES}, {MOST_MEMORY}))
found = combine((), {{}}.get, GuestFiles(directory="/", contents=contents), "c")
resource.setrlimit(resource.RLIMIT_AS, ({MOST_MEMORY}, {MOST_MEMORY}))
print(len(found.services), len(marshal.dumps(to_plain(found))) < {MOST_ANSWER})
"""


@pytest.mark.row(54)
def test_what_files_together_take_leaves_memory_for_the_answer():
    argv = [sys.executable, "-I", "-S", "-c", READ_IN_LITTLE_MEMORY]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "63 True\n"


@pytest.mark.row(54)
def test_an_answer_without_end_is_not_kept(monkeypatch):
    monkeypatch.setattr(reader, "MOST_ANSWER", 100_000)
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(write_end, bytes(100_001))
    asking, other = socket.socketpair()
    with asking, other, pytest.raises(SystemFailure, match="longer than 100000 bytes; write shorter files"):
        asyncio.run(reader.Reader(asking, stays=True).answer(read_end))
    os.close(write_end)


def within_the_readers_limit(function: Callable[[], None]) -> int:
    """The exit code of a process that calls it and has a reader's share of a processor; negative if it took more."""
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU, MOST_CPU))
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="abc:-[]{}&*!|>'\"#%@, \n\t01", max_size=80).map(str.encode))
def test_any_bytes_are_a_service_or_problems_of_their_file(data):
    try:
        read = parse_service(data, "f", "x")
    except LcinitError as error:
        assert error.exit_code == 78
        assert all(line.startswith("f:") for line in str(error).split("\n"))
    else:
        assert isinstance(read, ServicePart)
    found = combine((), {}.get, GuestFiles(directory="/d", contents=(("good", b"command: x"), ("x", data))), "/cat")
    assert "good" in names(found)
    assert {*names(found), *(each.name for each in found.broken)} == {"good", "x"}
    assert from_plain(marshal.loads(marshal.dumps(to_plain(found)))) == found


KEYS = sorted({*SERVICE.fields, *("tcp", "http", "exec", "to", "user", "command", "memory_max", "zzz")})
SCALARS = st.sampled_from(
    (None, True, False, 0, 1, 5, -1, 0.5, "", "x", "a b", "1m", "/x", "/dev/x", "TERM", "no", "oneshot", "file", "512M")
)
TREES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=3)
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5).map(lambda value: json.dumps(value).encode())


@settings(max_examples=300, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=3), st.booleans())
def test_any_documents_over_one_another_are_a_service_or_broken(layers, enabled):
    shipped = {"x": layers[0]}
    guest = GuestFiles(
        directory="/d",
        contents=tuple(("x", each) for each in layers[1:2]),
        enabled=("x",) if enabled else (),
    )
    inline = []
    for data in layers[2:]:
        try:
            inline.append(parse_service(data, "init.yml", "x").replace(path="services.x"))
        except LcinitError as error:
            assert error.exit_code == 78
    found = combine(tuple(inline), shipped.get, guest, "/cat")
    known = guest.contents or enabled or inline
    assert names(found) + [each.name for each in found.broken] == (["x"] if known else [])
    assert from_plain(marshal.loads(marshal.dumps(to_plain(found)))) == found


# on the way to PID 1

EVERYTHING = Service(
    name="a",
    origin="f",
    command=("x", "y"),
    type="notify",
    start_pre=(Command(argv=("z",), environment=(("A", "b"),), timeout=2.0),),
    health=Health(tcp=("127.0.0.1", 1), failures=9),
    limits=(Limit(name="core", soft=None, hard=5),),
    capabilities=(),
    cgroup=CgroupLimits(cpu_max=150),
    log=ServiceLog(to="both", max_size=5),
    success_exit_status=(7, "SIGHUP"),
    start_timeout=None,
)


@pytest.mark.parametrize(
    "value",
    [
        EVERYTHING,
        Catalogue(services=(EVERYTHING, Service(name="b")), enabled=("a",), broken=(Broken(name="c", text="é"),)),
        GuestFiles(directory="/d", contents=(("a", b"\xff"),)),
        parse(b"exec: {mode: tolerant, pid: shared}\nservices: {a: , b: {command: x, log: {to: file}}}", "init.yml"),
        parse(b"limits: {core: 1}\nid_map: {users: 0 1 5}\nmounts: [{source: /a, target: /b}]", "init.yml"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_survive_the_way_to_another_process(value):
    again = from_plain(marshal.loads(marshal.dumps(to_plain(value))))
    assert (again, type(again), hash(again)) == (value, type(value), hash(value))


def test_defaults_do_not_travel():
    assert to_plain(Service(name="a", origin="")) == {"": "Service", "name": "a"}
    assert to_plain(Service(name="a").replace(nice=5)) == {"": "Service", "name": "a", "nice": 5}


def test_two_hundred_services_are_read_parsed_and_put_together(guest):
    for number in range(200):
        (guest.services / f"s{number:03}.yml").write_text(
            f"description: number {number}\ncommand: [/bin/sleep, infinity]\nuser: nobody\n"
            "requires: [first]\nrestart: always\nlog: file\n"
        )
        (guest.enabled / f"s{number:03}").symlink_to(f"../services/s{number:03}.yml")
    (guest.services / "first.yml").write_text("command: 'true'\ntype: oneshot\n")
    found = combine((), read_catalogue(catalogue_directory()), guest.read(), "cat")
    assert (len(found.services), len(found.enabled), found.broken) == (201, 200, ())


def new_modules(texts: list[str]) -> list[set[str]]:
    """What a fresh interpreter with YAML imports for services: at first, and when it reads these files with them."""
    script = (
        f"import sys\nsys.path[:0] = {[os.getcwd(), *sys.path]!r}\n"
        "from lcinit.config import load, schema\nfrom lcinit.config.yaml_parser import yaml_parser\n"
        "yaml_parser()\nbefore = set(sys.modules)\n"
        "from lcinit.config.service_files import combine, import_all\nimport_all()\n"
        "from lcinit.config.service_values import GuestFiles\n"
        "print(*(set(sys.modules) - before))\nbefore = set(sys.modules)\n"
        "contents = [(f's{at}', text) for at, text in enumerate(sys.stdin.buffer.read().split(b'\\0'))]\n"
        "found = combine((), {}.get, GuestFiles(directory='/', contents=tuple(contents)), 'c')\n"
        "assert len(found.services) + len(found.broken) == len(contents)\n"
        "print(*(set(sys.modules) - before))"
    )
    argv = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(argv, input="\0".join(texts), capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.split("\n")[:2]]


def test_what_other_modules_may_import_later_is_imported_by_name():
    """Python's own import less at once with each version: from 3.14 on difflib does without re and heapq."""
    script = (
        f"import sys, types\nsys.path[:0] = {[os.getcwd(), *sys.path]!r}\n"
        "from lcinit.config.service_files import import_all\n"
        "for name in ('difflib', 'ipaddress'):\n    sys.modules[name] = types.ModuleType(name)\n"
        "for name in ('re', 'heapq'):\n    sys.modules.pop(name, None)\n"
        "import_all()\nprint('re' in sys.modules, 'heapq' in sys.modules)"
    )
    argv = [sys.executable, "-I", "-S", "-c", script]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "True True\n"


def test_reading_services_imports_little_and_nothing_once_it_has_begun():
    texts = [f"{key}: {text}" for key, text, *_ in (*ACCEPTED, *REFUSED)]
    first, later = new_modules(texts)
    assert not {name.partition(".")[0] for name in first} & {
        "typing",
        "dataclasses",
        "inspect",
        "asyncio",
        "json",
        "logging",
    }
    assert later == set()
