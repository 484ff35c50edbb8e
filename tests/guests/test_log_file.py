"""log.file beside a nested guest: complete, and no reason for PID 1 to wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from lcinit import log
from lcinit.guest.logfile import ROOM, LogFile
from tests.lab.container import Container

CONFIG = """\
log: {file: /mnt/log/lcinit.log, format: json}
exec: {mode: tolerant, on_exit: restart, command: [/bin/sh, -c, 'trap "exit 3" TERM; echo up; sleep 0.2; exit 5']}
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_line_from_the_first_to_the_last_is_in_the_file(
    loop: str, boot_root: str, guest_copy: Callable[..., str], container: Callable[..., Container], tmp_path: object
) -> None:
    os.mkdir(f"{tmp_path}/log")
    running = container("unshare").start(
        boot_root,
        guest_root=guest_copy("plain"),
        config=CONFIG,
        binds=[(f"{tmp_path}/log", "/mnt/log")],
        env={"LCINIT_EVENT_LOOP": loop},
    )
    running.expect(r"^up\r?$(.|\n)*^up", 20)  # started again, with the writer's thread beside the fork
    os.kill(running.pid1(), 15)
    running.wait(20)
    with open(f"{tmp_path}/log/lcinit.log", encoding="utf-8") as file:
        lines = file.read().splitlines()
    said = [line.split('"message": ')[1] for line in lines]
    assert any("exec /bin/sh" in each for each in said), said
    assert any("is started again" in each for each in said), said
    assert any("poweroff was asked for" in each for each in said), said


async def test_a_disk_that_takes_no_more_holds_up_nothing_and_is_counted() -> None:
    reader, writer = os.pipe()  # blocking, and nobody reads
    file = LogFile(writer)
    file.start()
    try:
        began = time.monotonic()
        line = b"x" * 1000 + b"\n"
        for _ in range(1000):
            file.write(line)
        await asyncio.sleep(0)
        assert time.monotonic() - began < 1
        assert file.dropped >= (1000 * len(line) - ROOM) // len(line) - 1
        began = time.monotonic()
        await file.drain()
        assert 0.9 < time.monotonic() - began < 3
    finally:
        file.close()
        os.set_blocking(reader, False)
        while True:  # the thread's write must end, or the interpreter's would wait for it
            try:
                os.read(reader, 1 << 20)
            except BlockingIOError:
                if file._task is not None and file._task.done():
                    break
            await asyncio.sleep(0.01)
        os.close(reader)
        os.close(writer)


async def test_a_file_that_cannot_be_written_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(log, "warning", warned.append)
    full = os.open("/dev/full", os.O_WRONLY)
    file = LogFile(full)
    file.start()
    try:
        for _ in range(3):
            file.write(b"a line\n")
            await file.drain()
        assert file.dropped == 3
        assert len(warned) == 1
        assert "No space left" in warned[0]
    finally:
        file.close()
        os.close(full)
