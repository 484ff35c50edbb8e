"""The way every wrapper reports a failure, the layout of what it passes, and what importing it costs."""

import errno
import os
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.linux import calls, capabilities, files, mount, namespaces, process, seccomp, signals

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

FAILING = {
    "open_tree": (lambda: mount.open_tree(calls.AT_FDCWD, "/nowhere", 0), errno.ENOENT, "/nowhere"),
    "move_mount": (lambda: mount.move_mount(-1, "", -1, "x", 0), errno.EBADF, "x"),
    "fsopen": (lambda: mount.fsopen("nosuchfs"), errno.ENODEV, "nosuchfs"),
    "fsconfig": (lambda: mount.fsconfig_string(-1, "a", "b"), errno.EINVAL, "a=b"),
    "fsmount": (lambda: mount.fsmount(-1), errno.EBADF, None),
    "fspick": (lambda: mount.fspick(calls.AT_FDCWD, b"/nowhere"), errno.ENOENT, b"/nowhere"),
    "mount_setattr": (lambda: mount.make_private("/nowhere"), errno.ENOENT, "/nowhere"),
    "umount2": (lambda: mount.umount2("/nowhere"), errno.ENOENT, "/nowhere"),
    "mount": (lambda: mount.mount(None, "/nowhere", None, 0), errno.ENOENT, "/nowhere"),
    "pivot_root": (lambda: mount.pivot_root("/nowhere", "/nowhere"), errno.ENOENT, "/nowhere"),
    "openat2": (lambda: files.openat2(calls.AT_FDCWD, "/nowhere", os.O_PATH), errno.ENOENT, "/nowhere"),
    "fstatfs": (lambda: files.statfs_type(-1), errno.EBADF, None),
    "renameat2": (lambda: files.renameat2(-1, "a", -1, "b"), errno.EBADF, "a"),
    "setns": (lambda: namespaces.setns(-1, 0), errno.EBADF, None),
    "unshare": (lambda: namespaces.unshare(-1), errno.EINVAL, None),
    "clone3": (lambda: namespaces.clone3(namespaces.CLONE_NEWNS | namespaces.CLONE_FS), errno.EINVAL, None),
    "NS_GET_USERNS": (lambda: namespaces.ns_get_userns(-1), errno.EBADF, None),
    "pidfd_open": (lambda: process.pidfd_open(-1), errno.EINVAL, None),
    "pidfd_send_signal": (lambda: process.pidfd_send_signal(-1, 0), errno.EBADF, None),
    "close_range": (lambda: process.close_range(9, 8), errno.EINVAL, None),
    "reboot": (lambda: process.reboot(1), errno.EINVAL, None),
    "seccomp": (lambda: seccomp.listen(b""), errno.EINVAL, None),
    "SECCOMP_IOCTL_NOTIF_RECV": (lambda: seccomp.receive(-1), errno.EBADF, None),
    "SECCOMP_IOCTL_NOTIF_SEND": (lambda: seccomp.answer(-1, 0), errno.EBADF, None),
    "SECCOMP_IOCTL_NOTIF_ID_VALID": (lambda: seccomp.is_waiting(-1, 0), errno.EBADF, None),
    "sethostname": (lambda: process.sethostname("x" * 65), errno.EINVAL, "x" * 65),
    "prctl PR_SET_PDEATHSIG": (lambda: process.set_pdeathsig(99), errno.EINVAL, None),
    "TIOCSPTLCK": (lambda: process.open_pty(-1), errno.EBADF, None),
    "capget": (lambda: capabilities.get_capabilities(2**22 + 1), errno.ESRCH, None),
    "rt_sigprocmask": (lambda: signals._sigprocmask(99, 0), errno.EINVAL, None),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_names_the_call_and_the_path(name: str) -> None:
    call, number, path = FAILING[name]
    if name in ("pivot_root", "reboot", "sethostname") and os.geteuid() != 0:
        pytest.skip("EPERM comes first for who is not root")
    with pytest.raises(OSError) as caught:
        call()
    assert (caught.value.errno, caught.value.filename) == (number, path)
    assert (caught.value.strerror or "").startswith(f"{name}: {os.strerror(number)}")


def test_the_class_follows_errno() -> None:
    assert isinstance(calls.failure("x", errno.EPERM), PermissionError)
    assert isinstance(calls.failure("x", errno.ENOENT, "path"), FileNotFoundError)


@pytest.mark.parametrize("path", ["a\0b", b"a\0b"])
def test_a_null_byte_does_not_end_a_path(path: str | bytes) -> None:
    with pytest.raises(OSError, match=r"openat2: .*null byte") as caught:
        files.openat2(calls.AT_FDCWD, path, os.O_PATH)
    assert caught.value.errno == errno.EINVAL


def test_a_value_too_long_for_fsconfig_says_so() -> None:
    with pytest.raises(OSError, match="256 bytes"):
        mount.fsconfig_string(-1, "lowerdir", "x" * 256)


def test_integers_are_not_cut_to_32_bits() -> None:
    with pytest.raises(OSError, match="mmap") as caught:
        calls.syscall("mmap", calls.by_machine(9, 222), 0, 1 << 62, 0, 0x22, -1, 0)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize(
    ("packed", "size"),
    [(files._OPEN_HOW, 24), (mount._MOUNT_ATTR, 32), (namespaces._CLONE_ARGS, 88), (signals._SIGNALFD_SIGINFO, 128),
     (capabilities._HEADER, 8), (capabilities._DATA, 24)],
)  # fmt: skip
def test_structures_have_the_kernels_size(packed: struct.Struct, size: int) -> None:
    assert packed.size == size


@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 2)] * 3), max_size=340))
def test_id_maps_are_what_user_namespaces_7_describes(ranges: list[tuple[int, int, int]]) -> None:
    lines = namespaces.format_id_map(ranges).decode("ascii").split("\n")
    assert lines.pop() == ""
    assert [tuple(int(number) for number in line.split(" ")) for line in lines] == ranges


def test_capability_numbers() -> None:
    known = capabilities.CAPABILITIES
    assert [known[name] for name in ("chown", "net_admin", "sys_admin", "mknod", "setfcap")] == [0, 12, 21, 27, 31]
    assert list(known.values()) == list(range(41))
    assert known["checkpoint_restore"] == 40


def test_the_last_capability_is_the_kernels() -> None:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        assert capabilities.last_cap() == int(file.read())


def test_importing_all_of_it_takes_no_expensive_module() -> None:
    modules = "calls files mount mountinfo namespaces process capabilities signals rtnetlink netlink"
    program = (
        f"import sys; sys.path.insert(0, {REPOSITORY!r})\n"
        + "".join(f"import lcinit.linux.{name}\n" for name in modules.split())
        + "print(*sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(listed.stdout.split())
    assert "lcinit.linux.netlink" in loaded
    banned = "typing dataclasses inspect pathlib enum signal socket subprocess asyncio logging re contextlib functools"
    assert loaded.isdisjoint(banned.split())
    ours = {name for name in loaded if name.startswith("lcinit.")}
    assert all(name.startswith("lcinit.linux") for name in ours)
