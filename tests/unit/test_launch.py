"""The instructions are what stands beside them, and the table is what they expect."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess

import pytest

from lcinit.linux import launch, prepared

BASE = 0x700000000000
ENTRY = 64


@pytest.mark.skipif(shutil.which("as") is None or shutil.which("objcopy") is None, reason="needs binutils")
def test_the_listing_assembles_to_its_bytes(tmp_path: object) -> None:
    listing = (launch._X86_64, launch._AARCH64)[launch.by_machine(0, 1)]
    source = "\n".join(line.partition(" ")[2] for line in listing.split("\n"))
    subprocess.run(["as", "-o", f"{tmp_path}/o", "-"], input=source, text=True, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", f"{tmp_path}/o", f"{tmp_path}/bin"], check=True)
    with open(f"{tmp_path}/bin", "rb") as file:
        assert file.read() == launch.code()


def test_the_instructions_of_the_other_machine_are_whole() -> None:
    # assembled and run under qemu-aarch64 by hand: each is one word
    words = [line.split()[0] for line in launch._AARCH64.split("\n") if line]
    assert [len(word) for word in words] == [8] * 18
    assert words[1] == words[10] == "010000d4", "svc #0"


def entries(kind: launch.Kind, table: bytes, count: int) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("=8Q", table[kind.start :][: ENTRY * count]))


def entry_at(table: bytes, address: int) -> tuple[int, ...]:
    return struct.unpack_from("=8Q", table, address - BASE)


def text_at(table: bytes, address: int) -> bytes:
    place = address - BASE
    return table[place : table.index(b"\0", place)]


def test_each_step_that_fails_leads_to_the_report_and_the_end() -> None:
    steps = [("first", *prepared.setsid()), ("second", *prepared.open_file("/dev/null", 5))]
    kind = launch.Kind(steps, 17)
    paths = ["/a/x", "/b/x", "/c/x"]
    table = kind.table(paths, ["x", "", "y z"], {"A": "b"}, BASE)
    result = BASE + kind.start - launch.RESULT.size
    first, second, *attempts = entries(kind, table, 7)
    assert first[0] == prepared.setsid()[1][0]
    assert text_at(table, second[2]) == b"/dev/null"
    report = entry_at(table, first[7])
    assert first[7] == second[7] == attempts[4][7], "and the last attempt"
    assert report[:4] == (prepared.WRITE, 17, result, launch.RESULT.size)
    assert entry_at(table, report[7])[:2] == (prepared.EXIT_GROUP, 126)
    assert entry_at(table, first[7] + ENTRY)[:2] == (prepared.EXIT_GROUP, 126), "what follows the report"
    address = [BASE + kind.start + ENTRY * number for number in range(7)]
    for number in (0, 1):
        execute, told = attempts[2 * number], attempts[2 * number + 1]
        assert execute[7] == address[3 + 2 * number], "its report"
        assert told == (prepared.WRITE, 17, result, launch.RESULT.size, 0, 0, 0, address[4 + 2 * number])
    for execute, path in zip(attempts[::2], paths, strict=True):
        assert execute[0] == prepared.EXECVE
        assert text_at(table, execute[1]) == path.encode()
        words = struct.unpack_from("=4Q", table, execute[2] - BASE)
        assert [text_at(table, word) for word in words[:3]] == [b"x", b"", b"y z"]
        assert words[3] == 0
        variables = struct.unpack_from("=2Q", table, execute[3] - BASE)
        assert text_at(table, variables[0]) == b"A=b"
        assert variables[1] == 0


def test_numbers_stay_what_they_are_wherever_a_table_stands() -> None:
    limit = prepared.setrlimit(7, (1 << 63) + 5, -1)
    kind = launch.Kind([("nice", *prepared.setpriority(-5)), ("limit", *limit)], 17)
    for base in (0, BASE, (1 << 47) - 4096):
        table = kind.table(["/x"], ["x"], {}, base)
        nice, limits = entries(kind, table, 2)
        assert nice[:4] == (*prepared.setpriority(0)[1][:1], 0, 0, (1 << 64) - 5)
        assert struct.unpack_from("=2Q", table, limits[3] - base) == ((1 << 63) + 5, (1 << 64) - 1)


def test_only_system_calls_stand_in_a_table() -> None:
    with pytest.raises(ValueError, match="not a system call"):
        launch.Kind([("python", print, (1,))], 17)


STEPS = [("first", *prepared.setsid()), ("second", *prepared.umask(0))]
KIND = launch.Kind(STEPS, 17)


def results(*failed: tuple[int, int]) -> bytes:
    return b"".join(launch.RESULT.pack(BASE + KIND.start + ENTRY * entry, -number) for entry, number in failed)


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (results(), None),
        (results((1, errno.EPERM)), ("second", errno.EPERM)),
        # two attempts failed, and the third was executed
        (results((2, errno.ENOENT), (4, errno.EACCES)), None),
        (results((2, errno.ENOENT), (4, errno.ENOENT), (6, errno.ENOENT)), ("exec", errno.ENOENT)),
        (results((2, errno.ENOTDIR), (4, errno.ENOENT), (6, errno.ENOTDIR)), ("exec", errno.ENOENT)),
        (results((2, errno.EACCES), (4, errno.ENOENT), (6, errno.ENOEXEC)), ("exec", errno.EACCES)),
        (results((2, errno.ENOENT), (4, errno.ENOENT), (6, errno.ENOEXEC)), ("exec", errno.ENOEXEC)),
    ],
)
def test_what_the_results_mean(report: bytes, told: tuple[str, int] | None) -> None:
    assert KIND.why_not(report, 3, BASE) == told
