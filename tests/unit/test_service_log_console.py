"""The console of the logger: where it says what is missing."""

from __future__ import annotations

import os
import select

from lcinit.service.log_console import ROOM, Console, notice


def read_all(fd: int) -> bytes:
    data = b""
    try:
        while piece := os.read(fd, 1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


def test_what_is_missing_is_told_where_it_is_missing() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    console = Console(writer, select.epoll(), os.open("/proc", os.O_PATH))
    line = b"web: " + b"x" * 94 + b"\n"
    given = 0
    while console.has_room(len(line)):
        console.put(line, "web")
        given += 1
    console.flush()  # the pipe is full
    while console.has_room(len(line)):
        console.put(line, "web")
        given += 1
    console.put(line, "web")
    console.put(line + line, "db", 2)
    shown = read_all(reader)
    console.flush()
    console.put(b"web: later\n", "web")
    while more := read_all(reader):
        shown += more
        console.flush()
    missing = [
        notice("1 line of web dropped: the console took no more"),
        notice("2 lines of db dropped: the console took no more"),
    ]
    assert given > ROOM // len(line)
    assert shown == line * given + b"".join(missing) + b"web: later\n"
    assert console.dropped == 3


def test_a_line_of_any_length_is_shown_where_nothing_waits() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    console = Console(writer, select.epoll(), os.open("/proc", os.O_PATH))
    line = b"x" * (2 * ROOM) + b"\n"
    console.put(line, "web")
    console.put(b"y\n", "web")
    shown = b""
    console.flush()
    while more := read_all(reader):
        shown += more
        console.flush()
    assert shown == line + notice("1 line of web dropped: the console took no more")


def test_another_console_is_used_from_then_on() -> None:
    first, second = os.pipe(), os.pipe()
    for reader, _ in (first, second):
        os.set_blocking(reader, False)
    console = Console(first[1], select.epoll(), os.open("/proc", os.O_PATH))
    console.put(b"a\n", "web")
    console.flush()
    console.use(second[1])
    os.close(second[1])
    console.put(b"b\n", "web")
    console.flush()
    assert (read_all(first[0]), read_all(second[0])) == (b"a\n", b"b\n")
    console.use(-1)
    console.put(b"c\n", "web")
    assert console.dropped == 1
