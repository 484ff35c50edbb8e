"""What a program has of the isolation that it was started with, told by itself; and each refusal in its words."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from lcinit.linux import mount, namespaces
from lcinit.linux.calls import AT_FDCWD
from lcinit.linux.capabilities import CAPABILITIES, has_capability
from lcinit.supervisor.isolation import mask_of
from lcinit.supervisor.spawn import Account, Identity, Program
from tests.namespace.isolated import needs_root
from tests.namespace.spawn_rig import SHIFT, Ground, on_ground, shell

pytestmark = needs_root

BOTH = pytest.mark.parametrize("mapped", [False, True], ids=["root", "mapped"])
USER = Identity(uid=1234, gid=1235, groups=(1235, 1236))
STATUS = "cat /proc/self/status"


def refused(ground: Ground, program: Program, message: str) -> None:
    """Neither the spawner nor PID 1 itself starts it, and both say why."""
    marked = program.replace(argv=("/bin/sh", "-c", "echo it runs"))
    for ended in (ground.run(marked), ground.run_here(marked)):
        assert ended.failure == f"cannot run '/bin/sh': {message}", ended
        assert ended.exit_code == 126
        assert ended.status == 126
        assert ended.output == ""


def both_ways(ground: Ground, program: Program) -> list[Any]:
    """What ended of it, started by the spawner and by PID 1 itself."""
    results = [ground.run(program), ground.run_here(program)]
    assert [result.failure for result in results] == ["", ""], results
    return results


@BOTH
def test_umask_nice_and_oom_score(mapped: bool) -> None:
    def inside(ground: Ground) -> None:
        script = "umask; cut -d' ' -f19 /proc/self/stat; cat /proc/self/oom_score_adj"
        for ended in both_ways(ground, shell(script, umask=0o027, nice=7, oom_score_adj=321)):
            assert ended.output.split() == ["0027", "7", "321"]
        for ended in both_ways(ground, shell(script)):
            assert ended.output.split() == ["0022", "0", "0"]

    on_ground(inside, mapped=mapped)


def test_root_may_have_what_an_ordinary_process_may_not() -> None:
    def inside(ground: Ground) -> None:
        for ended in both_ways(ground, shell("cut -d' ' -f19 /proc/self/stat", nice=-5)):
            assert ended.output == "-5\n"
        score = shell("cat /proc/self/oom_score_adj", oom_score_adj=-700)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1
        limits = shell("ulimit -Hn", limits=((resource.RLIMIT_NOFILE, 100, hard),))
        if has_capability("sys_resource"):
            assert [ended.output for ended in both_ways(ground, score)] == ["-700\n"] * 2
            assert [ended.output for ended in both_ways(ground, limits)] == [f"{hard}\n"] * 2
        else:
            refused(ground, score, "set oom_score_adj: Permission denied")
            refused(ground, limits, "set limits (RLIMIT_NOFILE): Operation not permitted")
        with open("/proc/self/oom_score_adj", encoding="utf-8") as file:
            assert file.read().strip() == "0"

    on_ground(inside, mapped=False)


@pytest.mark.row(44)
def test_what_only_the_machines_root_may_have_is_refused_by_name() -> None:
    def inside(ground: Ground) -> None:
        program = Program(argv=("/bin/sh",))
        refused(ground, program.replace(nice=-1), "set the nice value: Permission denied")
        refused(ground, program.replace(oom_score_adj=-1), "set oom_score_adj: Permission denied")
        limits = ((7, 100, 1 << 20),)
        refused(ground, program.replace(limits=limits), "set limits (RLIMIT_NOFILE): Operation not permitted")
        missing = program.replace(capabilities=("net_bind_service", "sys_time"))
        refused(ground, missing, "reduce the bounding set (sys_time is not there to be had): Operation not permitted")
        refused(ground, program.replace(identity=Identity(uid=70000, gid=7)), "change user: Invalid argument")

    on_ground(inside, mapped=True)


def test_limits_are_those_asked_for() -> None:
    def inside(ground: Ground) -> None:
        limits = ((7, 200, 300), (4, 0, None), (7, 100, 300))
        for ended in both_ways(ground, shell("ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc", limits=limits)):
            assert ended.output.split() == ["100", "300", "0", "unlimited"], "the last one for a resource counts"

    on_ground(inside, mapped=False)


def capability_sets(ended: Any) -> dict[str, int]:
    return {name: int(value, 16) for name, value in ended.fields().items() if name.startswith("Cap")}


@BOTH
@pytest.mark.row(17)
def test_capabilities_are_all_that_it_has_and_may_gain(mapped: bool) -> None:
    names = ("net_bind_service", "chown")
    mask = mask_of(names)

    def inside(ground: Ground) -> None:
        for who in (None, USER):
            for wanted, number in ((names, mask), ((), 0)):
                for ended in both_ways(ground, shell(STATUS, capabilities=wanted, identity=who)):
                    sets = capability_sets(ended)
                    assert sets == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), number), (
                        who,
                        sets,
                    )
        # and a program of the user's can use them
        os.close(os.open("/tmp/file", os.O_WRONLY | os.O_CREAT))
        os.chown("/tmp/file", USER.uid, USER.gid)
        given = ground.sh("chown 77 /tmp/file", identity=USER, capabilities=("chown",))
        assert given.status == 0, given
        assert os.stat("/tmp/file").st_uid == 77
        taken = ground.sh("chown 78 /tmp/file", capabilities=("kill",))
        assert taken.status == 1, taken

    on_ground(inside, mapped=mapped)


@BOTH
def test_without_capabilities_root_has_those_of_the_guest_and_a_user_none(mapped: bool) -> None:
    def inside(ground: Ground) -> None:
        with open("/proc/self/status", encoding="utf-8") as file:
            bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
        for ended in both_ways(ground, shell(STATUS)):
            sets = capability_sets(ended)
            assert sets == {"CapInh": 0, "CapPrm": bounding, "CapEff": bounding, "CapBnd": bounding, "CapAmb": 0}
        for ended in both_ways(ground, shell(STATUS, identity=USER)):
            assert capability_sets(ended) == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": bounding, "CapAmb": 0}
            assert ended.fields()["Uid"].split() == ["1234"] * 4
            assert ended.fields()["Gid"].split() == ["1235"] * 4
            assert ended.fields()["Groups"].split() == ["1235", "1236"]

    on_ground(inside, mapped=mapped)


@BOTH
def test_no_new_privileges(mapped: bool) -> None:
    def inside(ground: Ground) -> None:
        for wanted in (False, True):
            for ended in both_ways(ground, shell(STATUS, no_new_privileges=wanted, identity=USER)):
                assert ended.fields()["NoNewPrivs"] == str(int(wanted))

    on_ground(inside, mapped=mapped)


@BOTH
def test_a_private_tmp_is_empty_and_nobody_else_sees_what_is_in_it(mapped: bool) -> None:
    script = "ls -a /tmp /var/tmp; echo secret >/tmp/own; stat -c %a /tmp /var/tmp; cat /proc/self/mountinfo"

    def inside(ground: Ground) -> None:
        os.close(os.open("/tmp/shared", os.O_WRONLY | os.O_CREAT))
        for ended in both_ways(ground, shell(script, private_tmp=True)):
            lines = ended.output.splitlines()
            assert lines[:9] == ["/tmp:", ".", "..", "", "/var/tmp:", ".", "..", "1777", "1777"], ended
            mounts = {line.split()[4]: line.split() for line in lines[9:]}  # the last on each place
            for path in ("/tmp", "/var/tmp"):
                assert {"nosuid", "nodev", "rw"} <= set(mounts[path][5].split(",")), mounts[path]
                assert "tmpfs" in mounts[path]
            assert os.listdir("/tmp") == ["shared"]
        assert ground.sh("echo test >/tmp/own", private_tmp=True, identity=USER).status == 0
        assert ground.sh("ls /tmp", private_tmp=False).output == "shared\n"

    on_ground(inside, mapped=mapped)


@BOTH
def test_paths_are_read_only_with_all_that_is_mounted_below(mapped: bool) -> None:
    script = "for path in /tmp/a/file /tmp/a/below/file /tmp/b/file; do (echo x >$path) 2>&1 || true; done"

    def inside(ground: Ground) -> None:
        os.makedirs("/tmp/a/below")
        os.mkdir("/tmp/b")
        os.symlink("a", "/tmp/link")
        below = mount.new_mount("tmpfs")
        mount.move_mount(below, "", AT_FDCWD, "/tmp/a/below", 0)
        os.close(below)
        for path in ("/tmp/a", "/tmp/link"):
            for ended in both_ways(ground, shell(script, read_only_paths=(path,))):
                assert ended.output.count("Read-only file system") == 2, ended
            assert os.path.exists("/tmp/b/file")
            os.unlink("/tmp/b/file")
        assert not os.path.exists("/tmp/a/file")
        assert ground.sh("echo x >/tmp/a/file").status == 0, "and nowhere else"

    on_ground(inside, mapped=mapped)


@BOTH
def test_all_of_the_root_read_only_and_a_private_tmp_in_it(mapped: bool) -> None:
    script = "echo x >/run/file; echo y >/tmp/file && cat /tmp/file; echo z >/proc/self/comm; cd /; pwd"

    def inside(ground: Ground) -> None:
        run = mount.new_mount("tmpfs")
        mount.move_mount(run, "", AT_FDCWD, "/run", 0)
        os.close(run)
        for ended in both_ways(ground, shell(script, read_only_paths=("/",), private_tmp=True)):
            assert ended.output.count("Read-only file system") == 2, ended
            assert ended.output.splitlines()[1:2] == ["y"], ended
            assert ended.output.endswith("/\n")
        assert os.listdir("/run") == []

    on_ground(inside, mapped=mapped)


@pytest.mark.row(7)
def test_a_path_that_is_missing_or_leads_by_a_magic_link_is_refused() -> None:
    def inside(ground: Ground) -> None:
        program = Program(argv=("/bin/sh",))
        missing = "make /tmp/nowhere read-only: No such file or directory"
        refused(ground, program.replace(read_only_paths=("/usr", "/tmp/nowhere")), missing)
        os.symlink("/proc/self/root/usr", "/tmp/magic")
        magic = "make /tmp/magic read-only: Too many levels of symbolic links"
        refused(ground, program.replace(read_only_paths=("/tmp/magic",)), magic)
        refused(ground, program.replace(cwd="/tmp/magic"), "enter /tmp/magic: Too many levels of symbolic links")

    on_ground(inside, mapped=False)


def test_a_private_tmp_that_has_no_place_is_refused() -> None:
    def inside(ground: Ground) -> None:
        empty = mount.new_mount("tmpfs")
        mount.move_mount(empty, "", AT_FDCWD, "/var", 0)
        os.close(empty)
        program = Program(argv=("/bin/sh",), private_tmp=True)
        refused(ground, program, "mount a private /var/tmp: No such file or directory")

    on_ground(inside, mapped=False)


def test_mounts_where_the_root_is_a_plain_directory() -> None:
    """setup.mode chroot: "/" is no mount point of its own."""
    script = "echo x >/usr/file; ls -a /tmp; echo y >/tmp/own; cat /proc/self/mountinfo | grep -c /tmp"

    def inside(ground: Ground) -> None:
        for name in ("usr", "proc", "tmp", "var/tmp"):
            os.makedirs(f"/tmp/root/{name}")
        for name in ("bin", "lib", "lib64"):
            os.symlink(f"usr/{name}", f"/tmp/root/{name}")
        for name in ("usr", "proc"):
            tree = mount.open_tree(AT_FDCWD, f"/{name}", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
            mount.move_mount(tree, "", AT_FDCWD, f"/tmp/root/{name}", 0)
            os.close(tree)
        os.chroot("/tmp/root")
        os.chdir("/")
        os.mkdir("/dev")
        os.mknod("/dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        ground.spawner.enter()
        os.close(os.open("/tmp/shared", os.O_WRONLY | os.O_CREAT))
        for ended in both_ways(ground, shell(script, private_tmp=True, read_only_paths=("/usr",))):
            assert "Read-only file system" in ended.output, ended
            assert "shared" not in ended.output, ended
            assert os.listdir("/tmp") == ["shared"]
        everything = ground.sh("echo x >/file", read_only_paths=("/",))
        assert "Read-only file system" in everything.output, everything

    on_ground(inside, mapped=False, enter=False)


def test_mounts_of_the_guest_arrive_and_its_own_stay_inside() -> None:
    script = "echo up; until test -e /mnt/there; do sleep 0.02; done; echo seen"

    def inside(ground: Ground) -> None:
        mount.make_shared("/")
        os.mkdir("/tmp/ready")
        reader, writer = os.pipe2(os.O_CLOEXEC)
        starting = ground.spawner.begin(shell(script, read_only_paths=("/usr",), private_tmp=True, stdout=writer))
        os.close(writer)
        assert os.read(reader, 16) == b"up\n"
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounted = [line.split()[4] for line in file]
        assert "/usr" not in mounted and mounted.count("/var/tmp") == 0, mounted
        later = mount.new_mount("tmpfs")
        mount.move_mount(later, "", AT_FDCWD, "/mnt", 0)
        os.close(later)
        os.close(os.open("/mnt/there", os.O_WRONLY | os.O_CREAT))
        child = ground.finish(starting)
        assert child is not None and child.status == 0
        assert os.read(reader, 16) == b"seen\n"

    on_ground(inside, mapped=False)


@pytest.mark.row(7)
@BOTH
def test_descriptors_have_the_numbers_asked_for_and_there_are_no_others(mapped: bool) -> None:
    script = "for fd in /proc/self/fd/*; do echo ${fd##*/} $(readlink $fd); done"

    def inside(ground: Ground) -> None:
        first, second = (os.open(f"/tmp/{name}", os.O_RDWR | os.O_CREAT) for name in ("first", "second"))
        # numbers that are others' of PID 1, among them the very ones that are handed over
        program = shell(script, descriptors=((first, second), (second, first), (first, 30)))
        for ended in both_ways(ground, program):
            found = dict(line.split(maxsplit=1) for line in ended.output.splitlines() if " " in line)
            wanted = {str(second): "/tmp/first", str(first): "/tmp/second", "30": "/tmp/first", "0": "/dev/null"}
            assert {number: path for number, path in found.items() if "pipe" not in path} == wanted, ended
            assert set(found) - set(wanted) == {"1", "2"}, ended

    on_ground(inside, mapped=mapped)


def own_terminal() -> tuple[int, str]:
    """The master of a new pty, and the path of its slave."""
    os.mkdir("/tmp/pts")
    devpts = mount.new_mount("devpts", {"ptmxmode": "0666", "mode": "0620"})
    mount.move_mount(devpts, "", AT_FDCWD, "/tmp/pts", 0)
    os.close(devpts)
    master = os.open("/tmp/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    import fcntl
    import struct

    fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))
    return master, "/tmp/pts/0"


@BOTH
def test_a_terminal_is_all_three_streams_and_the_controlling_one(mapped: bool) -> None:
    script = (
        "echo $(readlink /proc/self/fd/0) $(readlink /proc/self/fd/1 /proc/$$/fd/2); ps -o tty= -p $$; echo >/dev/tty"
    )

    def inside(ground: Ground) -> None:
        master, path = own_terminal()
        program = shell(f"{script}; test -t 0 && test -t 1 && test -t 2 && echo three", tty=path)
        starting = ground.spawner.begin(program)
        child = ground.finish(starting)
        assert starting.failure is None, starting.failure
        assert child is not None and child.status == 0
        said = os.read(master, 4096).decode()
        assert "three" in said, said
        assert "/tmp/pts/0" in said, said

    on_ground(inside, mapped=mapped)


def test_what_is_no_terminal_is_refused() -> None:
    def inside(ground: Ground) -> None:
        os.mkfifo("/tmp/fifo")
        program = Program(argv=("/bin/sh",))
        for path, why in (
            ("/tmp/fifo", "Inappropriate ioctl for device"),
            ("/dev/null", "Inappropriate ioctl for device"),
            ("/tmp/none", "No such file or directory"),
            ("/proc/self/fd/2", "Too many levels of symbolic links"),
        ):
            refused(ground, program.replace(tty=path), f"open the terminal {path}: {why}")

    on_ground(inside, mapped=False)


@BOTH
def test_the_working_directory_is_entered_as_the_user(mapped: bool) -> None:
    def inside(ground: Ground) -> None:
        os.mkdir("/tmp/users", 0o700)
        os.chown("/tmp/users", USER.uid, USER.gid)
        os.mkdir("/tmp/roots", 0o700)
        for ended in both_ways(ground, shell("pwd", cwd="/tmp/users", identity=USER)):
            assert ended.output == "/tmp/users\n"
        program = Program(argv=("/bin/sh",), identity=USER)
        refused(ground, program.replace(cwd="/tmp/roots"), "enter /tmp/roots: Permission denied")
        refused(ground, program.replace(cwd="/etc/passwd"), "enter /etc/passwd: Not a directory")
        # with the capability that it is given the user may
        allowed = ground.sh("pwd", cwd="/tmp/roots", identity=USER, capabilities=("dac_read_search",))
        assert allowed.output == "/tmp/roots\n", allowed

    on_ground(inside, mapped=mapped)


def accounts() -> None:
    """Account files of the test's own."""
    os.mkdir("/tmp/etc")
    for name, text in (
        ("passwd", "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv/www:/usr/sbin/nologin\n"),
        ("group", "root:x:0:\nwww:x:34:\nextra:x:77:www\nmore:x:78:\n"),
    ):
        with open(f"/tmp/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    os.chmod("/tmp/etc", 0o755)
    tree = mount.open_tree(AT_FDCWD, "/tmp/etc", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
    mount.move_mount(tree, "", AT_FDCWD, "/etc", 0)
    os.close(tree)


@BOTH
def test_an_account_is_found_in_the_programs_own_root(mapped: bool) -> None:
    script = "cat /proc/self/status; echo HOME:$HOME; echo USER:$USER:; echo SHELL:$SHELL; echo LOGNAME:$LOGNAME"

    def inside(ground: Ground) -> None:
        accounts()
        for ended in both_ways(ground, shell(script, account=Account(user="www"))):
            fields = ended.fields()
            assert fields["Uid"].split()[0] == "33"
            assert fields["Gid"].split()[0] == "34"
            assert fields["Groups"].split() == ["34", "77"]
            assert (fields["HOME"], fields["SHELL"], fields["LOGNAME"]) == ("/srv/www", "/usr/sbin/nologin", "www")
        given = shell(script, account=Account(user="www", group="more", groups=(5,)), environment=(("HOME", "/x"),))
        fields = ground.run(given).fields()
        assert fields["Gid"].split()[0] == "78"
        assert fields["Groups"].split() == ["5", "78"]
        assert fields["HOME"] == "/x"
        groups_alone = ground.run(shell(STATUS, account=Account(groups=("more",)))).fields()
        assert groups_alone["Uid"].split()[0] == "0"
        assert groups_alone["Groups"].split() == ["0", "78"]
        program = Program(argv=("/bin/sh",), account=Account(user="nobody-of-that-name"))
        refused(ground, program, "no user 'nobody-of-that-name' in /etc/passwd; name one that is there")

    on_ground(inside, mapped=mapped)


def test_variables_of_files_go_over_the_others() -> None:
    def inside(ground: Ground) -> None:
        with open("/tmp/variables", "w", encoding="utf-8") as file:
            file.write("# a comment\nFIRST=of the file\nSECOND='two  blanks'\n")
        script = 'echo "$FIRST/$SECOND/$THIRD"'
        environment = (("FIRST", "given"), ("THIRD", "given"))
        program = shell(script, environment=environment, environment_files=("/tmp/variables", "-/tmp/none"))
        for ended in both_ways(ground, program):
            assert ended.output == "of the file/two  blanks/given\n"
        os.mkfifo("/tmp/fifo")
        program = Program(argv=("/bin/sh",))
        missing = "read environment_file /tmp/none: No such file or directory"
        refused(ground, program.replace(environment_files=("/tmp/none",)), missing)
        fifo = "environment_file /tmp/fifo is not a regular file of at most 1048576 bytes"
        refused(ground, program.replace(environment_files=("/tmp/fifo",)), fifo)

    on_ground(inside, mapped=False)


@pytest.fixture
def cgroups() -> Iterator[int]:
    """A directory below this process' own cgroup, delegated to the ids of a guest, with `init` and `service` in it."""
    hierarchy = mount.new_mount("cgroup2")
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = next(line.strip()[3:] for line in file if line.startswith("0::"))
    top = f".{own.rstrip('/')}/lcinit-test-{os.getpid()}"
    directories = (top, f"{top}/init", f"{top}/service")
    for name in directories:
        os.mkdir(name, dir_fd=hierarchy)
        for path in (name, f"{name}/cgroup.procs", f"{name}/cgroup.threads", f"{name}/cgroup.subtree_control"):
            os.chown(path, SHIFT, SHIFT, dir_fd=hierarchy)
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY, dir_fd=hierarchy)
    yield handle
    for name in reversed(directories):
        os.rmdir(name, dir_fd=hierarchy)
    os.close(handle)
    os.close(hierarchy)


def service_of(cgroups: int) -> int:
    """The directory of the cgroup `service`, and this process is in `init`."""
    procs = os.open("init/cgroup.procs", os.O_WRONLY, dir_fd=cgroups)
    os.write(procs, b"0")
    os.close(procs)
    return os.open("service", os.O_RDONLY | os.O_DIRECTORY, dir_fd=cgroups)


@BOTH
def test_a_program_is_born_in_its_cgroup(mapped: bool, cgroups: int) -> None:
    handles: list[int] = []

    def inside(ground: Ground) -> None:
        program = shell("cat /proc/self/cgroup", cgroup=handles[0])
        for ended in both_ways(ground, program):
            line = next(line for line in ended.output.splitlines() if line.startswith("0::"))
            assert line.endswith("/service"), ended
        assert "/service" not in ground.sh("cat /proc/self/cgroup").output

    on_ground(inside, mapped=mapped, before=lambda: handles.append(service_of(cgroups)))


def test_a_cgroup_that_is_not_the_guests_is_refused(cgroups: int) -> None:
    def inside(ground: Ground) -> None:
        refused(ground, Program(argv=("/bin/sh",), cgroup=cgroups), "enter its cgroup: Permission denied")

    os.fchown(cgroups, 0, 0)
    os.chown("cgroup.procs", 0, 0, dir_fd=cgroups)
    on_ground(inside, mapped=True)


def test_a_cgroup_that_is_gone_is_told() -> None:
    def inside(ground: Ground) -> None:
        plain = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
        refused(ground, Program(argv=("/bin/sh",), cgroup=plain), "enter its cgroup: No such file or directory")

    on_ground(inside, mapped=False)


def test_programs_that_cannot_be_run_are_told_as_a_shell_does() -> None:
    def inside(ground: Ground) -> None:
        os.close(os.open("/tmp/plain", os.O_WRONLY | os.O_CREAT, 0o644))
        os.mkdir("/tmp/bin")
        os.close(os.open("/tmp/bin/plain", os.O_WRONLY | os.O_CREAT, 0o644))
        path = (("PATH", "/nowhere:/tmp/bin:/usr/bin"),)
        for argv, message, code in (
            (("/nowhere",), "cannot run '/nowhere': not found", 127),
            (("nothing-of-that-name",), "cannot run 'nothing-of-that-name': not found", 127),
            (("/tmp/plain",), "cannot run '/tmp/plain': exec: Permission denied", 126),
            (("plain",), "cannot run 'plain': exec: Permission denied", 126),
            (("/etc/passwd/x",), "cannot run '/etc/passwd/x': not found", 127),
        ):
            for ended in (
                ground.run(Program(argv=argv, environment=path)),
                ground.run_here(Program(argv=argv, environment=path)),
            ):
                assert (ended.failure, ended.exit_code) == (message, code), ended
        for program in (Program(argv=("/bin/true", "a\0b")), Program(argv=("/bin/true",), environment=(("", "x"),))):
            for ended in (ground.run(program), ground.run_here(program)):
                assert ended.failure == "cannot run '/bin/true': exec: Invalid argument", ended

    on_ground(inside, mapped=False)


def test_every_capability_has_a_number_and_every_namespace_its_flag() -> None:
    assert mask_of(tuple(CAPABILITIES)) == (1 << len(CAPABILITIES)) - 1
    assert namespaces.CLONE_NEWNS == 0x20000
