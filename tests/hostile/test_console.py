"""Row 26 and the console of a lcinit that stays: nobody reads it, it is resized, a guest ends with its last words."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import termios
import threading
import time
from typing import Any

import pytest

from tests.guests.test_nested import POWEROFF_DEATH
from tests.hostile.attempt import BOTH_LOOPS, SHIFT, configuration, own_guest, start
from tests.lab.container import Container
from tests.lab.managers import Unshare

NESTED = {"mode": "tolerant"}
MUCH = 100  # MiB


class Paused(Unshare):
    """The unshare driver with a console that is only read while `reading` is set."""

    def __init__(self, **options: Any) -> None:
        self.reading = threading.Event()
        self.reading.set()
        super().__init__(**options)

    def read_console(self, descriptor: int) -> None:
        """From a pipe between, which is filled while there is a reader."""
        reader, writer = os.pipe()
        self._descriptors.append(descriptor)

        def copy() -> None:
            try:
                while chunk := os.read(descriptor, 4096):
                    self.reading.wait()
                    os.write(writer, chunk)
            except OSError:
                pass  # the pty's end is EIO
            finally:
                os.close(writer)

        threading.Thread(target=copy, daemon=True).start()
        super().read_console(reader)

    def stop(self) -> None:
        """Let the copying come to its end."""
        self.reading.set()
        super().stop()


def known_init(guest: str, script: str) -> str:
    """Give the guest an init that lcinit knows by its name, so that it gets a console of its own."""
    with open(f"{guest}/s6-svscan", "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{script}\n")
        os.fchmod(file.fileno(), 0o755)
        os.fchown(file.fileno(), SHIFT, SHIFT)
    return guest


def boot(guest: str, driver: type[Container] = Unshare, **options: Any) -> Container:
    keys = options.pop("keys", {})
    config = configuration(exec={**NESTED, "command": "/s6-svscan"}, **keys)
    return start(config, guest=guest, driver=driver, **options)


FLOOD = f"""\
stty raw </dev/console
echo begin
head -c {MUCH}M /dev/zero | tr '\\0' x >/dev/console
touch /tmp/written
trap 'touch /tmp/asked; exit 5' TERM
while :; do sleep 0.05; done
"""


@pytest.mark.row(26)
@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize("console", ["pty", "pipe"])
def test_a_console_that_nobody_reads_keeps_neither_the_guest_nor_pid_1(
    console: str, loop: str, tmp_path: object
) -> None:
    guest = known_init(own_guest(f"{tmp_path}/root"), FLOOD)
    with boot(guest, Paused, console=console, env={"LCINIT_EVENT_LOOP": loop}) as container:
        assert isinstance(container, Paused)
        container.expect("begin", 20)
        container.reading.clear()
        memory = private_memory(container.pid1())
        wait_for(f"/proc/{container.guest_pid1()}/root/tmp/written", 60)
        assert private_memory(container.pid1()) - memory < 4096  # KiB
        began = time.monotonic()
        os.kill(container.pid1(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while container.running() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not container.running()
        assert time.monotonic() - began < 4
        assert os.path.exists(f"{guest}/tmp/asked")
        container.reading.set()
        assert container.wait(5).status == 5


@pytest.mark.row(26)
def test_what_was_dropped_is_counted_for_a_reader_that_comes_back(tmp_path: object) -> None:
    guest = known_init(own_guest(f"{tmp_path}/root"), FLOOD)
    with boot(guest, Paused, console="pipe") as container:
        assert isinstance(container, Paused)
        container.expect("begin", 20)
        container.reading.clear()
        wait_for(f"/proc/{container.guest_pid1()}/root/tmp/written", 60)
        container.reading.set()
        found = container.expect(r"\[lcinit: (\d+) bytes of console output dropped\]", 10)
        time.sleep(0.5)
        shown = container.console().count(b"x")
        assert int(found.group(1)) + shown >= MUCH << 20
        os.kill(container.pid1(), signal.SIGTERM)
        assert container.wait(10).status == 5


def wait_for(path: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"no {path} within {timeout} s"
        time.sleep(0.02)


def private_memory(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))


LAST_WORDS = """\
stty raw </dev/console
head -c 1M /dev/zero | tr '\\0' x
echo the end
exit 5
"""


@pytest.mark.parametrize("console", ["pty", "pipe"])
@pytest.mark.parametrize("init", ["plain", "known"])
@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_the_last_words_of_a_guest_that_ends_at_once_arrive(
    loop: str, init: str, console: str, tmp_path: object
) -> None:
    env = {"LCINIT_EVENT_LOOP": loop}
    if init == "known":
        running = boot(known_init(own_guest(f"{tmp_path}/root"), LAST_WORDS), console=console, env=env)
    else:
        running = start(
            configuration(LAST_WORDS.replace("/dev/console", "/dev/null 2>&1"), exec=NESTED), console=console, env=env
        )
    with running as container:
        assert container.wait(20).status == 5
        text = container.console()
    assert text.count(b"x") - text.count(b"exec") - text.count(b"exit") >= 1 << 20, text[-300:]
    assert b"the end" in text


RESIZED = """\
old=
while :; do
    new=$(stty size </dev/console)
    [ "$new" = "$old" ] || echo "size $new"
    old=$new
    sleep 0.05
done
"""


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_resize_reaches_the_guest_and_the_terminal_is_given_back_as_it_was(loop: str, tmp_path: object) -> None:
    guest = known_init(own_guest(f"{tmp_path}/root"), RESIZED)
    with boot(guest, console="pty", env={"LCINIT_EVENT_LOOP": loop}) as container:
        container.expect("size 24 80", 20)
        terminal = container._console_fd
        raw = termios.tcgetattr(terminal)
        assert not raw[3] & (termios.ICANON | termios.ECHO)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
        os.kill(container.pid1(), signal.SIGWINCH)
        container.expect("size 50 132", 5)
        # until the end somebody must hold the terminal, or its settings are gone
        slave = os.open(os.readlink(f"/proc/{container.process.pid}/fd/0"), os.O_RDWR | os.O_NOCTTY)  # type: ignore[union-attr]
        try:
            os.kill(container.pid1(), signal.SIGRTMIN + 14)
            assert container.wait(10).status == POWEROFF_DEATH
            cooked = termios.tcgetattr(slave)
        finally:
            os.close(slave)
        assert cooked[3] & termios.ICANON
        assert cooked[3] & termios.ECHO


@pytest.mark.row(35)
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_guest_may_name_cannot_move_the_cursor_or_forge_a_line_of_lcinits(form: str, tmp_path: object) -> None:
    name = "/evil\x1b[2J\nlcinit: all is well\r\u202e\x9b"
    guest = own_guest(f"{tmp_path}/root")
    with open(f"{guest}{name}", "w") as file:
        file.write("no program\n")
        os.fchmod(file.fileno(), 0o755)
        os.fchown(file.fileno(), SHIFT, SHIFT)
    config = configuration(exec={**NESTED, "command": {"command": [name]}}, log={"format": form, "level": "debug"})
    with start(config, guest=guest) as container:
        assert container.wait(10).status in (126, 127)
        text = container.console().decode()
    assert "\x1b" not in text
    assert "\r" not in text.replace("\r\n", "\n")
    assert "\u202e" not in text and "\x9b" not in text
    assert "evil" in text
    assert not re.search(r"^lcinit: all is well", text, re.MULTILINE)
