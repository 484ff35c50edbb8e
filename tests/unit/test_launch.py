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


def entries(table: bytes, count: int) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("=8Q", table[launch.RESULT.size :][: ENTRY * count]))


def text_at(table: bytes, address: int) -> bytes:
    place = address - BASE
    return table[place : table.index(b"\0", place)]


def test_each_step_that_fails_leads_to_the_report_and_the_end() -> None:
    steps = [("first", *prepared.setsid()), ("second", *prepared.open_file("/dev/null", 5))]
    paths = ["/a/x", "/b/x", "/c/x"]
    table = launch.write_table(steps, paths, ["x", "y z"], {"A": "b"}, 17, BASE)
    found = entries(table, 9)
    address = [launch.table_of(BASE) + ENTRY * number for number in range(9)]
    first, second, *attempts, end = found
    assert first[0] == prepared.setsid()[1][0]
    assert first[7] == second[7] == address[7], "the last report"
    assert text_at(table, second[2]) == b"/dev/null"
    for number, path in enumerate(paths):
        execute, report = attempts[2 * number], attempts[2 * number + 1]
        assert execute[0] == prepared.EXECVE
        assert text_at(table, execute[1]) == path.encode()
        assert execute[7] == address[3 + 2 * number], "its report"
        assert report == (prepared.WRITE, 17, BASE, launch.RESULT.size, 0, 0, 0, address[4 + 2 * number])
        words = struct.unpack_from("=3Q", table, execute[2] - BASE)
        assert [text_at(table, word) for word in words[:2]] == [b"x", b"y z"]
        assert words[2] == 0
        variables = struct.unpack_from("=2Q", table, execute[3] - BASE)
        assert text_at(table, variables[0]) == b"A=b"
        assert variables[1] == 0
    assert end[:2] == (prepared.EXIT_GROUP, 126)


def test_negative_arguments_are_those_of_the_kernel() -> None:
    table = launch.write_table([("nice", *prepared.setpriority(-5))], ["/x"], ["x"], {}, 17, BASE)
    assert entries(table, 1)[0][3] == (1 << 64) - 5


def test_only_system_calls_stand_in_a_table() -> None:
    with pytest.raises(ValueError, match="not a system call"):
        launch.write_table([("python", print, (1,))], ["/x"], ["x"], {}, 17, BASE)


def results(*failed: tuple[int, int]) -> bytes:
    return b"".join(launch.RESULT.pack(launch.table_of(BASE) + ENTRY * entry, -number) for entry, number in failed)


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
    steps = [("first", *prepared.setsid()), ("second", *prepared.umask(0))]
    assert launch.why_not(report, steps, ["/a", "/b", "/c"], BASE) == told
