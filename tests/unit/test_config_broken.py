"""Broken files: every problem at once, at its place, with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcinit.config.diagnostics import MAX_PROBLEMS, InvalidFile
from lcinit.config.load import parse
from lcinit.errors import EX_CONFIG

BROKEN = Path(__file__).parent / "data" / "broken"
CASES = sorted(path.stem for path in BROKEN.glob("*.yml"))


def problems(text: str) -> list[str]:
    """The lines that a text gives, without the file's name."""
    with pytest.raises(InvalidFile) as caught:
        parse(text.encode(), "f")
    assert caught.value.exit_code == EX_CONFIG
    return [line.removeprefix("f:") for line in str(caught.value).splitlines()]


def test_all_ten_broken_files_are_here():
    assert len(CASES) == 10


@pytest.mark.parametrize("case", CASES)
def test_broken_file_gives_exactly_the_expected_lines(case):
    with pytest.raises(InvalidFile) as caught:
        parse((BROKEN / f"{case}.yml").read_bytes(), "init.yml")
    assert f"{caught.value}\n" == (BROKEN / f"{case}.txt").read_text()
    assert caught.value.exit_code == EX_CONFIG


def test_problems_are_sorted_by_place_and_each_names_its_key():
    assert problems("runlevel: 9\ninitctl: maybe\nroot: {mode: pivto}\n") == [
        "1:11: runlevel: 9 is out of range; write a runlevel from 1 to 5, or S",
        '2:10: initctl: is the text "maybe"; write true, false or auto',
        '3:14: root.mode: "pivto" is not known; did you mean pivot? write pivot, chroot, none or null',
    ]


def test_problems_found_while_parsing_and_while_reading_come_together():
    lines = problems("runlevel: 010\nhostname: -x\nsetup: {before: [{command: a, timeout: 0}]}\n")
    assert [line.split(":")[:3] for line in lines] == [
        ["1", "11", " runlevel"],
        ["2", "11", " hostname"],
        ["3", "40", " setup.before[0].timeout"],
    ]


def test_one_mistake_repeated_by_aliases_is_capped():
    entries = ", ".join(f"k{number}: 1" for number in range(MAX_PROBLEMS + 7))
    lines = problems(f"environment: {{{entries}}}")
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == " and more problems"


def test_what_was_not_looked_at_after_many_problems_is_perhaps_one():
    entries = ", ".join(f"k{number}: x" for number in range(MAX_PROBLEMS - 1))
    lines = problems(f"environment: {{{entries}}}\nhostname: 5\nroot: /x")
    assert "more problems" not in lines[-1]
    keys = "".join(f"k{number}: 1\n" for number in range(MAX_PROBLEMS))
    assert len(problems(keys)) == MAX_PROBLEMS
    assert problems(f"{keys}root: /x\n")[-1] == " and perhaps more problems"
    assert problems(f"{keys}root: /x\nhostname: 5\n")[-1] == " and more problems"


def test_control_characters_of_a_file_never_reach_the_terminal():
    lines = problems('root: "\\e[31m/\\x9b\\u202e"\n"a\\nb": 1\n')
    assert all(character.isprintable() for line in lines for character in line)
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "exec: {mode: tolernt}",
            '1:14: exec.mode: "tolernt" is not known; did you mean tolerant?',
        ),
        (
            "exec: {pid: shared}",
            "1:13: exec.pid: has no effect after a handoff; write exec.mode: tolerant, or leave it out",
        ),
        (
            "exec: {on_reboot: restart}",
            "1:19: exec.on_reboot: has no effect after a handoff; write exec.mode: tolerant",
        ),
        ("exec: {on_exit: restart}", "1:17: exec.on_exit: has no effect after a handoff; write exec.mode: tolerant"),
        ("shutdown: {after: sync}", "1:19: shutdown.after: has no effect after a handoff; write exec.mode: tolerant"),
        (
            "shutdown: {after: sync}\nexec: {mode: tolerant, pid: shared}",
            "1:19: shutdown.after: the boot root is out of reach with exec.pid: shared; write exec.pid: nested",
        ),
        (
            "exec: {mode: tolerant, pid: shared, on_reboot: restart}",
            "1:48: exec.on_reboot: has no effect with exec.pid: shared; write exec.pid: nested",
        ),
        (
            "initctl: true\nexec: {mode: tolerant, pid: shared}",
            "1:10: initctl: nobody serves it with exec.pid: shared and without services; write services, or exec.pid",
        ),
        ("shutdown: {after: ['']}", "1:20: shutdown.after[0]: is empty; write a command"),
        ("shutdown: {timeout: 5}", "1:21: shutdown.timeout: has no effect after a handoff; write exec.mode: tolerant"),
        (
            "services: {sshd: {}}",
            "1:11: services: lcinit supervises services where it is the guest's own init; "
            "write exec: {mode: tolerant, pid: shared}, or leave it out",
        ),
        (
            "services: {}\nexec: {mode: tolerant, pid: nested}",
            "1:11: services: lcinit supervises services where it is the guest's own init; write exec: {mode: tolerant,",
        ),
        (
            "services_dir: /etc/x",
            "1:15: services_dir: has no effect without services; write services, if only {}, or leave it out",
        ),
        ("runlevel: 5", "1:11: runlevel: has no effect without services; write services, if only {}, or leave it out"),
        ("exec: {stop: {poweroff: TERM}}", "1:14: exec.stop: nobody asks the guest after a handoff without initctl;"),
    ],
)
def test_what_another_key_makes_void_is_refused(text, line):
    assert [found.startswith(line) for found in problems(text)] == [True], problems(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id_map", "{users: 0 1000000 65536}"),
        ("devices", "{include: fuse}"),
        ("namespaces", "{ipc: false}"),
        ("hostname", "guest"),
        ("network", "{loopback: false}"),
        ("mounts", "[{source: /a, target: /b}]"),
        ("fstab", "/etc/fstab"),
        ("capabilities", "{drop: [mknod]}"),
    ],
)
@pytest.mark.parametrize("setup", ["none", "null", "false", "mount /dev/loop0 /mnt/root", "{mode: none}"])
def test_what_setup_none_would_ignore_is_refused(key, value, setup):
    (line,) = problems(f"setup: {setup}\n{key}: {value}\n")
    assert f"{key}: has no effect while setup.mode is none; leave it out" in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("root: {path: null, mode: pivot}", "1:26: root.mode: there is no guest root to enter: root.path is null;"),
        ("root: {path: null, read_only: true}", "1:31: root.read_only: there is no guest root: root.path is null;"),
        ("hostname: a\nnamespaces: {uts: false}", "1:11: hostname: the guest has no host name of its own;"),
        (
            "network: {interfaces: [eth0]}\nnamespaces: {network: false}",
            "1:23: network.interfaces: the guest has no network namespace to move them to;",
        ),
        ("capabilities: {drop: [mknod, bpf], keep: [CAP_BPF]}", "1:42: capabilities.keep: bpf is in drop too;"),
        ("exec: {user: a, command: {command: b, user: c}}", "1:14: exec.user: stands here and in exec.command too;"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(text, line):
    assert [found.startswith(line) for found in problems(text)] == [True], problems(text)
