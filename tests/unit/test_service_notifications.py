"""What a notification says, from its bytes (sd_notify(3))."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.control.notify import LARGEST
from lcinit.service.notifications import LONGEST_STATUS, Notification, number, parse, text


def said(data: bytes) -> dict[str, Any]:
    """The fields that are not their defaults."""
    nothing = Notification().values()
    return {name: value for name, value in parse(data).values().items() if value != nothing[name]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"READY=1", {"ready": True}),
        (b"READY=1\n", {"ready": True}),
        (b"READY=1\0", {"ready": True}),
        (b"READY=0", {}),
        (b"READY=11", {}),
        (b" READY=1", {}),
        (b"ready=1", {}),
        (b"RELOADING=1\nMONOTONIC_USEC=17", {"reloading": True, "monotonic_usec": 17}),
        (b"STOPPING=1", {"stopping": True}),
        (b"READY=1\nSTATUS=at work\nMAINPID=4711", {"ready": True, "status": "at work", "main_pid": 4711}),
        (b"STATUS=", {"status": ""}),
        (b"STATUS=a=b", {"status": "a=b"}),
        (b"WATCHDOG=1", {"watchdog": True}),
        (b"WATCHDOG=trigger", {"watchdog_trigger": True}),
        (b"WATCHDOG_USEC=20000000", {"watchdog_usec": 20_000_000}),
        (b"WATCHDOG_USEC=0", {"watchdog_usec": 0}),
        (b"WATCHDOG_USEC=18446744073709551615", {"watchdog_usec": 2**64 - 1}),
        (b"EXTEND_TIMEOUT_USEC=5000000", {"extend_timeout_usec": 5_000_000}),
        (
            b"ERRNO=2\nBUSERROR=org.x.Failed\nEXIT_STATUS=3",
            {"errno": 2, "bus_error": "org.x.Failed", "exit_status": "3"},
        ),
        (b"VARLINKERROR=org.x.Failed", {"varlink_error": "org.x.Failed"}),
        (b"BARRIER=1", {"barrier": True}),
        (b"FDSTORE=1\nFDNAME=x\nX_OWN=1\nNOTIFYACCESS=all\nnothing\n=\n\n", {}),
        (b"", {}),
        (b"\0", {}),
        (b"MAINPID=4194304", {"main_pid": 4194304}),
    ],
)
def test_every_assignment_has_its_meaning(data: bytes, expected: dict[str, Any]) -> None:
    assert said(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"READY=1\nSTOPPING=1", {"stopping": True}),
        (b"STOPPING=1\nREADY=1", {"ready": True}),
        (b"RELOADING=1\nREADY=1\nRELOADING=1", {"reloading": True}),
        (b"MAINPID=1\nMAINPID=2", {"main_pid": 2}),
        (b"STATUS=a\nSTATUS=b", {"status": "b"}),
    ],
)
def test_of_several_the_last_counts(data: bytes, expected: dict[str, Any]) -> None:
    assert said(data) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b"-1",
        b"+1",
        b"1.5",
        b"1e3",
        b"0x10",
        b"1_0",
        b"99999999999999999999999",
        "٣".encode(),
        b"1 2",
        b"\xff",
    ],
)
@pytest.mark.parametrize("name", ["MAINPID", "WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC", "MONOTONIC_USEC", "ERRNO"])
def test_a_number_that_is_none_is_told_and_ignored(name: str, value: bytes) -> None:
    result = parse(f"{name}=".encode() + value + b"\nREADY=1")
    assert result.ready
    assert len(result.problems) == 1
    assert result.problems[0].startswith(f"{name}=")
    assert result.replace(ready=False, problems=()) == Notification()


@pytest.mark.parametrize("value", ["0", "4194305"])
def test_no_process_has_such_a_number(value: str) -> None:
    assert parse(f"MAINPID={value}".encode()).problems == (f"MAINPID={value}: it is a process id",)


def test_a_broken_value_takes_an_earlier_one_back_and_a_later_one_mends_it() -> None:
    assert said(b"READY=1\nREADY=no") == {}
    assert said(b"MAINPID=5\nMAINPID=x") == {"problems": ("MAINPID=x: it is a process id",)}
    assert said(b"MAINPID=x\nMAINPID=5") == {"main_pid": 5}
    assert said(b"WATCHDOG=2") == {"problems": ('WATCHDOG=2: it is "1" or "trigger"',)}


def test_a_nul_byte_spoils_the_whole_message() -> None:
    assert said(b"READY=1\0\nSTATUS=x") == {"problems": ("it holds a NUL byte",)}


def test_a_status_cannot_move_a_cursor_and_is_short() -> None:
    assert parse(b"STATUS=\x1b[2J\xe2\x80\xae\xff").status == "\\x1b[2J\\u202e�"
    long = parse(b"STATUS=" + b"a" * 4000).status
    assert long is not None and len(long) == LONGEST_STATUS and long.endswith("...")
    escaped = parse(b"STATUS=" + b"\x01" * LONGEST_STATUS).status
    assert escaped is not None and len(escaped) == LONGEST_STATUS and escaped.endswith("...")
    assert parse(b"STATUS=" + b"a" * LONGEST_STATUS).status == "a" * LONGEST_STATUS


def test_a_long_list_is_cut_and_told() -> None:
    assert said(b"X=1\n" * 31 + b"READY=1\n") == {"ready": True}
    assert said(b"X=1\n" * 32 + b"READY=1\n") == {"problems": ("it has more than 32 lines",)}


UNPRINTABLE = b"\x01" * 120


@pytest.mark.parametrize(
    "line",
    [
        *(b"\n", b"=\n", b"ERRNO=x\n", b"STATUS=" + UNPRINTABLE + b"\n", b"X=" + UNPRINTABLE + b"\n"),
        b"\n".join(name + b"=" + UNPRINTABLE for name in (b"STATUS", b"BUSERROR", b"ERRNO", b"MAINPID", b"WATCHDOG")),
    ],
)
def test_no_message_takes_long(line: bytes) -> None:
    """Not a time by the clock: what is called for the worst is little more than for one long text without a letter."""
    worst, plain = (line * LARGEST)[:LARGEST], (b"STATUS=" + b"\x01" * LARGEST)[:LARGEST]
    assert calls_for(worst) < 4 * calls_for(plain)


def calls_for(data: bytes) -> int:
    """How many functions are called to understand a message, those of C among them."""
    events: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: events.append(event))
    try:
        parse(data)
    finally:
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in events)


@given(st.binary(max_size=LARGEST))
def test_any_bytes_give_bounded_printable_values(data: bytes) -> None:
    result = parse(data)
    for value in result.values().values():
        if isinstance(value, str):
            assert value.isprintable() and len(value) <= LONGEST_STATUS
    assert all(problem.isprintable() and len(problem) < 130 for problem in result.problems)
    assert len(result.problems) <= 17
    assert result.ready + result.reloading + result.stopping <= 1


_LINES = st.lists(
    st.tuples(
        st.sampled_from(["READY", "STATUS", "MAINPID", "WATCHDOG", "WATCHDOG_USEC", "ERRNO", "EXIT_STATUS", "X"]),
        st.text(max_size=700),
    )
)


@given(_LINES)
def test_any_values_of_known_names_are_bounded(lines: list[tuple[str, str]]) -> None:
    test_any_bytes_give_bounded_printable_values.hypothesis.inner_test(  # type: ignore[attr-defined]
        "\n".join(f"{name}={value}" for name, value in lines).encode("utf-8", "replace")[:LARGEST]
    )


def test_number_and_text_bounds() -> None:
    assert (number(" 12\n", 20), number("21", 20), number("0", 20, 1), number("020", 20)) == (12, None, None, None)
    assert (text("abcdef", 5), text("abcde", 5), text("", 5)) == ("ab...", "abcde", "")
