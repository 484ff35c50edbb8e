"""Processes, descriptors, terminals, keyrings and capabilities on the running kernel."""

import errno
import os
import select
import signal
import struct
import time

import pytest

from lcinit.linux import capabilities, mount, namespaces, process, signals
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root


def status_field(name: str) -> str:
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))


def test_properties_of_the_process() -> None:
    def inside() -> None:
        process.set_dumpable(False)
        assert process.get_dumpable() == 0
        process.set_dumpable(True)
        assert process.get_dumpable() == 1
        process.set_name("a-name-longer-than-fifteen")
        assert status_field("Name") == "a-name-longer-t"
        process.set_no_new_privs()
        assert status_field("NoNewPrivs") == "1"

    run_isolated(inside)


def test_pdeathsig_ends_the_child_of_a_killed_parent() -> None:
    def inside() -> None:
        process.set_child_subreaper(True)
        reader, writer = os.pipe()
        parent = os.fork()
        if parent == 0:
            child = os.fork()
            if child == 0:
                process.set_pdeathsig(signal.SIGTERM)
                os.write(writer, b"x")
                signal.pause()
            signal.pause()
        os.read(reader, 1)
        os.kill(parent, signal.SIGKILL)
        ends = {os.WTERMSIG(os.waitpid(-1, 0)[1]) for _ in range(2)}  # as subreaper it gets the orphan too
        assert ends == {signal.SIGKILL, signal.SIGTERM}

    run_isolated(inside)


def test_a_pidfd_means_one_process() -> None:
    def inside() -> None:
        child = os.fork()
        if child == 0:
            signal.pause()
        pidfd = process.pidfd_open(child)
        assert not os.get_inheritable(pidfd)
        assert select.select([pidfd], [], [], 0)[0] == []
        process.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
        os.waitpid(child, 0)
        with pytest.raises(ProcessLookupError, match="pidfd_send_signal"):
            process.pidfd_send_signal(pidfd, 0)
        with pytest.raises(ProcessLookupError, match="pidfd_open"):
            process.pidfd_open(child)

    run_isolated(inside)


def test_close_range() -> None:
    def inside() -> None:
        fd = os.dup2(os.open("/dev/null", os.O_RDONLY), 200)
        process.close_range(150, flags=process.CLOSE_RANGE_CLOEXEC)
        os.set_inheritable(fd, True)
        process.close_range(150, 199)
        os.fstat(fd)
        process.close_range(150, flags=process.CLOSE_RANGE_CLOEXEC)
        assert not os.get_inheritable(fd)
        process.close_range(150)
        with pytest.raises(OSError) as caught:
            os.fstat(fd)
        assert caught.value.errno == errno.EBADF

    run_isolated(inside)


def test_names_of_the_uts_namespace() -> None:
    def inside() -> None:
        namespaces.unshare(namespaces.CLONE_NEWUTS)
        process.sethostname("guest")
        process.setdomainname("example.org")
        assert os.uname().nodename == "guest"
        with open("/proc/sys/kernel/domainname") as file:
            assert file.read() == "example.org\n"

    run_isolated(inside)


def own_devpts() -> int:
    """The ptmx of a devpts of the test's own, opened below its mount descriptor."""
    devpts = mount.new_mount("devpts", {"ptmxmode": "0666", "mode": "0600"})
    return os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts)


def test_a_pty_of_a_devpts_that_is_mounted_nowhere() -> None:
    def inside() -> None:
        master, slave = process.open_pty(own_devpts())
        assert process.pty_number(master) == 0
        assert not os.get_inheritable(slave)
        process.set_window_size(master, 33, 99)
        assert process.get_window_size(slave) == (33, 99)
        os.write(slave, b"out\n")
        assert os.read(master, 99) == b"out\r\n"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setsid()
                process.set_controlling_tty(slave)
                if os.tcgetpgrp(slave) == os.getpid():
                    signal.signal(signal.SIGHUP, signal.SIG_IGN)
                    process.drop_controlling_tty(slave)
                    try:
                        os.open("/dev/tty", os.O_RDWR)
                    except OSError as error:
                        status = 0 if error.errno == errno.ENXIO else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0

    run_isolated(inside)


@pytest.mark.parametrize(
    ("command", "death"),
    [(process.LINUX_REBOOT_CMD_RESTART, signal.SIGHUP), (process.LINUX_REBOOT_CMD_POWER_OFF, signal.SIGINT),
     (process.LINUX_REBOOT_CMD_HALT, signal.SIGINT)],
)  # fmt: skip
def test_reboot_ends_pid_1_of_a_namespace_with_a_signal(command: int, death: int) -> None:
    def inside() -> None:
        pid, _ = namespaces.clone3(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS)
        if pid == 0:
            if os.getpid() == 1:  # never but in a PID namespace
                process.reboot(command)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == death

    run_isolated(inside)


def test_a_new_session_keyring() -> None:
    def inside() -> None:
        try:
            first = process.join_session_keyring()
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
                pytest.skip(str(error))
            raise
        assert process.join_session_keyring() != first

    run_isolated(inside)


def test_capabilities_are_narrowed() -> None:
    def inside() -> None:
        numbers = capabilities.CAPABILITIES
        assert capabilities.has_capability("sys_admin")
        before = capabilities.bounding_set()
        assert int(status_field("CapBnd"), 16) == sum(1 << number for number in before)
        capabilities.drop_bounding([numbers["sys_rawio"], 63])
        assert capabilities.bounding_set() == before - {numbers["sys_rawio"]}
        effective, permitted, inheritable = capabilities.get_capabilities()
        keep = permitted & ~(1 << numbers["sys_admin"] | 1 << numbers["bpf"])
        capabilities.set_capabilities(effective & keep, keep, inheritable)
        assert not capabilities.has_capability("sys_admin")
        assert not capabilities.has_capability("bpf")  # in the upper half of the sets
        assert int(status_field("CapPrm"), 16) == keep
        capabilities.clear_ambient()
        assert int(status_field("CapAmb"), 16) == 0
        with pytest.raises(PermissionError, match="capset"):
            capabilities.set_capabilities(permitted, permitted, inheritable)

    run_isolated(inside)


def test_signals_are_read_with_their_senders() -> None:
    def inside() -> None:
        previous = signals.block_all()
        mask = int(status_field("SigBlk"), 16)
        for number in (signals.SIGCHLD, signals.SIGTERM, signals.SIGRTMIN, signals.SIGRTMAX, signals.SIGSEGV):
            assert mask >> number - 1 & 1
        assert mask >> 32 & 1 == 0  # libc's own SIGSETXID
        assert signals.get_mask() == mask
        descriptor = signals.SignalFd()
        assert not os.get_inheritable(descriptor.fileno())
        assert descriptor.read() == []
        child = os.fork()
        if child == 0:
            os.kill(os.getppid(), signals.SIGRTMIN + 3)
            os._exit(9)
        assert select.select([descriptor.fileno()], [], [], 10)[0]
        found = []
        deadline = time.monotonic() + 10
        while len(found) < 2 and time.monotonic() < deadline:
            select.select([descriptor.fileno()], [], [], 1)
            found += descriptor.read()
        by_number = {info.signo: info for info in found}
        assert by_number[signals.SIGRTMIN + 3].pid == child
        ended = by_number[signals.SIGCHLD]
        assert (ended.pid, ended.uid, ended.status, ended.code) == (child, 0, 9, os.CLD_EXITED)
        os.waitpid(child, 0)
        for _ in range(100):  # real-time signals do not coalesce, and more wait than one read takes
            os.kill(os.getpid(), signals.SIGRTMIN)
        batches = [len(descriptor.read()) for _ in range(5)]
        assert sum(batches) == 100
        assert max(batches) < 100, "who sends without end would be read without end"
        descriptor.close()
        descriptor.close()
        signals.set_mask(previous)
        assert signals.get_mask() == previous

    run_isolated(inside)


def test_only_the_signals_asked_for_are_read() -> None:
    def inside() -> None:
        signals.block_all()
        descriptor = signals.SignalFd([signals.SIGUSR1])
        os.kill(os.getpid(), signals.SIGUSR2)
        os.kill(os.getpid(), signals.SIGUSR1)
        assert [info.signo for info in descriptor.read()] == [signals.SIGUSR1]

    run_isolated(inside)


def test_nothing_ignored_or_blocked_passes_exec() -> None:
    def inside() -> None:
        signals.block_all()
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGRTMIN + 1):
            signal.signal(number, signal.SIG_IGN)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signals.reset_signals()
            os.dup2(writer, 1)
            os.execv("/bin/cat", ["cat", "/proc/self/status"])
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as file:
            fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        assert int(fields["SigIgn"], 16) == 0
        assert int(fields["SigBlk"], 16) == 0

    run_isolated(inside)


def test_the_layout_of_signalfd_siginfo() -> None:
    """uid, pid and status sit where sys/signalfd.h puts them."""
    raw = struct.pack("=IiiIIiIIIIii", 17, 0, 1, 11, 12, 0, 0, 0, 0, 0, 33, 0) + bytes(80)
    assert len(raw) == 128
    assert signals._SIGNALFD_SIGINFO.unpack(raw) == (17, 0, 1, 11, 12, 0, 0, 0, 0, 0, 33, 0)


def test_isolation_fails_skips_and_ends() -> None:
    def broken() -> None:
        raise RuntimeError("the reason")

    with pytest.raises(AssertionError, match="the reason"):
        run_isolated(broken)
    with pytest.raises(AssertionError, match="without a report"):
        run_isolated(lambda: os._exit(0))
    with pytest.raises(AssertionError, match="no end after"):
        run_isolated(signal.pause, pid=True, timeout=0.3)
    with pytest.raises(pytest.skip.Exception, match="why"):
        run_isolated(lambda: pytest.skip("why"))

    def first() -> None:
        assert os.getpid() == 1
        assert os.readlink("/proc/self") == "1"

    run_isolated(first, pid=True)
