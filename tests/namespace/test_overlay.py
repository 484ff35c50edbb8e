"""`overlay` on real file systems, in a private mount namespace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcinit.tools.overlay import empty_directory

ROOT = str(Path(__file__).parents[2])
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for mounts")

PRELUDE = f"""
set -e
tool() {{ {sys.executable} -I -S -c \\
    'import sys; sys.path.insert(0, "{ROOT}"); from lcinit.cli.main import main; sys.exit(main(sys.argv))' "$@"; }}
# the same on a kernel that does not take layers by handle
old_kernel() {{ {sys.executable} -I -S -c '
import errno, sys
sys.path.insert(0, "{ROOT}")
from lcinit.linux import mount
from lcinit.cli.main import main
def refuse(*_): raise OSError(errno.EINVAL, "unknown parameter")
mount.fsconfig_fd = refuse
sys.exit(main(sys.argv))' "$@"; }}
mount -t tmpfs tmpfs /mnt
cd /mnt
mkdir -p root layers/0 layers/1 cache
echo root > root/a; echo root > root/b; echo root > root/c
echo zero > layers/0/b; echo zero > layers/0/c
echo one > layers/1/c
"""
KERNELS = pytest.mark.parametrize("overlay", ["tool", "old_kernel"])


def shell(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace of its own, with a root, two layers and a cache in a tmpfs at /mnt."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRELUDE + script, "sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@KERNELS
def test_each_layer_lies_above_the_one_before_and_the_directory_below_all(overlay: str) -> None:
    done = shell(
        f"{overlay} overlay -- /mnt/layers/0 /mnt/layers/1; cat root/a root/b root/c; echo x > root/new; ls root"
    )
    assert done.stdout.split() == ["root", "zero", "one", "a", "b", "c", "new"], done.stderr


@KERNELS
def test_without_layers_the_directory_becomes_writable_and_stays_as_it_was(overlay: str) -> None:
    done = shell(f"{overlay} overlay; echo new > root/a; cat root/a cache/overlay/upper/a; umount root; cat root/a")
    assert done.stdout.split() == ["new", "new", "root"], done.stderr


def test_the_upper_is_kept_and_the_work_space_is_not() -> None:
    done = shell("""
        tool overlay; echo kept > root/new; rm root/a; umount root
        mkdir -p cache/overlay/temp/stale/deep; ln -s /mnt/layers cache/overlay/temp/link
        tool overlay; ls root; ls cache/overlay/temp; ls layers
    """)
    assert done.stdout.split() == ["b", "c", "new", "w", "0", "1"], done.stderr


def test_a_new_upper_is_owned_as_the_directory_is_and_an_old_one_keeps_its_owner() -> None:
    done = shell("""
        chown 1000000:1000001 root; chmod 2751 root
        tool overlay; stat -c '%u:%g:%a' root cache/overlay/upper cache/overlay cache/overlay/temp
        umount root; chown 5:5 root
        tool overlay; stat -c %u root
    """)
    assert done.stdout.split() == ["1000000:1000001:2751"] * 2 + ["0:0:700"] * 2 + ["1000000"], done.stderr


def test_over_an_idmapped_root_as_in_the_example_configuration() -> None:
    done = shell("""
        tool mount-idmapped --map-mount=b:0:1000000:65536 /mnt/root /mnt/root
        tool overlay; stat -c %u:%g root root/a
        setpriv --reuid 1000000 --regid 1000000 --clear-groups sh -c 'echo mine > root/mine; echo changed > root/a'
        stat -c %u root/mine; cat root/a
    """)
    assert done.stdout.split() == ["1000000:1000000"] * 2 + ["1000000", "changed"], done.stderr


@pytest.mark.row(36)
@KERNELS
@pytest.mark.parametrize("name", ["a,b:c\\", "x,upperdir=/tmp", "a\\,b", ":", "a b\n c", "\\", "%", "n" * 250])
def test_a_layers_name_is_literal(overlay: str, name: str) -> None:
    done = shell(
        f'mkdir -p "/mnt/l/$1"; echo literal > "/mnt/l/$1/a"; {overlay} overlay -- "/mnt/l/$1"; cat root/a', name
    )
    assert done.stdout == "literal\n", done.stderr


@pytest.mark.row(36)
@KERNELS
def test_the_directory_and_the_cache_may_have_any_name_too(overlay: str) -> None:
    done = shell(
        f'mkdir "$1"; echo it > "$1/f"; {overlay} overlay --path "$1" --cache "/mnt/cache/$1"; echo > "$1/g"; ls "$1"',
        "r,o:o\\t",
    )
    assert done.stdout.split() == ["f", "g"], done.stderr


@KERNELS
def test_a_hundred_layers(overlay: str) -> None:
    done = shell(f"""
        for i in $(seq 100); do mkdir -p l/$i; echo $i > l/$i/top; echo > l/$i/$i; done
        {overlay} overlay -- $(seq -f /mnt/l/%g 100); cat root/top; ls root | wc -l
    """)
    assert done.stdout.split() == ["100", "104"], done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("--cache /mnt/root/cache", 64, "the cache /mnt/root/cache lies inside /mnt/root"),
        ("--cache /mnt/root/x/y/z", 64, "lies inside /mnt/root"),
        ("--cache /mnt/root", 64, "lies inside /mnt/root"),
        ("--cache /mnt/link/cache", 64, "lies inside /mnt/root"),
        ("--cache /mnt/bound/cache", 64, "lies inside /mnt/root"),
        ("--cache /mnt/layers/0/x -- /mnt/layers/0", 64, "lies inside /mnt/layers/0"),
        ("-- /mnt/root/sub", 64, "/mnt/root/sub lies inside /mnt/root"),
        ("-- /mnt/layers/0 /mnt/layers", 64, "/mnt/layers/0 lies inside /mnt/layers"),
        ("-- /mnt/layers /mnt/layers/0", 64, "/mnt/layers/0 lies inside /mnt/layers"),
        ("-- /mnt/layers/0 /mnt/layers/0", 64, "are the same directory"),
        ("-- /mnt", 64, "/mnt/root lies inside /mnt"),
        ("-- /mnt/bound/sub", 64, "lies inside /mnt/root"),
        ("--cache /mnt/c -- /mnt/c/upper/l", 64, "lies inside /mnt/c/upper"),
        ("--cache /mnt/c -- /mnt/c/temp", 64, "lies inside /mnt/c/temp"),
        ("-- /mnt/nowhere", 71, "open the layer /mnt/nowhere"),
        ("-- /mnt/root/a", 71, "Not a directory"),
        ("--path /mnt/nowhere", 71, "open the directory /mnt/nowhere"),
        ("--cache /mnt/readonly/x", 71, "writable file system"),
        ("--cache /mnt/planted", 71, "not links"),
        ("--cache /mnt/shifted/x", 71, "idmapped mount"),
        ("--cache ''", 64, "may not be empty"),
        ("--nothing", 64, "--nothing"),
    ],
)
def test_a_refusal_is_one_line_and_mounts_nothing(arguments: str, code: int, text: str) -> None:
    done = shell(f"""
        mkdir -p root/sub bound readonly shifted planted c/upper/l c/temp; ln -s root link
        mount --bind root bound; mount -t tmpfs -o ro tmpfs readonly; ln -s /mnt/layers planted/temp
        tool mount-idmapped --map-mount=b:0:9:9 shifted shifted
        before=$(cat /proc/self/mountinfo)
        tool overlay {arguments} || echo $?
        [ "$before" = "$(cat /proc/self/mountinfo)" ] && echo same; ls layers
    """)
    assert done.stdout.split() == [str(code), "same", "0", "1"], done.stderr
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


@KERNELS
def test_a_cache_in_use_is_not_wiped_under_the_one_who_uses_it(overlay: str) -> None:
    done = shell(f"""
        mkdir other 'c,a\\'; tool overlay --cache '/mnt/c,a\\'
        {overlay} overlay --path /mnt/other --cache '/mnt/c,a\\' || echo $?
        mkdir root/works; ls root
    """)
    assert done.stdout.split() == ["71", "a", "b", "c", "works"], done.stderr
    assert "in use by the overlay at /mnt/root" in done.stderr


READ_ONLY = """if True:
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from lcinit.errors import SystemFailure
    from lcinit.linux import mount
    from lcinit.tools import overlay
    real = mount.fsconfig_fd
    # leave out the upper: the kernel makes the overlay read-only, as it does when it cannot use one
    mount.fsconfig_fd = lambda fd, key, value: None if key in ("workdir", "upperdir") else real(fd, key, value)
    try:
        overlay.mount_overlay("/mnt/root", sys.argv[2], ["/mnt/layers/0"])
    except SystemFailure as error:
        print(error.exit_code, error)
"""


@pytest.mark.parametrize(
    ("cache", "why"), [("/mnt/cache", "cannot use the file system"), ("/mnt/shifted", "idmapped mount")]
)
def test_a_result_that_would_be_read_only_is_said_and_not_mounted(cache: str, why: str) -> None:
    done = shell(
        f"""
        mkdir shifted; tool mount-idmapped --map-mount=b:0:0:9 shifted shifted
        {sys.executable} -I -c "$1" {ROOT} {cache}; grep -c ' - overlay' /proc/self/mountinfo || true
        """,
        READ_ONLY,
    )
    assert done.stdout.startswith("78 the overlay at /mnt/root would be read-only"), done.stderr
    assert why in done.stdout
    assert done.stdout.endswith("\n0\n")


def test_the_outside_sees_nothing_of_it() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert shell("tool overlay; cat root/a").stdout == "root\n"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_emptying_follows_no_link_and_knows_no_depth(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("untouched")
    full = tmp_path / "full"
    full.mkdir()
    (full / "link").symlink_to(canary)
    (full / "loop").symlink_to(".")
    at = os.open(full, os.O_RDONLY)
    for number in range(3000):
        os.mkdir("d", dir_fd=at)
        if number % 100 == 0:
            os.symlink(canary, "link", dir_fd=at) if number else None
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    handle = os.open(full, os.O_RDONLY)
    empty_directory(handle)
    os.close(handle)
    assert os.listdir(full) == []
    assert (canary / "file").read_text() == "untouched"
