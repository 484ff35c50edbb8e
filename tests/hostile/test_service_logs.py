"""Services that write to mislead, to fill or to hold up, and what lies in the way of the logger and of readers."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import stat
import sys
import time

import pytest

from lcinit.linux import capabilities
from lcinit.linux.process import open_pty
from lcinit.service.log_console import ROOM
from lcinit.service.log_files import CURRENT, TIMES
from lcinit.service.log_lines import CUT, LONGEST
from lcinit.tools.log_reading import ServiceLog
from tests.namespace.isolated import needs_root
from tests.namespace.service_log_rig import LogRig, contents, directory, isolated, plant

pytestmark = needs_root
MEBI = 1 << 20
NO_NEWLINE = "import os; block = b'x' * (1 << 20)\nfor _ in range({count}): os.write(1, block)"
LINE = "a line of a service that has much to say"
LINES = f"import os; block = b'{LINE}\\n' * 25000\nfor _ in range(100): os.write(1, block)"  # 100 MB


def anonymous(pid: int) -> int:
    """Bytes of memory that are a process' own, not of files: RssAnon."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        found = dict(line.split(":", 1) for line in file)
    return int(found["RssAnon"].split()[0]) * 1024


async def run(rig: LogRig, fd: int, program: str) -> int:
    """Run a service that writes to `fd`, beside somebody who reads the console: the most memory that the logger had."""
    os.set_blocking(rig.console, True)
    sink = await asyncio.create_subprocess_exec("cat", stdin=rig.console, stdout=asyncio.subprocess.DEVNULL)
    service = await asyncio.create_subprocess_exec(sys.executable, "-ISc", program, stdout=fd)
    ended = asyncio.create_task(service.wait())
    most = 0
    while not ended.done():
        most = max(most, anonymous(rig.pid))
        await asyncio.sleep(0.02)
    assert await ended == 0
    sink.kill()
    await sink.wait()
    return most


@pytest.mark.row(25)
@pytest.mark.parametrize(("to", "limit"), [("file", None), ("file", 1000), ("console", None), ("both", None)], ids=str)
def test_a_gibibyte_without_a_newline_costs_next_to_no_memory(to: str, limit: int | None) -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", to, max_size=16 * MEBI, max_files=1, rate_limit_burst=limit)
        os.write(fd, b"begun ")
        await rig.flush()
        before = anonymous(rig.pid)
        most = await run(rig, fd, NO_NEWLINE.format(count=1024))
        await rig.flush()
        assert most - before < 16 * MEBI
        if to != "console":
            assert all(len(text) <= 16 * MEBI + 2 * LONGEST for text in contents("web"))
        await rig.stop()

    isolated(body, timeout=120)


@pytest.mark.row(25)
def test_a_line_without_end_is_shown_in_marked_pieces() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", "console")
        writing = asyncio.create_task(asyncio.to_thread(os.write, fd, b"x" * (3 * LONGEST)))
        await rig.until(lambda: rig.shown().count("\n") == 2)
        await writing
        rig.close("web", fd)
        await rig.flush()
        await rig.until(lambda: rig.shown().count("\n") == 3)
        await rig.stop()
        assert rig.shown() == f"web: {'x' * LONGEST}{CUT}\n" * 2 + f"web: {'x' * LONGEST}\n"

    isolated(body)


@pytest.mark.row(26)
def test_a_console_that_nobody_reads_holds_up_nobody() -> None:
    async def body(rig: LogRig) -> None:
        flags = fcntl.fcntl(rig.writer, fcntl.F_GETFL)
        loud, quiet = rig.open("loud", "console"), rig.open("quiet", "file")
        service = await asyncio.create_subprocess_exec(sys.executable, "-ISc", LINES, stdout=loud)
        ended = asyncio.create_task(service.wait())
        slowest = 0.0
        while not ended.done():
            began = time.monotonic()
            os.write(quiet, b"still here\n")
            await rig.flush()
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2
        assert set(contents("quiet")[0].splitlines()) == {b"still here"}
        assert fcntl.fcntl(rig.writer, fcntl.F_GETFL) == flags, "others write there, too, and wait as they please"
        await rig.expect("of loud dropped: the console took no more]\n")
        os.write(loud, b"heard again\n")
        await rig.expect("loud: heard again\n")
        text = rig.shown()
        shown = text.count(f"loud: {LINE}\n")
        dropped = sum(int(count) for count in re.findall(r"^\[lcinit: (\d+) lines? of loud dropped", text, re.M))
        assert shown + dropped == 100 * 25000
        assert len(text.splitlines()) == shown + len(re.findall(r"^\[lcinit: ", text, re.M)) + 1, "only whole lines"
        await rig.stop()

    isolated(body, timeout=120)


@pytest.mark.row(26)
def test_a_terminal_that_was_stopped_holds_up_nobody() -> None:
    async def body(rig: LogRig) -> None:
        master, slave = open_pty(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
        rig.writer = slave
        loud, quiet = rig.open("loud", "console"), rig.open("quiet", "file")
        await rig.flush()
        os.write(master, b"\x13")  # ctrl-S
        os.set_blocking(master, False)
        for _ in range(100):
            await asyncio.to_thread(os.write, loud, b"a line of output\n" * 1000)
        os.write(quiet, b"still here\n")
        await rig.flush()
        assert contents("quiet") == [b"still here\n"]
        os.write(master, b"\x11")
        rig.console = master
        await rig.expect("of loud dropped: the console took no more]")
        await rig.stop()

    isolated(body)


@pytest.mark.row(26)
@pytest.mark.parametrize("kind", ["pipe", "closed", "socket"])
def test_a_console_that_is_gone_holds_up_nobody(kind: str) -> None:
    async def body(rig: LogRig) -> None:
        if kind == "closed":
            rig.before = lambda: os.close(1)
        if kind == "socket":
            import socket

            here, there = socket.socketpair()
            rig.writer = there.detach()
            here.close()
        else:
            os.close(rig.console)
        fd = rig.open("web", "both")
        for _ in range(10):
            await asyncio.to_thread(os.write, fd, b"a line\n" * 5000)
        await rig.flush()
        ticks = os.sysconf("SC_CLK_TCK")
        before = cpu(rig.pid)
        await asyncio.sleep(1)
        assert (cpu(rig.pid) - before) / ticks < 0.05, "it spins"
        assert b"".join(contents("web")) == b"a line\n" * 50000
        await rig.stop()

    isolated(body)


def cpu(pid: int) -> int:
    """Clock ticks that it has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.row(26)
def test_a_socket_that_nobody_reads_holds_up_nobody_and_is_not_changed() -> None:
    async def body(rig: LogRig) -> None:
        import socket

        here, there = socket.socketpair()
        rig.writer = there.fileno()
        fd = rig.open("web", "console")
        for _ in range(20):
            await asyncio.to_thread(os.write, fd, b"a line\n" * 10000)
        await rig.flush()
        assert there.getblocking()
        rig.console = here.detach()
        os.set_blocking(rig.console, False)
        await rig.expect("of web dropped: the console took no more]")
        await rig.stop()

    isolated(body)


@pytest.mark.row(26)
def test_what_waits_for_a_console_is_bounded() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", "console")
        await rig.flush()
        before = anonymous(rig.pid)
        for _ in range(50):
            await asyncio.to_thread(os.write, fd, b"\x1b" * 60_000 + b"\n")  # four bytes each when they are shown
        await rig.flush()
        assert anonymous(rig.pid) - before < 16 * ROOM
        await rig.stop()

    isolated(body)


FORGED = [
    b"\nlcinit: error: forged\n",
    b"\rlcinit: error: forged\n",
    b"\x0b\x0clcinit: forged\n",
    "\u2028lcinit: forged\n".encode(),
    "\x85lcinit: forged\n".encode(),
    b"\x85lcinit: forged\n",
    b"\x1b[2K\x1b[1Glcinit: forged\n",
    b"[lcinit: 5 lines of db dropped: forged]\n",
    b"x" * (LONGEST + 10) + b"\nlcinit: forged\n",
    b"db: forged\n",
    b'{"time": 1, "service": "db", "message": "forged"}\n',
]


@pytest.mark.row(35)
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_service_speaks_as_another_or_as_lcinit(form: str) -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", "console", format=form)
        for data in FORGED:
            await asyncio.to_thread(os.write, fd, data)
            await rig.flush()
            rig.shown()
        os.write(fd, b"no end")
        rig.close("web", fd)
        await rig.stop()
        lines = rig.shown().removesuffix("\n").split("\n")
        assert len(lines) >= len(FORGED) + 3
        for line in lines:
            assert re.fullmatch(r"[\t\x20-\x7e]*", line), repr(line[:100])
            if form == "text":
                assert line.startswith("web: ")
            else:
                assert json.loads(line)["service"] == "web"

    isolated(body)


@pytest.mark.row(24)
@pytest.mark.parametrize("name", [CURRENT, CURRENT + TIMES])
@pytest.mark.parametrize("kind", ["fifo", "device", "link to a fifo", "link to a device"])
def test_a_fifo_or_a_device_in_a_files_place_holds_up_neither_logger_nor_reader(kind: str, name: str) -> None:
    async def body(rig: LogRig) -> None:
        os.makedirs(directory("web"))
        node = "/var/log/node" if kind.startswith("link") else f"{directory('web')}/{name}"
        if kind.endswith("fifo"):
            os.mkfifo(node)
        else:
            os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(5, 1))
        if kind.startswith("link"):
            os.symlink(node, f"{directory('web')}/{name}")
        root = os.open("/", os.O_PATH)
        began = time.monotonic()
        log = ServiceLog(root, "web")
        assert list(log.lines(log.begin())) == []
        assert log.odd == ([name] if name == CURRENT else [])
        log.close()
        fd = rig.open("web")
        os.write(fd, b"kept\n")
        await rig.flush()
        assert time.monotonic() - began < 5
        assert contents("web") == [b"kept\n"]
        assert not stat.S_ISREG(os.lstat(f"{directory('web')}/{name}.odd").st_mode)
        log = ServiceLog(root, "web")
        assert [line for _, line, _ in log.lines(log.begin())] == [b"kept"]
        log.close()
        await rig.stop()

    isolated(body)


def without_capabilities() -> None:
    capabilities.set_capabilities(0, 0, 0)


@pytest.mark.row(5)
def test_the_logger_lends_nothing_of_the_outside_to_the_guest() -> None:
    async def body(rig: LogRig) -> None:
        kept = os.open("/etc/hostname", os.O_RDONLY)
        os.set_inheritable(kept, True)
        rig.open("web")
        await rig.flush()
        opened = [fd for fd in os.listdir(f"/proc/{rig.pid}/fd") if int(fd) > 2]
        held = {os.readlink(f"/proc/{rig.pid}/fd/{fd}").split(":")[0] for fd in opened}
        assert held == {"pipe", "socket", "anon_inode", "/proc"}  # the last is its own PID namespace's
        # a process of the same user, with the same capabilities, cannot look into it
        pid = os.fork()
        if pid == 0:
            without_capabilities()
            try:
                os.readlink(f"/proc/{rig.pid}/fd/1")
            except PermissionError:
                os._exit(0)
            os._exit(1)
        assert await asyncio.to_thread(os.waitpid, pid, 0) == (pid, 0)
        await rig.stop()

    isolated(body, before=without_capabilities)


@pytest.mark.row(56)
def test_a_file_of_somebody_elses_is_put_aside() -> None:
    async def body(rig: LogRig) -> None:
        plant(f"{directory('web')}/{CURRENT}", b"theirs\n")
        os.chown(f"{directory('web')}/{CURRENT}", 1000, 1000)
        fd = rig.open("web")
        os.write(fd, b"ours\n")
        await rig.flush()
        assert contents("web") == [b"ours\n"]
        await rig.stop()

    isolated(body)


def test_a_service_cannot_hold_up_the_logger_by_its_own_pipe() -> None:
    async def body(rig: LogRig) -> None:
        thief, quiet = rig.open("thief"), rig.open("quiet")
        await rig.flush()
        reader = os.open(f"/proc/self/fd/{thief}", os.O_RDONLY)  # its own pipe's other end
        fcntl.fcntl(thief, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(reader, False)
        os.kill(rig.pid, signal.SIGSTOP)
        os.write(thief, b"stolen\n")
        os.kill(rig.pid, signal.SIGCONT)
        for _ in range(2000):
            try:
                os.read(reader, 100)
            except BlockingIOError:
                pass
            os.write(thief, b"x\n")
        os.write(quiet, b"still here\n")
        await rig.flush()
        assert contents("quiet") == [b"still here\n"]
        await rig.stop()

    isolated(body)
