"""A phase that fails: one line that says which, what, why and what to do; its code as PID 1's; and nobody left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attempt import BOTH_LOOPS, boot, configuration, outcome, own_guest, start
from tests.lab.container import ContainerError
from tests.lab.guests import place_file, remove_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts containers")

RUNS = "echo 'guest: runs'"
HINT = "mend the command, or give it ignore_errors: true; files that commands changed are not undone"
BROKEN = Path(__file__).parent.parent / "unit" / "data" / "broken"
PHASES = (("setup", "before"), ("setup", "after"), ("setup", "outside"), ("exec", "before"))

both_loops = pytest.mark.parametrize("loop", BOTH_LOOPS)


def env(loop: str) -> dict[str, str]:
    return {"LCINIT_EVENT_LOOP": loop} if loop == "asyncio" else {}


def with_command(phase: tuple[str, str], *commands: Any, **more: Any) -> str:
    section, name = phase
    return configuration(RUNS, **{section: {name: list(commands)}}, **more)


@both_loops
@pytest.mark.parametrize("phase", PHASES, ids=".".join)
def test_a_failing_command_ends_the_boot_with_its_code(phase: tuple[str, str], loop: str) -> None:
    done = boot(with_command(phase, ["/bin/sh", "-c", "exit 0"], ["/bin/sh", "-c", "exit 42"]), env=env(loop))
    assert done.status == 42
    assert done.errors() == [f"{'.'.join(phase)}[1]: /bin/sh ended with exit code 42; {HINT}"]
    assert not done.said("guest")


@both_loops
def test_a_command_that_a_signal_ends_gives_128_and_the_signal(loop: str) -> None:
    done = boot(with_command(("setup", "before"), ["/bin/sh", "-c", "kill -USR1 $$"]), env=env(loop))
    assert done.status == 128 + signal.SIGUSR1
    assert done.errors() == [f"setup.before[0]: /bin/sh ended with signal SIGUSR1; {HINT}"]


@pytest.mark.parametrize("phase", PHASES, ids=".".join)
def test_a_command_that_is_not_there_or_cannot_be_run_gives_127_or_126(phase: tuple[str, str]) -> None:
    key = ".".join(phase)
    done = boot(with_command(phase, "no-such-command --now"))
    assert done.status == 127
    assert done.errors() == [f"{key}[0]: cannot run 'no-such-command': not found; {HINT}"]
    done = boot(with_command(phase, "/etc/passwd"))
    assert done.status == 126
    assert done.errors() == [f"{key}[0]: cannot run '/etc/passwd': exec: Permission denied; {HINT}"]


@both_loops
@pytest.mark.parametrize("phase", PHASES, ids=".".join)
def test_a_command_that_takes_too_long_is_ended(phase: tuple[str, str], loop: str) -> None:
    began = time.monotonic()
    done = boot(with_command(phase, {"command": ["sleep", "60"], "timeout": 0.2}), env=env(loop))
    assert time.monotonic() - began < 10
    assert done.status == 124
    assert done.errors() == [f"{'.'.join(phase)}[0]: sleep took longer than its timeout (0.2 s) and was ended; {HINT}"]


def test_a_command_that_ignores_the_polite_signal_is_killed() -> None:
    stubborn = "trap '' TERM; echo 'pid: $$'; while :; do sleep 0.1; done"
    command = {"command": ["/bin/sh", "-c", stubborn], "timeout": 0.2}
    done = boot(with_command(("setup", "before"), command))
    assert done.status == 124
    assert len(done.errors()) == 1


@both_loops
def test_setup_timeout_covers_all_commands_of_setup_together(loop: str) -> None:
    config = configuration(RUNS, setup={"before": ["sleep 0.3"], "after": ["sleep 0.3", "sleep 0.7"], "timeout": 0.9})
    done = boot(config, env=env(loop))
    assert done.status == 124
    assert done.errors() == [f"setup.after[1]: sleep took longer than setup.timeout (0.9 s) and was ended; {HINT}"]


def test_errors_are_ignored_where_the_configuration_says_so_and_told() -> None:
    bad = [["/bin/sh", "-c", "exit 9"], "no-such-command", "/etc/passwd"]
    ignoring = [{"command": command, "ignore_errors": True} for command in bad]
    slow = {"command": "sleep 60", "timeout": 0.1, "ignore_errors": True}
    keys = {section: {} for section, _ in PHASES}
    for section, name in PHASES:
        keys[section][name] = [*ignoring, slow]
    done = boot(configuration(RUNS, **keys), timeout=30)
    assert done.status == 0
    assert done.said("guest") == ["runs"]
    warnings = [line for line in done.lines if line.startswith("lcinit: warning: ")]
    assert len(warnings) == 16
    for section, name in PHASES:
        place = f"lcinit: warning: {section}.{name}"
        assert f"{place}[0]: /bin/sh ended with exit code 9 (ignored)" in warnings
        assert f"{place}[1]: cannot run 'no-such-command': not found (ignored)" in warnings
        assert f"{place}[3]: sleep took longer than its timeout (0.1 s) and was ended (ignored)" in warnings


@pytest.mark.parametrize(
    ("number", "loop"), [(signal.SIGTERM, "uvloop"), (signal.SIGINT, "asyncio")], ids=["SIGTERM", "SIGINT"]
)
@pytest.mark.parametrize("phase", PHASES, ids=".".join)
def test_a_stop_request_ends_the_boot_and_the_command(phase: tuple[str, str], number: int, loop: str) -> None:
    config = with_command(phase, ["/bin/sh", "-c", "trap '' TERM INT; echo waiting; sleep 60; echo no"])
    with start(config, env=env(loop)) as container:
        container.expect("^waiting")
        os.kill(container.pid1(), number)
        done = outcome(container, 5)
        with open(os.path.join(container.cgroup, "cgroup.events"), encoding="utf-8") as events:
            assert "populated 0" in events.read()
    assert done.status == 128 + number
    assert done.errors() == [f"the boot was stopped by {signal.Signals(number).name} from outside"]
    assert not done.said("guest")


# Asks itself to stop before there is anything that could read it, and becomes lcinit.
ASKED = """\
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
os.execv("/sbin/init", ["/sbin/init"])
"""


@pytest.mark.parametrize("keys", [{}, {"setup": {"before": ["true"]}}], ids=["no commands", "a command"])
def test_a_stop_request_between_two_steps_is_not_lost(keys: dict[str, Any]) -> None:
    done = boot(configuration(RUNS, **keys), init="/usr/bin/python3", args=["-IS", "-c", ASKED])
    assert done.status == 128 + signal.SIGTERM
    assert done.errors() == ["the boot was stopped by SIGTERM from process 1"]
    assert not done.said("guest")


@pytest.mark.parametrize("phase", PHASES, ids=".".join)
def test_on_failure_shell_is_a_real_shell_and_its_end_is_the_end(phase: tuple[str, str]) -> None:
    section, name = phase
    keys: dict[str, Any] = {"exec": {"on_failure": "shell"}}
    keys.setdefault(section, {})[name] = ["/bin/false"]
    config = configuration(RUNS, **keys)
    with start(config, console="pty") as container:
        container.expect("a shell in the (guest|boot) root; the container ends with it")
        container.send(b"echo $((6 * 7)) $([ -t 0 ] && echo terminal)\n")
        container.expect("^(?:# )?42 terminal", 5)
        if phase == ("setup", "before"):  # later the lab's terminal, which its own session holds, is out of reach
            container.send(b"sh -c 'echo nap; exec sleep 60'\n")
            container.expect("^(?:# )?nap", 5)
            container.send(b"\x03")  # job control: the keyboard's interrupt reaches the command and not the shell
            container.send(b"echo still $((6 * 9))\n")
            container.expect("^(?:# )?still 54", 5)
        container.send(b"exit 9\n")
        done = outcome(container)
    assert done.status == 1
    assert len(done.errors()) == 1
    where = "guest root" if phase == ("exec", "before") else "boot root"
    assert any(f"a shell in the {where}" in line for line in done.lines)


def test_a_boot_that_was_stopped_gets_no_rescue_shell() -> None:
    config = configuration(RUNS, exec={"before": [["/bin/sh", "-c", "echo waiting; sleep 60"]], "on_failure": "shell"})
    with start(config, console="pty") as container:
        container.expect("^waiting")
        os.kill(container.pid1(), signal.SIGTERM)
        done = outcome(container, 5)
    assert done.status == 128 + signal.SIGTERM
    assert "a shell in" not in str(done)


def test_a_stop_request_ends_the_rescue_shell() -> None:
    config = configuration(RUNS, exec={"before": ["/bin/false"], "on_failure": "shell"})
    with start(config, console="pty") as container:
        container.expect("the container ends with it")
        container.send(b"echo up $((6 * 7))\n")
        container.expect("^(?:# )?up 42", 5)
        os.kill(container.pid1(), signal.SIGTERM)
        assert outcome(container, 5).status == 1


def test_a_root_that_setup_before_did_not_bring_is_named() -> None:
    done = boot(configuration(RUNS, root="/mnt/elsewhere", setup={"before": ["true"]}))
    assert done.status == 71
    assert done.errors() == [
        "the guest root /mnt/elsewhere is not there: No such file or directory; "
        "mount it there before lcinit starts or in setup.before, or set root: to where it is"
    ]


@pytest.mark.parametrize("case", sorted(path.stem for path in BROKEN.glob("*.yml")))
def test_a_broken_configuration_gives_its_exact_places_and_changes_nothing(case: str) -> None:
    with start((BROKEN / f"{case}.yml").read_text()) as container:
        done = outcome(container)
        upper = os.path.join(container.directory, "upper")
        # the lab's own mount points, and nothing in them
        made = {os.path.relpath(path, upper) for path, _, files in os.walk(upper) for name in files or [""]}
    assert done.status == 78
    expected = (BROKEN / f"{case}.txt").read_text().splitlines()
    assert [line.replace("/mnt/init.yml:", "init.yml:") for line in done.errors()] == expected
    assert made <= {".", "mnt", "mnt/root", "mnt/cache"}


def test_the_command_line_is_checked_first() -> None:
    done = boot(configuration(RUNS), args=["--override-exec"])
    assert done.status == 64
    assert done.errors() == ["--override-exec needs the command to run; give it after --"]
    done = boot(configuration(RUNS), init="/bin/sh", args=["-c", "/sbin/init --; exit $?"])
    assert done.status == 64
    (line,) = [line for line in done.lines if "not PID 1" in line]
    assert "start it as the container's init, or give --no-pid1" in line


def test_an_init_that_could_never_end_is_refused_by_name(tmp_path: Path) -> None:
    guest = own_guest(str(tmp_path / "guest"))
    try:
        for name in ("dinit", "openrc-init", "finit"):
            place_file(guest, f"usr/sbin/{name}", 0o755, f"#!/bin/sh\n{RUNS}\n")
            exec_ = {"command": [f"/usr/sbin/{name}"]}
            done = boot(configuration(exec=exec_, capabilities={"drop": ["sys_boot"]}), guest=guest)
            assert done.status == 78
            (line,) = done.errors()
            assert line.startswith(f"/usr/sbin/{name} is {name}, which cannot end without reboot(2)")
            assert "tolerant" in line
            assert not done.said("guest")
    finally:
        remove_tree(guest)


def test_an_init_that_cannot_be_executed_gives_126_or_127(tmp_path: Path) -> None:
    guest = own_guest(str(tmp_path / "guest"))
    try:
        place_file(guest, "usr/sbin/no-interpreter", 0o755, "#!/no/such/interpreter\n")
        place_file(guest, "usr/sbin/s6-svscan", 0o644, "#!/bin/sh\n")
        for command, status, said in (
            ("/usr/sbin/nothing", 127, "the guest root has no /usr/sbin/nothing; set exec.command"),
            ("/usr/sbin", 126, "the guest's /usr/sbin is not a regular file"),
            ("/usr/sbin/no-interpreter", 127, "cannot exec /usr/sbin/no-interpreter: No such file or directory; "),
            ("/usr/sbin/s6-svscan", 126, "cannot exec /usr/sbin/s6-svscan: Permission denied"),
        ):
            done = boot(configuration(exec={"command": [command]}), guest=guest)
            assert done.status == status, done
            (line,) = done.errors()
            assert line.startswith(said)
    finally:
        remove_tree(guest)


def test_a_hanging_command_hangs_nothing_but_itself() -> None:
    """The counter-test of the time-outs: without one a command may take as long as it likes."""
    config = with_command(("setup", "before"), "sleep 60")
    with start(config) as container, pytest.raises(ContainerError, match="still running"):
        outcome(container, 1.5)
