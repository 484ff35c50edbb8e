"""The wire format of /dev/initctl: exact frames, found again after anything that is none."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.control.initctl import (
    INIT_CMD_RUNLVL,
    INIT_CMD_SETENV,
    INIT_CMD_UNSETENV,
    MAX_VARIABLES,
    REQUEST_SIZE,
    RUNLEVELS,
    FrameReader,
    InitVariables,
    Request,
    runlevel_request,
    stop_word,
)

POWEROFF = runlevel_request("0")
REBOOT = runlevel_request("6")
MAGIC = struct.pack("=i", 0x03091969)


def test_a_request_is_384_bytes_in_native_order() -> None:
    frame = Request(cmd=1, runlevel=ord("6"), sleeptime=5).pack()
    assert len(frame) == 384
    assert frame[:16] == struct.pack("=iiii", 0x03091969, 1, ord("6"), 5)
    assert frame[16:] == bytes(368)


def test_data_that_does_not_fit_is_refused() -> None:
    assert len(Request(cmd=6, data=b"x" * 368).pack()) == REQUEST_SIZE
    with pytest.raises(ValueError, match="369 bytes"):
        Request(cmd=6, data=b"x" * 369).pack()
    with pytest.raises(ValueError, match="does not fit"):
        Request(cmd=2**31).pack()


@pytest.mark.parametrize("size", [0, 1, 381, 383, 385])
def test_parse_takes_exactly_one_frame(size: int) -> None:
    with pytest.raises(ValueError, match="384 bytes"):
        Request.parse((POWEROFF.pack() * 2)[:size])


def test_parse_refuses_a_wrong_magic() -> None:
    with pytest.raises(ValueError, match="begins with"):
        Request.parse(b"\0" * REQUEST_SIZE)


@pytest.mark.parametrize("level", list(RUNLEVELS))
def test_every_runlevel_survives_the_wire(level: str) -> None:
    assert Request.parse(runlevel_request(level).pack()).level == level


@pytest.mark.parametrize("level", ["", "7x", "10", "x", "٣", "\0", "-1"])
def test_what_is_no_runlevel_is_refused(level: str) -> None:
    with pytest.raises(ValueError, match="not a runlevel"):
        runlevel_request(level)


@pytest.mark.parametrize("code", [-1, 0, 128, 2**31 - 1, -(2**31), ord("x")])
def test_a_runlevel_that_is_no_character_is_shown_as_a_question_mark(code: int) -> None:
    assert Request(cmd=INIT_CMD_RUNLVL, runlevel=code).level == "?"


@pytest.mark.row(27)
@pytest.mark.parametrize(
    "broken",
    [
        b"x",
        MAGIC[:1],
        MAGIC[:3],
        REBOOT.pack()[:383],
        REBOOT.pack()[:100],
        b"\xff" * 384,
        b"\0" * 381,
        MAGIC * 40,
        b"x" * 100_000,
    ],
    ids=["1", "magic-1", "magic-3", "383", "100", "bad-magic", "381-zeros", "magics", "100000"],
)
@pytest.mark.parametrize("together", [True, False], ids=["one-write", "two-writes"])
def test_a_valid_frame_after_a_broken_one_is_obeyed(broken: bytes, together: bool) -> None:
    reader = FrameReader()
    seen = reader.feed(broken + POWEROFF.pack()) if together else reader.feed(broken) + reader.feed(POWEROFF.pack())
    assert seen == [POWEROFF]
    assert reader.skipped == len(broken)
    assert reader.pending == 0


@pytest.mark.row(27)
def test_a_frame_with_a_byte_too_many_is_obeyed_and_so_is_the_next() -> None:
    reader = FrameReader()
    assert reader.feed(POWEROFF.pack() + b"x") == [POWEROFF]
    assert reader.feed(REBOOT.pack()) == [REBOOT]


@pytest.mark.row(27)
def test_768_bytes_are_two_requests() -> None:
    assert FrameReader().feed(POWEROFF.pack() + REBOOT.pack()) == [POWEROFF, REBOOT]


def test_one_byte_at_a_time_is_as_good_as_all_at_once() -> None:
    reader = FrameReader()
    stream = b"zz" + POWEROFF.pack() + REBOOT.pack()
    assert [r for i in range(len(stream)) for r in reader.feed(stream[i : i + 1])] == [POWEROFF, REBOOT]


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=900),
        st.just(POWEROFF.pack()),
        st.integers(1, 383).map(lambda n: REBOOT.pack()[:n]),
        st.integers(1, 4).map(lambda n: MAGIC[:n]),
    ),
    max_size=8,
)


@given(PIECES)
def test_whatever_came_before_two_frames_in_a_row_end_in_the_second(pieces: list[bytes]) -> None:
    reader = FrameReader()
    for piece in pieces:
        reader.feed(piece)
        assert reader.pending < REQUEST_SIZE
    assert reader.feed(POWEROFF.pack() + REBOOT.pack())[-2:] == [POWEROFF, REBOOT]


@given(PIECES, st.integers(1, 500))
def test_no_byte_is_counted_twice_or_lost(pieces: list[bytes], step: int) -> None:
    stream = b"".join(pieces)
    reader = FrameReader()
    requests = [r for i in range(0, len(stream), step) for r in reader.feed(stream[i : i + step])]
    assert len(requests) * REQUEST_SIZE + reader.skipped + reader.pending == len(stream)


@pytest.mark.row(29)
def test_only_init_variables_are_kept() -> None:
    variables = InitVariables()
    data = b"LD_PRELOAD=/evil.so\0INIT_HALT=HALT\0PATH=/evil\0INITIAL=1\0"
    variables.apply(Request(cmd=INIT_CMD_SETENV, data=data))
    assert len(variables) == 1
    assert variables.get("INIT_HALT") == "HALT"
    assert variables.get("LD_PRELOAD") is None


def test_variables_are_unset_by_a_bare_name_and_by_unsetenv() -> None:
    variables = InitVariables()
    for request in (
        Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT"),
        Request(cmd=INIT_CMD_UNSETENV, data=b"INIT_HALT"),
        Request(cmd=INIT_CMD_UNSETENV, data=b"INIT_HALT=x"),
    ):
        variables.apply(Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=HALT"))
        assert variables.get("INIT_HALT") == "HALT"
        variables.apply(request)
        assert variables.get("INIT_HALT") is None


def test_variables_are_bounded_and_can_still_be_changed() -> None:
    variables = InitVariables()
    for number in range(1000):
        variables.apply(Request(cmd=INIT_CMD_SETENV, data=b"INIT_%d=x" % number))
    assert len(variables) == MAX_VARIABLES
    variables.apply(Request(cmd=INIT_CMD_SETENV, data=b"INIT_0=y"))
    assert variables.get("INIT_0") == "y"


@pytest.mark.parametrize(
    ("request_", "halt", "word"),
    [
        (runlevel_request("0"), None, "poweroff"),
        (runlevel_request("0"), b"HALT", "halt"),
        (runlevel_request("0"), b"POWEROFF", "poweroff"),
        (runlevel_request("6"), b"HALT", "reboot"),
        (runlevel_request("3"), None, None),
        (Request(cmd=INIT_CMD_SETENV, runlevel=ord("0")), None, None),
        (Request(cmd=99, runlevel=ord("6")), None, None),
        (Request(cmd=INIT_CMD_RUNLVL, runlevel=0), None, None),
    ],
)
def test_runlevels_mean_ends(request_: Request, halt: bytes | None, word: str | None) -> None:
    variables = InitVariables()
    if halt is not None:
        variables.apply(Request(cmd=INIT_CMD_SETENV, data=b"INIT_HALT=" + halt))
    assert stop_word(request_, variables) == word
