"""The filter's program, run by an interpreter of the few instructions it uses (linux/filter.h)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.linux import seccomp

PROGRAM = seccomp.notify_program(seccomp.REBOOT_CALLS)
ARCHES = {
    "x86_64": seccomp.AUDIT_ARCH_X86_64,
    "i386": seccomp.AUDIT_ARCH_I386,
    "aarch64": seccomp.AUDIT_ARCH_AARCH64,
    "arm": seccomp.AUDIT_ARCH_ARM,
}
X32 = 0x40000000


def verdict(arch: int, number: int) -> int:
    """What the kernel would do with a call."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *[0] * 6)
    instructions = list(struct.iter_unpack("=HBBI", PROGRAM))
    at = accumulator = 0
    while True:
        code, jump_true, jump_false, k = instructions[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            at += jump_true if accumulator == k else jump_false
        else:
            assert code == 0x06  # BPF_RET | BPF_K
            return int(k)


@pytest.mark.parametrize(
    ("arch", "number"),
    [("x86_64", 169), ("x86_64", 169 | X32), ("i386", 88), ("aarch64", 142), ("arm", 88)],
    ids=["x86_64", "x32", "i386", "aarch64", "arm"],
)
def test_every_way_to_call_reboot_is_heard_of(arch: str, number: int) -> None:
    assert verdict(ARCHES[arch], number) == seccomp.SECCOMP_RET_USER_NOTIF


@pytest.mark.parametrize(
    ("arch", "number"),
    # symlink(2) has on x86_64 the number of reboot(2) on i386, and the like
    [("x86_64", 88), ("x86_64", 142), ("i386", 169), ("i386", 142), ("aarch64", 169), ("aarch64", 88), ("arm", 142)],
)
def test_the_number_of_another_architecture_is_another_call(arch: str, number: int) -> None:
    assert verdict(ARCHES[arch], number) == seccomp.SECCOMP_RET_ALLOW


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1))
def test_all_other_calls_are_let_through(arch: int, number: int) -> None:
    if not any(arch == known and number in numbers for known, numbers in seccomp.REBOOT_CALLS):
        assert verdict(arch, number) == seccomp.SECCOMP_RET_ALLOW
