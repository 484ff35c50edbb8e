"""Rows 8, 9 and 16: the interpreter, the imports and the old root, once PID 1 has gone into the guest's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.hostile.attacker import LENT, PRELUDE, attack
from tests.hostile.attempt import SHIFT, configuration, outcome, own_guest, start

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")


def give(guest: str, path: str, text: str, mode: int = 0o644) -> None:
    """A file of the guest's, owned by its root; nothing that was there before is written to."""
    target = f"{guest}/{path}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        os.unlink(target)
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), SHIFT, SHIFT)


OVERWRITE = """
say("interpreter", os.path.basename(os.readlink("/proc/self/exe")))
handle = os.open("/proc/self/exe", os.O_RDONLY)
os.set_inheritable(handle, True)
attempt("write while it runs", os.open, "/proc/self/exe", os.O_WRONLY)
attempt("change its mode", os.chmod, "/proc/self/exe", 0o777)
loop = 'n=0; while [ $n -lt 200 ]; do : > "/proc/self/fd/$0" && echo "written: $n"; n=$((n + 1)); done'
os.execv("/bin/sh", ["sh", "-c", f"({loop}) 2>/dev/null; echo tried: 200", str(handle)])
"""


@pytest.mark.row(8)
def test_the_interpreter_of_pid_1_cannot_be_overwritten_by_an_init_that_runs_in_it(tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root")
    give(guest, "evil", f"#!/proc/self/exe\n{PRELUDE}\n{OVERWRITE}", 0o755)
    config = configuration(mounts=[LENT], exec={"command": "/evil"})
    with start(config, guest=guest) as container:
        result = outcome(container)
        upper = f"{container.directory}/upper"
        changed = [f"{parent}/{name}".removeprefix(upper) for parent, _, names in os.walk(upper) for name in names]
    assert result.said("interpreter") == ["python3.11"], result
    assert result.said("tried") == ["200"], result
    # the container's root is an overlay: whatever was written to is copied up
    assert [path for path in changed if path.startswith(("/usr/", "/lib", "/bin", "/sbin"))] == []
    assert result.said("written") == [], result
    assert result.said("write while it runs") == ["EACCES"], result
    assert result.said("change its mode") == ["EPERM"], result


# every directory that the interpreter or lcinit imports from, and where Debian's sitecustomize and NSS are read
PYTHON_PATHS = (
    "usr/lib/python3.11",
    "usr/lib/python3.11/lib-dynload",
    "usr/lib/python3/dist-packages",
    "usr/local/lib/python3.11/dist-packages",
    "usr/lib/lcinit/site",
    "usr/lib/lcinit/bin",
    "",
)
PACKAGES = ("encodings", "lcinit", "asyncio", "uvloop", "yaml", "logging", "collections", "concurrent", "importlib")
MARKER = "open('/imported', 'a').write(__name__ + chr(10))\nraise SystemExit(99)\n"


def trap(guest: str) -> None:
    """A marker module for every name there is, and FIFOs where a traceback would look for lines of source."""
    names = sorted(n for n in sys.stdlib_module_names if not n.startswith("__"))
    for directory in PYTHON_PATHS[:-1]:
        for name in names:
            if name not in PACKAGES:
                give(guest, f"{directory}/{name}.py", MARKER)
        for name in PACKAGES:
            give(guest, f"{directory}/{name}/__init__.py", MARKER)
    # the codec that would be loaded for an unprintable character
    for name in ("ascii", "unicode_escape", "idna", "latin_1", "utf_16", "cp437"):
        give(guest, f"usr/lib/python3.11/encodings/{name}.py", MARKER)
    package = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    for parent, _, files in os.walk(f"{package}/lcinit"):
        for name in files:
            if name.endswith(".py") and name != "__init__.py":
                relative = os.path.relpath(f"{parent}/{name}", package)
                path = f"{guest}/usr/lib/lcinit/site/{relative}"
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.mkfifo(path, 0o666)
    for name in ("asyncio/events.py", "asyncio/base_events.py", "asyncio/runners.py", "traceback.py"):
        path = f"{guest}/usr/lib/python3.11/{name}"
        if os.path.lexists(path):
            os.unlink(path)
        os.mkfifo(path, 0o666)
    for name in ("etc/nsswitch.conf", "etc/ld.so.preload", "etc/localtime", "etc/locale.alias"):
        if name != "etc/ld.so.preload":  # the guest's own programs would wait for it
            shutil.rmtree(f"{guest}/{name}", ignore_errors=True)
            if not os.path.lexists(f"{guest}/{name}"):
                os.mkfifo(f"{guest}/{name}", 0o666)


#: name → the part `exec` of a configuration, and the exit code
ERRORS = {
    "not-executable": ({"command": "/etc/passwd"}, 126),
    "no-interpreter": ({"command": "/no-interpreter"}, 127),
    "not-a-program": ({"command": "/not-a-program"}, 126),
    "unprintable": ({"command": "/un\u001b[31m\u202eprintable"}, 126),
    "before-fails": ({"before": ["/bin/false"], "command": "/bin/true"}, 1),
    "before-not-found": ({"before": ["/un\u009bprintable"], "command": "/bin/true"}, 127),
    "before-killed": ({"before": [["/bin/sh", "-c", "kill -9 $$"]], "command": "/bin/true"}, 137),
    "before-times-out": ({"before": [{"command": "/bin/sleep 60", "timeout": 0.2}], "command": "/bin/true"}, 124),
    "before-replaces-null": (
        {"before": [["/bin/sh", "-c", "rm /dev/null; mkfifo /dev/null"], "/bin/true"], "command": "/bin/true"},
        0,
    ),
    "before-stops-the-boot": ({"before": [["/bin/sh", "-c", "kill -15 $PPID; sleep 60"]], "command": "/bin/true"}, 143),
    "no-directory": ({"command": {"command": "/bin/true", "cwd": "/nowhere"}}, 71),
    "unknown-user": ({"command": "/bin/true", "user": "nobody-of-that-name"}, 78),
    "before-unknown-user": ({"before": [{"command": "/bin/true", "user": "no\u0007body"}], "command": "/bin/true"}, 78),
}

TRY_ERRORS = """
for config in /mnt/configs/*; do
    echo "trying ${config##*/}"
    timeout -k 1 5 lcinit init --no-pid1 --config "$config" < /dev/null
    echo "status $?"
done
[ -e /mnt/root/imported ] && sed 's/^/imported: /' /mnt/root/imported
echo "marks: none beside these"
"""


def boots_that_fail(directory: str, loop: str, **exec_keys: str) -> dict[str, int]:
    """The exit code of a boot with each of the ERRORS, none of which may have touched the guest's Python.

    `exec_keys` are added to the part `exec` of each configuration.
    """
    guest = own_guest(f"{directory}/root")
    trap(guest)
    give(guest, "no-interpreter", "#!/nowhere/interpreter\n", 0o755)
    give(guest, "not-a-program", "neither ELF nor a script\n", 0o755)
    give(guest, "un\x1b[31m\u202eprintable", "not executable\n")
    os.mkdir(f"{directory}/configs")
    for name, (keys, _) in ERRORS.items():
        with open(f"{directory}/configs/{name}", "w") as file:
            json.dump({"id_map": {"users": f"0 {SHIFT} 65536"}, "exec": {**exec_keys, **keys}}, file)  # type: ignore[dict-item]
    binds = [(f"{directory}/configs", "/mnt/configs")]
    env = {"LCINIT_EVENT_LOOP": loop}
    with start("{}", guest=guest, binds=binds, env=env, init="/bin/sh", args=("-c", TRY_ERRORS)) as container:
        result = outcome(container, 60)
    assert result.said("marks") == ["none beside these"], result
    assert result.said("imported") == [], result
    texts = {text.partition("\n")[0]: text for text in "\n".join(result.lines).split("trying ")[1:]}
    found = {name: int(text.split("\nstatus ")[1].split("\n")[0]) for name, text in texts.items()}
    for name, text in texts.items():
        assert text.count("lcinit: error: ") == (1 if found[name] else 0), text
        assert "Traceback" not in text
        assert "unexpected" not in text, text
    assert "\\x1b[31m\\u202e" in texts["unprintable"]
    return found


@pytest.mark.row(9)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_error_after_the_pivot_neither_imports_nor_reads_the_guests_python(loop: str, tmp_path: object) -> None:
    assert boots_that_fail(str(tmp_path), loop) == {name: status for name, (_, status) in ERRORS.items()}


SHOW_ERROR = """
import os, sys, warnings
from lcinit.boot import guard
os.mkfifo(sys.argv[1])
code = compile("def fail():\\n    raise KeyError('unforeseen')\\n", sys.argv[1], "exec")
names = {}
exec(code, names)
guard.close()
try:
    import wave
except ImportError as error:
    os.write(1, f"{error}\\n".encode())

class Late:
    def __del__(self):
        names["fail"]()

late = Late()
del late
exec(compile("import warnings\\nwarnings.warn('odd')", sys.argv[1], "exec"))
names["fail"]()
"""


@pytest.mark.row(9)
def test_an_unforeseen_exception_is_shown_without_the_file_that_it_names(tmp_path: object) -> None:
    # the interpreter's own hook opens the source: here a FIFO that nobody writes to
    command = [sys.executable, "-IS", "-c", f"import sys\nsys.path.insert(0, {os.getcwd()!r})\n{SHOW_ERROR}"]
    done = subprocess.run([*command, f"{tmp_path}/fifo"], capture_output=True, text=True, timeout=5)
    assert "wave must be imported before the root changes" in done.stdout
    lines = done.stderr.splitlines()
    assert lines.count("lcinit: error: unexpected KeyError: 'unforeseen'") == 2, done.stderr
    assert all(line.startswith("lcinit: error: ") for line in lines), done.stderr
    assert done.returncode == 1


ESCAPE = """
attempt("pivot", lambda: os.stat("/mnt/init.yml"))
say("roots", sum(point == "/" for point, _ in mountinfo()))
here = os.stat("/")
say("parent", os.path.samestat(here, os.stat("/..")))
say("root of 1", os.path.samestat(here, os.stat("/proc/1/root")))
os.mkdir("/tmp/jail")
os.chroot("/tmp/jail")
for _ in range(64):
    os.chdir("..")
os.chroot(".")
say("after the escape", os.path.samestat(here, os.stat("/")))
say("outer configuration", os.path.exists("/mnt/init.yml"))
"""


@pytest.mark.row(16)
@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_the_classic_way_out_of_a_chroot_leads_back_to_the_guests_root(mapped: bool, tmp_path: object) -> None:
    guest = own_guest(f"{tmp_path}/root", SHIFT if mapped else None)
    result = attack(ESCAPE, guest=guest, mapped=mapped)
    assert result.status == 0, result
    assert result.said("pivot") == ["ENOENT"], result
    assert result.said("roots") == ["1"], result
    assert result.said("parent") == ["True"], result
    assert result.said("root of 1") == ["True"], result
    assert result.said("after the escape") == ["True"], result
    assert result.said("outer configuration") == ["False"], result


@pytest.mark.row(16)
def test_a_chroot_warns_that_it_can_be_left() -> None:
    result = attack("say('guest', 'up')", keys={"root": {"path": "/mnt/root", "mode": "chroot"}})
    assert result.said("guest") == ["up"], result
    assert any("chroot" in line and line.startswith("lcinit: warning: ") for line in result.lines), result
