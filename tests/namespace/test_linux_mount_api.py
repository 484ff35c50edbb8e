"""The mount API on the running kernel."""

import errno
import os

import pytest

from lcinit.linux import files, mount, namespaces
from lcinit.linux.calls import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root


def mounts() -> dict[str, mount.MountInfo]:
    with open("/proc/self/mountinfo", "rb") as file:
        return {info.mount_point: info for info in mount.parse_mountinfo(file.read())}


def tmpfs_at(path: str, attributes: int = 0) -> int:
    fd = mount.new_mount("tmpfs", {"mode": "0755", "size": 1 << 20}, attributes, source="lcinit-test")
    os.makedirs(path, exist_ok=True)
    mount.move_mount(fd, "", AT_FDCWD, path, 0)
    return fd


def own_tmp() -> None:
    """A /tmp of the test's own, so that nothing is made in the machine's."""
    os.close(tmpfs_at("/tmp"))


def test_a_new_mount_has_what_was_asked_for() -> None:
    def inside() -> None:
        own_tmp()
        fd = tmpfs_at("/tmp/a b\tc", mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_RDONLY)
        assert files.statfs_type(fd) == files.TMPFS_MAGIC
        assert not os.get_inheritable(fd)
        info = mounts()["/tmp/a b\tc"]
        assert info.fstype == "tmpfs"
        assert info.source == "lcinit-test"
        assert {"ro", "nodev"} <= set(info.options)
        assert "size=1024k" in info.super_options
        assert info.shared is None
        mount.mount_setattr(fd, "", 0, attr_clr=mount.MOUNT_ATTR_RDONLY, attr_set=mount.MOUNT_ATTR_NOEXEC)
        assert {"rw", "noexec"} <= set(mounts()["/tmp/a b\tc"].options)
        mount.umount2("/tmp/a b\tc", mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
        assert "/tmp/a b\tc" not in mounts()

    run_isolated(inside)


def test_the_kernels_reason_is_in_the_error() -> None:
    def inside() -> None:
        with pytest.raises(OSError) as caught:
            mount.new_mount("tmpfs", {"nosuchoption": "1"})
        assert caught.value.errno == errno.EINVAL
        assert caught.value.strerror == "fsconfig: Invalid argument: tmpfs: Unknown parameter 'nosuchoption'"
        assert caught.value.filename == "nosuchoption=1"
        assert isinstance(caught.value.__cause__, OSError)

    run_isolated(inside)


def test_an_overlay_takes_its_layers_literally() -> None:
    def inside() -> None:
        own_tmp()
        for name in ("low,er:x\\y", "up", "work", "merged"):
            os.mkdir(f"/tmp/{name}")
        with open("/tmp/low,er:x\\y/file", "w") as file:
            file.write("seen")
        options = [("lowerdir+", "/tmp/low,er:x\\y"), ("upperdir", "/tmp/up"), ("workdir", "/tmp/work")]
        fd = mount.new_mount("overlay", options)
        assert files.statfs_type(fd) == files.OVERLAYFS_SUPER_MAGIC
        mount.move_mount(fd, "", AT_FDCWD, "/tmp/merged", 0)
        with open("/tmp/merged/file") as file:
            assert file.read() == "seen"

    run_isolated(inside)


def test_reconfigure_makes_the_file_system_read_only() -> None:
    def inside() -> None:
        own_tmp()
        os.close(tmpfs_at("/tmp/a"))
        context = mount.fspick(AT_FDCWD, "/tmp/a")
        mount.fsconfig_flag(context, "ro")
        mount.fsconfig_reconfigure(context)
        assert "ro" in mounts()["/tmp/a"].super_options.split(",")

    run_isolated(inside)


def user_namespace(proc: int, inside: int, outside: int, size: int) -> tuple[int, int]:
    """A child that only holds a user namespace with this map: its pid and the namespace's descriptor."""
    pid, pidfd = namespaces.clone3(namespaces.CLONE_NEWUSER | namespaces.CLONE_PIDFD)
    if pid == 0:
        while True:
            os.kill(os.getpid(), 19)
    os.close(pidfd)
    for name in ("uid_map", "gid_map"):
        namespaces.write_proc_file(proc, pid, name, namespaces.format_id_map([(inside, outside, size)]))
        found = namespaces.read_proc_file(proc, pid, name).split()
        assert found == [b"%d" % number for number in (inside, outside, size)]
    return pid, os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)


def end(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_an_idmapped_clone_shifts_owners_and_leaves_the_original() -> None:
    def inside() -> None:
        own_tmp()
        os.mkdir("/tmp/tree")
        with open("/tmp/tree/file", "w"):
            pass
        os.chown("/tmp/tree/file", 5, 6)
        pid, userns = user_namespace(namespaces.open_procfs(), 0, 100000, 65536)
        try:
            clone = mount.open_tree(
                AT_FDCWD, "/tmp/tree", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | AT_RECURSIVE
            )
            mount.mount_setattr(clone, "", AT_EMPTY_PATH | AT_RECURSIVE, userns_fd=userns)
            status = os.stat("file", dir_fd=clone)
            assert (status.st_uid, status.st_gid) == (100005, 100006)
            assert os.stat("/tmp/tree/file").st_uid == 5
        finally:
            end(pid)

    run_isolated(inside)


def test_what_was_mounted_before_the_user_namespace_is_locked() -> None:
    def inside() -> None:
        own_tmp()
        os.close(tmpfs_at("/tmp/locked", mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_RDONLY))
        proc = namespaces.open_procfs()
        reader, writer = os.pipe()
        pid, _ = namespaces.clone3(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        if pid == 0:
            status = 1
            try:
                os.read(reader, 1)
                refused = []
                for attempt in (
                    lambda: mount.umount2("/tmp/locked", mount.MNT_DETACH),
                    lambda: mount.mount_setattr(AT_FDCWD, "/tmp/locked", 0, attr_clr=mount.MOUNT_ATTR_RDONLY),
                    lambda: mount.mount_setattr(AT_FDCWD, "/tmp/locked", 0, attr_clr=mount.MOUNT_ATTR_NODEV),
                ):
                    try:
                        attempt()
                    except OSError as error:
                        refused.append(error.errno)
                status = 0 if refused == [errno.EINVAL, errno.EPERM, errno.EPERM] else 2
                os.close(tmpfs_at("/tmp/locked"))  # its own mounts it may make and undo
                mount.umount2("/tmp/locked")
            finally:
                os._exit(status)
        for name in ("uid_map", "gid_map"):
            namespaces.write_proc_file(proc, pid, name, namespaces.format_id_map([(0, 0, 1)]))
        os.write(writer, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    run_isolated(inside)


def test_pivot_root_over_itself() -> None:
    def inside() -> None:
        own_tmp()
        fd = tmpfs_at("/tmp/root")
        os.mkdir("marker", dir_fd=fd)
        root = os.open("/tmp/root", os.O_PATH | os.O_DIRECTORY)
        os.fchdir(root)
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
        os.chdir("/")
        assert os.listdir("/") == ["marker"]

    run_isolated(inside)


def test_propagation() -> None:
    def inside() -> None:
        own_tmp()
        os.close(tmpfs_at("/tmp/a"))
        mount.make_shared("/tmp/a")
        assert mounts()["/tmp/a"].shared is not None
        mount.mount("/tmp/a", "/tmp/a", None, mount.MS_BIND)
        mount.make_slave("/tmp/a")
        assert mounts()["/tmp/a"].master is not None
        mount.make_private("/tmp/a")
        assert mounts()["/tmp/a"].optional == ()

    run_isolated(inside)


def test_a_value_of_255_bytes_reaches_the_kernel_and_one_of_256_does_not() -> None:
    def inside() -> None:
        context = mount.fsopen("tmpfs")
        mount.fsconfig_string(context, "source", "x" * mount.FSCONFIG_STRING_MAX)
        from lcinit.linux.calls import syscall

        with pytest.raises(OSError) as caught:
            syscall("fsconfig", 431, context, mount.FSCONFIG_SET_STRING, b"source", b"x" * 256, 0)
        assert caught.value.errno == errno.EINVAL

    run_isolated(inside)
