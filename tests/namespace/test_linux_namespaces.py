"""clone3, id maps and questions about namespaces, on the running kernel."""

import ctypes
import errno
import os
import select
import signal
import threading

import pytest

from lcinit.linux import files, mount, namespaces, process
from lcinit.linux.calls import AT_FDCWD
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root

IDS = [(0, 100000, 1000), (1000, 200000, 1)]


def test_clone3_makes_pid_1_of_new_namespaces_with_its_maps() -> None:
    def inside() -> None:
        proc = namespaces.open_procfs()
        go_reader, go_writer = os.pipe()
        answer_reader, answer_writer = os.pipe()
        flags = namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS | namespaces.CLONE_PIDFD
        pid, pidfd = namespaces.clone3(flags)
        if pid == 0:
            status = 1
            try:
                os.read(go_reader, 1)
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                thread_is_main = threading.current_thread() is threading.main_thread()
                libc_tid = ctypes.c_int.from_address(namespaces.tid_address()).value
                same_tid = libc_tid == threading.get_native_id() == os.getpid()
                grandchild = os.fork()  # the interpreter is sane enough to fork again
                if grandchild == 0:
                    os._exit(7)
                code = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
                facts = (pidfd, os.getpid(), os.getuid(), os.getgid(), thread_is_main, same_tid, grandchild, code)
                os.write(answer_writer, repr(facts).encode())
                status = 42
            finally:
                os._exit(status)
        os.close(answer_writer)
        assert pid > 1
        assert not os.get_inheritable(pidfd)
        for name in ("uid_map", "gid_map"):
            namespaces.write_proc_file(proc, pid, name, namespaces.format_id_map(IDS))
            shown = namespaces.read_proc_file(proc, pid, name)
            assert [tuple(map(int, line.split())) for line in shown.splitlines()] == IDS
        os.write(go_writer, b"x")
        assert os.read(answer_reader, 999).decode() == repr((-1, 1, 0, 0, True, True, 2, 7))
        assert select.select([pidfd], [], [], 10)[0]
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42

    run_isolated(inside)


def test_clone3_runs_the_interpreters_fork_hooks() -> None:
    def inside() -> None:
        called: list[str] = []
        os.register_at_fork(
            before=lambda: called.append("before"),
            after_in_child=lambda: called.append("child"),
            after_in_parent=lambda: called.append("parent"),
        )
        pid, pidfd = namespaces.clone3(0)
        assert pidfd == -1
        if pid == 0:
            import json  # the import lock is free in the child

            os._exit(0 if json and called == ["before", "child"] else 1)
        assert called == ["before", "parent"]
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    run_isolated(inside)


def test_a_failed_clone3_leaves_the_interpreter_whole() -> None:
    def inside() -> None:
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            with pytest.raises(OSError, match="clone3: Invalid argument"):
                namespaces.clone3(namespaces.CLONE_NEWNS | namespaces.CLONE_FS | namespaces.CLONE_PIDFD)
        assert os.listdir("/proc/self/fd") == before
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    run_isolated(inside)


def test_clone3_into_a_cgroup() -> None:
    def inside() -> None:
        top = mount.new_mount("cgroup2")
        name = f"lcinit-test-{os.getpid()}"
        os.mkdir(name, dir_fd=top)
        try:
            cgroup = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)
            pid, _ = namespaces.clone3(0, cgroup_fd=cgroup)
            if pid == 0:
                signal.pause()
            procs = os.open("cgroup.procs", os.O_RDONLY, dir_fd=cgroup)
            assert os.read(procs, 99) == b"%d\n" % pid
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        finally:
            os.rmdir(name, dir_fd=top)

    run_isolated(inside)


def test_a_fake_procfs_is_refused() -> None:
    def inside() -> None:
        fake = mount.new_mount("tmpfs")
        os.mkdir("1", dir_fd=fake)
        os.close(os.open("1/uid_map", os.O_CREAT | os.O_WRONLY, dir_fd=fake))
        with pytest.raises(OSError, match="fstatfs") as caught:
            namespaces.write_proc_file(fake, 1, "uid_map", b"0 0 1\n")
        assert caught.value.errno == errno.EXDEV
        assert os.stat("1/uid_map", dir_fd=fake).st_size == 0
        os.symlink("/proc/1", "2", dir_fd=fake)
        with pytest.raises(OSError, match="openat2") as caught:
            namespaces.read_proc_file(fake, 2, "status")
        assert caught.value.errno == errno.ELOOP

    run_isolated(inside)


def test_a_mount_over_a_file_of_proc_does_not_reach_the_private_one() -> None:
    def inside() -> None:
        proc = namespaces.open_procfs()
        mount.mount("/dev/null", f"/proc/{os.getpid()}/oom_score_adj", None, mount.MS_BIND)
        with open("/proc/self/oom_score_adj") as file:
            assert file.read() == ""
        assert namespaces.read_proc_file(proc, os.getpid(), "oom_score_adj").strip().lstrip(b"-").isdigit()

    run_isolated(inside, pid=True)


def test_a_refused_map_names_the_file() -> None:
    def inside() -> None:
        proc = namespaces.open_procfs()
        with pytest.raises(OSError, match="write: ") as caught:
            namespaces.write_proc_file(proc, os.getpid(), "uid_map", b"0 0 1\n")
        assert caught.value.filename == f"{os.getpid()}/uid_map"

    run_isolated(inside)


def test_who_owns_a_namespace() -> None:
    def inside() -> None:
        own = os.open("/proc/self/ns/user", os.O_RDONLY)
        net = os.open("/proc/self/ns/net", os.O_RDONLY)
        owner = namespaces.ns_get_userns(net)
        assert os.fstat(owner).st_ino == os.fstat(own).st_ino
        assert namespaces.ns_get_nstype(net) == namespaces.CLONE_NEWNET
        pid, pidfd = namespaces.clone3(namespaces.CLONE_NEWUSER | namespaces.CLONE_PIDFD)
        if pid == 0:
            signal.pause()
        try:
            child = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
            assert namespaces.ns_owner_uid(child) == os.geteuid()
            assert os.fstat(namespaces.ns_get_parent(child)).st_ino == os.fstat(own).st_ino
        finally:
            process.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)

    run_isolated(inside)


def test_setns_on_a_pidfd_enters_all_at_once() -> None:
    def inside() -> None:
        flags = namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWNS
        pid, pidfd = namespaces.clone3(flags | namespaces.CLONE_PIDFD)
        if pid == 0:
            process.sethostname("elsewhere")
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        try:
            os.waitpid(pid, os.WUNTRACED)
            namespaces.setns(pidfd, flags)
            assert os.uname().nodename == "elsewhere"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    run_isolated(inside)


def test_cookies_of_network_namespaces_differ() -> None:
    def inside() -> None:
        first = namespaces.netns_cookie()
        assert namespaces.netns_cookie() == first
        namespaces.unshare(namespaces.CLONE_NEWNET)
        assert namespaces.netns_cookie() not in (first, 0)

    run_isolated(inside)


def test_the_initial_network_namespace_is_told_from_others_and_doubt_means_initial() -> None:
    def inside() -> None:
        proc = namespaces.open_procfs()
        if not os.path.exists("/proc/sys/net/core"):
            pytest.skip("no sysctls")
        namespaces.unshare(namespaces.CLONE_NEWNET)
        assert not namespaces.in_initial_netns(proc)
        fake = mount.new_mount("tmpfs")
        os.makedirs(f"/proc/self/fd/{fake}/sys/net/core")
        assert namespaces.in_initial_netns(fake)
        masked = os.open("/proc", os.O_PATH)
        mount.move_mount(mount.new_mount("tmpfs"), "", AT_FDCWD, "/proc/sys", 0)
        assert namespaces.in_initial_netns(masked)

    run_isolated(inside)


def test_a_new_pid_namespace_is_not_the_machines_and_own_files_are_read_through_any_procfs() -> None:
    def inside() -> None:
        outer = os.open("/proc", os.O_PATH)
        namespaces.unshare(namespaces.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                proc = namespaces.open_procfs()
                ok = not namespaces.in_initial_pidns(proc) and b"Pid:\t1\n" in namespaces.read_own_proc_file(
                    proc, "status"
                )
                # in the outer one this process has another number, and is itself all the same
                ok = ok and b"NSpid:" in namespaces.read_own_proc_file(outer, "status")
                os._exit(0 if ok else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0

    run_isolated(inside)


@pytest.mark.skipif(os.readlink("/proc/self/ns/net") != "net:[4026531833]", reason="not known to be the initial one")
def test_the_machines_own_network_namespace_is_known() -> None:
    """The inode number is the kernel's own for the initial namespace (linux/nsfs.h, NET_NS_INIT_INO, Linux 6.18)."""
    proc = os.open("/proc", os.O_PATH)
    assert namespaces.in_initial_netns(proc)
    os.close(proc)


def test_a_procfs_handle_is_proc_and_mounted_nowhere() -> None:
    def inside() -> None:
        with open("/proc/self/mountinfo") as file:
            before = file.read()
        proc = namespaces.open_procfs()
        assert files.statfs_type(proc) == files.PROC_SUPER_MAGIC
        with open("/proc/self/mountinfo") as file:
            assert file.read() == before
        status = files.openat2(AT_FDCWD, "/proc/self/status", os.O_RDONLY)
        assert (
            namespaces.read_proc_file(proc, os.getpid(), "status").split(b"\n")[0]
            == os.read(status, 99).split(b"\n")[0]
        )

    run_isolated(inside)
