"""Names, numbers and masks of signals."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.linux import signals


@given(st.integers(1, 64))
def test_every_name_leads_back_to_its_number(number: int) -> None:
    name = signals.signal_name(number)
    if 32 <= number < signals.SIGRTMIN:
        assert name == f"SIG{number}"
        return
    assert signals.signal_number(name) == number
    assert signals.signal_number(name.removeprefix("SIG")) == number
    assert signals.signal_number(name.lower()) == number
    assert signals.signal_number(str(number)) == number


def test_numbers_are_those_of_the_standard_library() -> None:
    for member in signal.Signals:
        assert signals.signal_number(member.name) == member.value
    assert signals.SIGRTMIN == signal.SIGRTMIN
    assert signals.SIGRTMAX == signal.SIGRTMAX


def test_real_time_forms() -> None:
    assert signals.signal_number("SIGRTMIN+3") == signal.SIGRTMIN + 3
    assert signals.signal_number("RTMAX-2") == signal.SIGRTMAX - 2
    assert signals.signal_number("SIGRTMIN+0") == signal.SIGRTMIN


@pytest.mark.parametrize(
    "name",
    ["", "SIG", "TERMX", "0", "65", "015", "+5", "-1", "1_0", "٣", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+",
     "RTMIN+٣", "RTMIN3", "SIGSIGTERM", " TERM", "TERM ", "\u017fIGTERM", "999999999999"],
)  # fmt: skip
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no such signal"):
        signals.signal_number(name)


@given(st.sets(st.integers(1, 64)))
def test_a_mask_has_one_bit_a_signal(numbers: set[int]) -> None:
    mask = signals.mask_of(numbers)
    assert {number for number in range(1, 65) if mask >> number - 1 & 1} == numbers


@pytest.mark.parametrize("number", [0, 65, -1])
def test_no_mask_of_what_is_no_signal(number: int) -> None:
    with pytest.raises(ValueError, match="no such signal"):
        signals.mask_of([number])
