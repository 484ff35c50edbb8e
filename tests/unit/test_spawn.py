"""The order of what a child does, variables from files, and what is said to the spawner."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.linux import prepared
from lcinit.supervisor import environments, spawn
from lcinit.supervisor.program import Account, Identity, Program
from lcinit.supervisor.spawner_messages import NO_SLOT, ROOM, body_address, flat, packets, program_of, receive

EVERYTHING = Program(
    argv=("/bin/true", "x"),
    environment=(("A", "b"),),
    cwd="/srv",
    stdin=4,
    stdout=5,
    stderr=5,
    identity=Identity(uid=1, gid=2, groups=(2, 3)),
    limits=((7, 1, None),),
    environment_files=("-/x",),
    umask=0o27,
    nice=1,
    oom_score_adj=2,
    capabilities=("kill",),
    no_new_privileges=True,
    private_tmp=True,
    read_only_paths=("/a", "/b"),
    cgroup=6,
    descriptors=((4, 3), (7, 9)),
)


def words_of(program: Program, **options: bool) -> list[str]:
    child = spawn.Child(program, 50, **{"within_cgroup": False, "default_signals": True, **options})
    try:
        return list(dict.fromkeys(step[0] for step in child.steps))
    finally:
        child.forget()


def test_the_order_is_such_that_no_step_lacks_what_another_took() -> None:
    assert words_of(EVERYTHING) == [
        "enter its cgroup",
        "start",
        "open streams",
        "make a mount namespace",
        "make /a read-only",
        "make /b read-only",
        "mount a private /tmp",
        "mount a private /var/tmp",
        "read environment_file /x",
        "set limits (RLIMIT_NOFILE)",
        "set the nice value",
        "reduce the bounding set",
        "change user",
        "set capabilities",
        "enter /srv",
        "set the umask",
        "forbid new privileges",
        "reset signals",
    ]


def test_a_plain_program_takes_few_steps_and_one_with_a_terminal_opens_it() -> None:
    assert words_of(Program(argv=("x",))) == ["start", "open streams", "set the umask", "reset signals"]
    assert words_of(EVERYTHING, within_cgroup=True)[0] == "start"
    with_terminal = words_of(Program(argv=("x",), tty="/dev/tty1"))
    assert with_terminal[1:4] == ["open streams", "open the terminal /dev/tty1", "take the terminal"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("  A = 1 \r\n\r\n", {"A": "1"}),
        ("# A=1\n; B=2\nC=3", {"C": "3"}),
        ("# goes on \\\nA=1\nB=2", {"B": "2"}),
        ("A='one  two' three\n", {"A": "one  two three"}),
        ('A="one \\"two\\" \\$x \\n"\n', {"A": 'one "two" $x \\n'}),
        ("A=one\\\ntwo\n", {"A": "onetwo"}),
        ("A='line\nline'\nB=2", {"A": "line\nline", "B": "2"}),
        ("A=a\\ \n", {"A": "a "}),
        ("A=a\\\\b\n", {"A": "a\\b"}),
        ("A=\nB=''\n", {"A": "", "B": ""}),
        ("A=x=y\n", {"A": "x=y"}),
        ("no name\n=value\n1A=x\nA-B=x\nexport C=x\nD=y", {"D": "y"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=\0\nB=1", {"B": "1"}),
        ("A=# no comment", {"A": "# no comment"}),
        ("A='never closed", {"A": "never closed"}),
        ("", {}),
        ("A", {}),
        ("A=\\", {"A": ""}),
    ],
)
def test_variables_of_a_file(text: str, found: dict[str, str]) -> None:
    assert environments.parse(text) == found


@given(st.text(alphabet="A=1 \\'\"#;\n\r\t$`x", max_size=60))
def test_any_text_is_read_to_its_end(text: str) -> None:
    for name, value in environments.parse(text).items():
        assert name.isidentifier()
        assert "\0" not in value


@given(st.dictionaries(st.from_regex(r"\A[A-Z_]{1,5}\Z"), st.text(alphabet=st.characters(exclude_characters="\0'"))))
def test_what_is_in_single_quotes_is_literal(variables: dict[str, str]) -> None:
    text = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    assert environments.parse(text) == variables


class Line:
    """A channel within the test."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.room = memoryview(bytearray(ROOM))

    def send(self, slot: int, values: tuple[object, ...], descriptors: list[int], laid_out: bytes = b"") -> None:
        for packet in packets(slot, values, descriptors, laid_out):
            packet.send(self.ours)  # type: ignore[arg-type]

    def receive(self) -> object:
        return receive(self.theirs, self.room)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 10, 16 * 1024, 17 * 1024, 300 * 1024])
@pytest.mark.parametrize("count", [0, 1, 200, 201, 450])
def test_messages_of_any_size_with_any_number_of_descriptors(size: int, count: int) -> None:
    line = Line()
    null = os.open("/dev/null", os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    line.send(7, ("x" * size, 3), [null] * count, b"laid out")
    message = line.receive()
    assert message is not None
    assert (message.slot, message.values) == (7, ("x" * size, 3))  # type: ignore[attr-defined]
    assert len(message.descriptors) == count  # type: ignore[attr-defined]
    assert all(os.path.samestat(os.fstat(fd), os.fstat(null)) for fd in message.descriptors)  # type: ignore[attr-defined]
    assert not any(os.get_inheritable(fd) for fd in message.descriptors)  # type: ignore[attr-defined]
    assert bytes(line.room[body_address(0) :][:8]) == b"laid out"
    message.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(null)
    line.ours.close()
    assert line.receive() is None


def test_the_beginning_of_a_message_whose_rest_was_never_sent_is_dropped() -> None:
    line = Line()
    null, zero = (os.open(path, os.O_RDONLY) for path in ("/dev/null", "/dev/zero"))
    before = len(os.listdir("/proc/self/fd"))
    first = packets(7, ("lost",), [null] * 450)
    for packet in first[:-1]:
        packet.send(line.ours)  # type: ignore[arg-type]
    line.send(7, ("sent",), [zero] * 2)
    message = line.receive()
    assert message.values == ("sent",)  # type: ignore[attr-defined]
    assert [os.fstat(fd).st_rdev for fd in message.descriptors] == [os.fstat(zero).st_rdev] * 2  # type: ignore[attr-defined]
    message.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_message_larger_than_the_kernel_could_use_is_refused() -> None:
    with pytest.raises(OSError) as caught:
        packets(NO_SLOT, ("x" * ROOM,), [])
    assert caught.value.errno == errno.E2BIG


def test_a_program_comes_as_it_went() -> None:
    for program in (
        EVERYTHING,
        EVERYTHING.replace(identity=None, account=Account(user="u", groups=(1, "g")), stdin=None),
    ):
        values, numbers = flat(program)
        assert sorted(numbers) == sorted({fd for fd in (program.stdin, 5, 6, 4, 7) if fd is not None})
        moved = {fd: fd + 100 for fd in numbers}
        found = program_of(values, [moved[fd] for fd in numbers])
        expected = program.replace(
            stdin=None if program.stdin is None else 104,
            stdout=105,
            stderr=105,
            cgroup=106,
            descriptors=((104, 3), (107, 9)),
        )
        assert found == expected
    values, _ = flat(Program(argv=("x", "y"), environment=(("A", "b"),)))
    assert program_of(values, [1, 2]).argv == (), "what has been laid out already is not sent twice"


def test_what_is_laid_out_is_executed() -> None:
    script = """
import os, sys
sys.path[:0] = [sys.argv[1]]
from lcinit.linux.prepared import Image
argv = ["sh", "-c", 'echo "$0|$1|$2|$A|$B"', "", "two  words"]
Image.of(["/nowhere", "/etc/passwd/x", "/bin/sh"], argv, {"A": "a=b", "B": ""}).execute()
"""
    root = os.path.join(os.path.dirname(__file__), "..", "..")
    done = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
    assert done.stdout == "|two  words||a=b|\n"


@pytest.mark.parametrize(
    ("argv", "environment"),
    [(["a\0b"], {}), (["a"], {"A": "\0"}), (["a"], {"": "x"}), (["a"], {"A=B": "x"}), (["a"], {"\0": "x"})],
)
def test_what_cannot_be_laid_out_is_an_error(argv: list[str], environment: dict[str, str]) -> None:
    with pytest.raises(OSError, match=r"null byte|no name of a variable"):
        prepared.lay_out(["/bin/sh"], argv, environment, 0)


def test_reports_name_the_step_and_the_cause() -> None:
    told = spawn.failure_of("x", spawn.report_of("set the nice value", PermissionError(errno.EACCES, "whatever")))
    assert (told.message, told.exit_code) == ("cannot run 'x': set the nice value: Permission denied", 126)
    told = spawn.failure_of("x", spawn.report_of("exec", FileNotFoundError(errno.ENOENT, "")))
    assert (told.message, told.exit_code) == ("cannot run 'x': not found", 127)
    told = spawn.failure_of("x", spawn.report_of("enter /a", FileNotFoundError(errno.ENOENT, "", "/a")))
    assert told.message == "cannot run 'x': enter /a: No such file or directory"
    long = spawn.report_of("make " + "x" * 5000, OSError(errno.EIO, ""))
    assert len(long) == spawn.REPORT_MOST
