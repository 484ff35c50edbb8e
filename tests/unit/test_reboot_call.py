"""What a reboot(2) asks for, and who may ask, apart from how the call came."""

from __future__ import annotations

import errno

import pytest

from lcinit.control.reboot_call import LINUX_REBOOT_MAGIC2, holds_sys_boot, is_in_own_pidns, judge

MAGIC1, MAGIC2 = 0xFEE1DEAD, 672274793
RESTART, RESTART2, HALT, POWER_OFF = 0x01234567, 0xA1B2C3D4, 0xCDEF0123, 0x4321FEDC
CAD_ON, CAD_OFF = 0x89ABCDEF, 0
KEXEC, SW_SUSPEND = 0x45584543, 0xD000FCE2


def call(*arguments: int, machine: bool = False) -> tuple[int, int | None]:
    return judge((*arguments, 0, 0, 0, 0)[:6], machine=machine)


@pytest.mark.parametrize("machine", [False, True])
@pytest.mark.parametrize(
    ("command", "made"), [(RESTART, RESTART), (RESTART2, RESTART), (HALT, HALT), (POWER_OFF, POWER_OFF)]
)
def test_an_end_is_made(command: int, made: int, machine: bool) -> None:
    assert call(MAGIC1, MAGIC2, command, machine=machine) == (0, made)


@pytest.mark.parametrize("magic", LINUX_REBOOT_MAGIC2)
def test_each_of_the_four_dates_is_a_magic_number(magic: int) -> None:
    assert call(MAGIC1, magic, HALT) == (0, HALT)


@pytest.mark.parametrize(("first", "second"), [(MAGIC1, 0), (0, MAGIC2), (MAGIC2, MAGIC1), (MAGIC1, MAGIC2 + 1)])
def test_wrong_magic_numbers_are_refused(first: int, second: int) -> None:
    assert call(first, second, RESTART) == (errno.EINVAL, None)


@pytest.mark.parametrize("machine", [False, True])
@pytest.mark.parametrize("command", [KEXEC, SW_SUSPEND, 1, 0xFFFFFFFF])
def test_what_is_the_machines_and_what_is_nothing_is_refused(command: int, machine: bool) -> None:
    assert call(MAGIC1, MAGIC2, command, machine=machine) == (errno.EINVAL, None)


@pytest.mark.parametrize("command", [CAD_ON, CAD_OFF])
def test_ctrl_alt_del_is_passed_on_to_a_machine_alone(command: int) -> None:
    assert call(MAGIC1, MAGIC2, command) == (0, None)
    assert call(MAGIC1, MAGIC2, command, machine=True) == (0, command)


def test_only_the_low_half_of_a_register_counts() -> None:
    high = 0xDEADBEEF << 32
    assert call(MAGIC1 | high, MAGIC2 | high, RESTART | high) == (0, RESTART)


@pytest.mark.parametrize(
    ("mask", "held"),
    [("0000000000400000", True), ("000001ffffffffff", True), ("000001ffffbfffff", False), ("0000000000000000", False)],
)
def test_the_effective_capability_counts_and_no_other(mask: str, held: bool) -> None:
    status = f"Name:\tx\nCapInh:\t000001ffffffffff\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n"
    assert holds_sys_boot(status) is held


def test_a_text_without_the_line_says_no() -> None:
    assert not holds_sys_boot("")
    assert not is_in_own_pidns("")


def test_a_second_number_means_a_pid_namespace_below() -> None:
    assert not is_in_own_pidns("NSpid:\t12\n")
    assert is_in_own_pidns("NSpid:\t12\t1\n")
