"""openat2 refuses to be led astray, on the running kernel."""

import errno
import os

import pytest

from lcinit.linux import files
from lcinit.linux.calls import AT_FDCWD


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_text("inside")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "relative").symlink_to("dir")
    (tmp_path / "magic").symlink_to("/proc/self/root")
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def errno_of(*args, **options) -> int:
    try:
        os.close(files.openat2(*args, **options))
    except OSError as error:
        return error.errno or 0
    return 0


def test_links_and_ways_out_are_refused(tree: int) -> None:
    flags = os.O_PATH | os.O_CLOEXEC
    assert errno_of(tree, "../x", flags, resolve=files.RESOLVE_BENEATH) == errno.EXDEV
    assert errno_of(tree, "absolute", flags, resolve=files.RESOLVE_BENEATH) == errno.EXDEV
    assert errno_of(tree, "relative/file", flags, resolve=files.RESOLVE_NO_SYMLINKS) == errno.ELOOP
    assert errno_of(AT_FDCWD, "/proc/self/root", os.O_RDONLY, resolve=files.RESOLVE_NO_MAGICLINKS) == errno.ELOOP
    assert errno_of(AT_FDCWD, "/proc/self/status", os.O_RDONLY, resolve=files.RESOLVE_NO_XDEV) == errno.EXDEV
    assert errno_of(tree, "absolute", os.O_RDONLY, resolve=files.RESOLVE_IN_ROOT) == errno.ENOENT
    assert errno_of(tree, "relative/file", flags, resolve=files.RESOLVE_IN_ROOT) == 0


@pytest.mark.parametrize("path", ["absolute", "relative/file", "magic/etc", "dir/../relative"])
def test_open_in_root_refuses_every_link(tree: int, path: str) -> None:
    with pytest.raises(OSError, match="openat2: ") as caught:
        files.open_in_root(tree, path)
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, path)


def test_open_in_root_takes_the_handle_for_the_root(tree: int) -> None:
    for path in ("dir/file", "/dir/file", "../../dir/file"):
        fd = files.open_in_root(tree, path, os.O_RDONLY)
        assert os.read(fd, 99) == b"inside"
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_a_created_file_has_its_mode(tree: int) -> None:
    fd = files.open_in_root(tree, "dir/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    os.close(fd)


def test_names_are_exchanged(tree: int) -> None:
    files.renameat2(tree, "dir", tree, "absolute", files.RENAME_EXCHANGE)
    assert os.readlink("dir", dir_fd=tree) == "/etc/passwd"
    with pytest.raises(FileExistsError, match="renameat2"):
        files.renameat2(tree, "dir", tree, "absolute", files.RENAME_NOREPLACE)


def test_magic_numbers_of_mounted_file_systems(tree: int) -> None:
    proc = os.open("/proc/self/status", os.O_PATH)
    files.check_statfs_type(proc, files.PROC_SUPER_MAGIC, "status")
    with pytest.raises(OSError, match="fstatfs: .*0x9fa0, expected 0x62656572") as caught:  # noqa: RUF043
        files.check_statfs_type(proc, files.SYSFS_MAGIC, "status")
    assert caught.value.errno == errno.EXDEV
    os.close(proc)
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    assert files.statfs_type(namespace) == files.NSFS_MAGIC
    os.close(namespace)


def test_an_endless_rename_race_ends(tree: int, tmp_path) -> None:
    """While another process exchanges directories, every open succeeds or fails; none hangs or leaves the root."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("inside")
    child = os.fork()
    if child == 0:
        while True:
            files.renameat2(tree, "dir", tree, "other", files.RENAME_EXCHANGE)
    try:
        opened = 0
        for _ in range(3000):
            try:
                fd = files.open_in_root(tree, "dir/../dir/file", os.O_RDONLY)
            except OSError as error:
                assert error.errno == errno.EAGAIN
            else:
                assert os.read(fd, 99) == b"inside"
                os.close(fd)
                opened += 1
        assert opened
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
