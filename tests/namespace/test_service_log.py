"""The logger process: files, rotation, its own end in the middle of it, disks that are full, what it costs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import re
import resource
import signal
import sys
import time
from collections.abc import Callable

import pytest

from lcinit.linux import mount
from lcinit.linux.calls import AT_FDCWD
from lcinit.service import log_source, log_writer
from lcinit.service.log_files import CURRENT, RECORD, TIMES, closing_time
from lcinit.service.log_lines import CUT, LONGEST
from tests.namespace.isolated import needs_root
from tests.namespace.service_log_rig import LogRig, contents, directory, files, isolated, plant

pytestmark = needs_root
MEBI = 1 << 20


def put(fd: int, data: bytes) -> None:
    """All of it; waits for the logger."""
    while data:
        data = data[os.write(fd, data) :]


def numbered(count: int, generator: random.Random) -> bytes:
    """So many lines, no two of them the same, some of them long."""
    lengths = [generator.choice([0, 5, 90, 90, 90, 3000]) for _ in range(count)]
    return b"".join(b"%d %s\n" % (number, b"x" * length) for number, length in enumerate(lengths))


def chunks(data: bytes, generator: random.Random) -> list[bytes]:
    """It, in pieces of any size."""
    pieces = []
    while data:
        size = generator.choice([1, 7, 100, 4096, 65536, 300_000])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def index(name: str) -> list[tuple[int, int]]:
    """That of its current file."""
    with open(f"{directory(name)}/{CURRENT}{TIMES}", "rb") as file:
        return list(RECORD.iter_unpack(file.read()))


def without(name: str) -> Callable[[], None]:
    """In the logger: the kernel refuses this call, as some filters do."""

    def refuse() -> None:
        def refused(*_args: object, **_options: object) -> int:
            raise OSError(errno.EINVAL if name == "splice" else errno.ENOSYS, "refused")

        if name == "splice":
            os.splice = refused
        elif name == "tee":
            log_source.tee = refused

    return refuse


@pytest.mark.parametrize("kind", ["file", "both", "limited", "file without splice", "both without tee"])
@pytest.mark.parametrize("seed", range(3))
def test_rotation_by_size_loses_and_doubles_nothing_and_cuts_no_line(kind: str, seed: int) -> None:
    generator = random.Random(seed)
    data = numbered(20_000, generator)
    pieces = chunks(data, generator)

    async def body(rig: LogRig) -> None:
        limit = {"rate_limit_burst": 10**9} if kind == "limited" else {}
        to = "both" if kind.startswith("both") else "file"
        fd = rig.open("web", to, max_size=100_000, max_files=1000, **limit)
        for piece in pieces:
            await asyncio.to_thread(put, fd, piece)
        rig.close("web", fd)
        await rig.stop()
        found = contents("web")
        assert b"".join(found) == data
        assert all(text.endswith(b"\n") for text in found)
        assert all(100_000 <= len(text) < 100_000 + 4000 for text in found[:-1])

    isolated(body, before=without(kind.partition(" without ")[2]))


def test_so_many_older_files_are_kept() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", max_size=1000, max_files=2)
        for number in range(100):
            os.write(fd, b"%099d\n" % number)
            await rig.flush()
        assert len(files("web")) == 3
        assert b"".join(contents("web")).startswith(b"%099d\n" % 70)
        assert b"".join(contents("web")).endswith(b"%099d\n" % 99)
        await rig.stop()

    isolated(body)


def test_rotation_by_age_needs_no_further_output() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", max_age=0.3)
        began = time.time()
        os.write(fd, b"first\n")
        await rig.flush()
        assert files("web") == [CURRENT]
        await rig.until(lambda: len(files("web")) == 2)
        assert 0.25 < (closing_time(files("web")[0]) or 0) / 1e9 - began < 3
        os.write(fd, b"second\n")
        await rig.flush()
        assert contents("web") == [b"first\n", b"second\n"]
        await rig.stop()

    isolated(body)


def test_a_file_that_was_old_before_the_logger_came_is_rotated_before_it_is_written_to() -> None:
    async def body(rig: LogRig) -> None:
        plant(f"{directory('web')}/{CURRENT}", b"old\n")
        plant(f"{directory('web')}/{CURRENT}{TIMES}", RECORD.pack(0, time.time_ns() - 100 * 10**9))
        fd = rig.open("web", max_age=50.0)
        os.write(fd, b"new\n")
        await rig.flush()
        assert contents("web") == [b"old\n", b"new\n"]
        await rig.stop()

    isolated(body)


def test_rotation_on_request_and_reopening() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web")
        os.write(fd, b"first\n")
        await rig.flush()
        rig.logger.rotate("web")
        await rig.flush()
        os.write(fd, b"second\n")
        await rig.flush()
        assert contents("web") == [b"first\n", b"second\n"]
        os.rename(f"{directory('web')}/{CURRENT}", f"{directory('web')}/moved")
        os.unlink(f"{directory('web')}/{CURRENT}{TIMES}")
        rig.logger.reopen()
        await rig.flush()
        os.write(fd, b"third\n")
        await rig.flush()
        assert contents("web") == [b"first\n", b"third\n"]
        await rig.stop()

    isolated(body)


def test_times_are_those_of_the_chunks() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web")
        moments = []
        for _ in range(3):
            before = time.time_ns()
            os.write(fd, b"a line\n")
            await rig.flush()
            moments.append((before, time.time_ns()))
            await asyncio.sleep(0.005)
        found = index("web")
        assert [offset for offset, _ in found] == [0, 7, 14]
        for (_, moment), (before, after) in zip(found, moments, strict=True):
            assert before <= moment <= after
        await rig.stop()

    isolated(body)


def test_the_index_of_one_who_writes_byte_by_byte_is_bounded() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", max_size=800, max_files=1)
        for _ in range(200):
            os.write(fd, b"\n")
            await rig.flush()
            await asyncio.sleep(0.001)
        sizes = [os.stat(f"{directory('web')}/{name}{TIMES}").st_size for name in files("web")]
        assert len(sizes) == 2
        assert max(sizes) <= 816
        await rig.stop()

    isolated(body)


@pytest.mark.row(38)
def test_a_logger_that_is_killed_loses_nothing_that_was_in_pipes() -> None:
    generator = random.Random(7)
    data = numbered(60_000, generator)
    less = data[: data.rfind(b"\n", 0, 500_000) + 1]

    async def body(rig: LogRig) -> None:
        fd = rig.open("web", max_size=200_000, max_files=1000)
        other = rig.open("other", "both", max_size=50_000, max_files=1000)
        writing = asyncio.create_task(asyncio.to_thread(put, fd, data))
        besides = asyncio.create_task(asyncio.to_thread(put, other, less))
        kills = 0
        while not (writing.done() and besides.done()) or kills < 3:
            await asyncio.sleep(0.01)
            if kills < 12:
                rig.kill()
                kills += 1
                rig.logger._back_off.failures = 0  # the pauses are another test's
            rig.shown()
        rig.close("web", fd)
        rig.close("other", other)
        await rig.stop()
        assert b"".join(contents("web")) == data
        assert b"".join(contents("other")) == less
        assert rig.logger.starts == kills + 1

    isolated(body)


@pytest.mark.row(38)
def test_what_a_service_said_last_is_taken_by_the_next_logger() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web")
        await rig.flush()
        os.kill(rig.pid, signal.SIGSTOP)
        os.write(fd, b"last words\n")
        rig.close("web", fd)
        await asyncio.sleep(0.05)
        rig.kill()
        await asyncio.sleep(0.05)
        await rig.flush()
        assert contents("web") == [b"last words\n"]
        assert rig.logger._pipes == {}
        await rig.stop()

    isolated(body)


def test_one_that_cannot_be_started_is_tried_again() -> None:
    async def body(rig: LogRig) -> None:
        start, attempts = rig.logger._start, 0

        def fails_once(channel: int) -> int:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return start(channel)

        rig.logger._start = fails_once
        fd = rig.open("web")
        os.write(fd, b"waits\n")
        await asyncio.sleep(1.3)
        await rig.flush()
        assert (attempts, contents("web")) == (2, [b"waits\n"])
        await rig.stop()

    isolated(body)


def test_one_that_keeps_ending_is_started_less_and_less_often() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web")
        rig.kill()
        await asyncio.sleep(0.1)
        assert rig.logger.starts == 2
        rig.kill()
        os.write(fd, b"waits\n")
        await asyncio.sleep(1.5)
        assert rig.logger.starts == 2
        await asyncio.sleep(1)
        assert rig.logger.starts == 3
        await rig.flush()
        assert contents("web") == [b"waits\n"]
        await rig.stop()

    isolated(body)


def test_pid_1_never_waits_for_a_logger_that_hangs() -> None:
    async def body(rig: LogRig) -> None:
        first = rig.open("first")
        await rig.flush()
        os.kill(rig.pid, signal.SIGSTOP)  # as if a disk held it up
        began = time.monotonic()
        descriptors = {f"s{number}": rig.open(f"s{number}") for number in range(300)}
        for name, fd in descriptors.items():
            os.write(fd, b"of %s\n" % name.encode())
        for name in list(descriptors)[::2]:
            rig.close(name, descriptors.pop(name))
        assert time.monotonic() - began < 1
        assert rig.logger.statistics["unsent"] > 0
        await asyncio.sleep(0.1)
        os.kill(rig.pid, signal.SIGCONT)
        await rig.flush()
        assert all(contents(f"s{number}") == [b"of s%d\n" % number] for number in range(300))
        assert rig.logger.statistics == {"open": 151, "starts": 1, "unsent": 0, "lost": 0}
        os.close(first)
        await rig.stop()

    isolated(body)


def test_pipes_that_a_hanging_logger_does_not_take_are_bounded() -> None:
    async def body(rig: LogRig) -> None:
        rig.open("first")
        await rig.flush()
        os.kill(rig.pid, signal.SIGSTOP)
        for _ in range(1100):
            rig.close("web", rig.open("web"))
        assert len(os.listdir("/proc/self/fd")) < 1100
        assert rig.logger.statistics["lost"] == 100
        os.kill(rig.pid, signal.SIGCONT)
        await rig.flush()
        assert len(rig.logger._pipes) == 1
        await rig.stop()

    isolated(body)


def test_descriptors_that_run_out_are_shared() -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    async def body(rig: LogRig) -> None:
        descriptors = [rig.open(f"s{number}") for number in range(60)]
        for turn in range(2):
            for number, fd in enumerate(descriptors):
                os.write(fd, b"%d of %d\n" % (turn, number))
            await asyncio.sleep(0.3)
            await rig.flush()
        for number in range(60):
            assert contents(f"s{number}") == [b"0 of %d\n1 of %d\n" % (number, number)]
        assert rig.shown() == ""
        await rig.stop()

    isolated(body, before=few)


def test_a_full_disk_is_told_once_and_survived() -> None:
    async def body(rig: LogRig) -> None:
        plant("/var/log/ballast", b"x" * (900 * 1024))
        fd = rig.open("web")
        await asyncio.to_thread(put, fd, b"%089d\n" % 1 * 5000)
        await rig.expect("the log of web cannot be written, and its lines are dropped: No space left on device]\n")
        began = time.monotonic()
        for _ in range(20):
            await asyncio.to_thread(put, fd, b"more\n" * 10_000)
        assert time.monotonic() - began < 5
        await rig.flush()
        await asyncio.sleep(1.1)
        await asyncio.to_thread(put, fd, b"more\n" * 10_000)  # it is tried again
        await rig.flush()
        assert rig.shown().count("cannot be written") == 1
        os.unlink("/var/log/ballast")
        await asyncio.sleep(1.1)
        os.write(fd, b"after\n")
        await rig.flush()
        rig.close("web", fd)
        await rig.stop()
        text = contents("web")[-1].decode()
        told = re.search(r"\n\[lcinit: (\d+) lines \((\d+) bytes\) dropped: No space left on device\]\nafter\n$", text)
        assert told, text[-300:]
        kept = text[: told.start() + 1]
        assert len(kept.removesuffix("\n")) + int(told[2]) in (450_000 + 21 * 50_000, 450_000 + 21 * 50_000 - 1)
        assert f"[lcinit: the log of web is written again, {told[1]} lines" in rig.shown()

    isolated(body, size="1m")


def test_a_read_only_disk_is_told_and_recovers() -> None:
    async def body(rig: LogRig) -> None:
        attributes = mount.MOUNT_ATTR_RDONLY
        mount.mount_setattr(AT_FDCWD, "/var/log", 0, attr_set=attributes)
        fd = rig.open("web")
        os.write(fd, b"lost\n")
        await rig.expect("the log of web cannot be written, and its lines are dropped: Read-only file system]\n")
        mount.mount_setattr(AT_FDCWD, "/var/log", 0, attr_clr=attributes)
        await asyncio.sleep(1.1)
        os.write(fd, b"kept\n")
        await rig.flush()
        assert contents("web") == [b"[lcinit: 1 line (5 bytes) dropped: Read-only file system]\nkept\n"]
        await rig.stop()

    isolated(body)


def test_one_full_disk_does_not_keep_the_console_from_showing_lines() -> None:
    async def body(rig: LogRig) -> None:
        plant(directory("web"), b"in the way")
        fd = rig.open("web", "both")
        os.write(fd, b"shown\n")
        await rig.expect("web: shown\n")
        await rig.expect("the log of web cannot be written, and its lines are dropped: openat2: Not a directory]\n")
        await rig.stop()

    isolated(body)


def test_lines_on_the_console_have_a_prefix_or_are_json() -> None:
    async def body(rig: LogRig) -> None:
        text, as_json = rig.open("web", "console"), rig.open("db", "console", format="json")
        os.write(text, b"one\ntw")
        os.write(as_json, b"one\n")
        await rig.flush()
        assert rig.shown().splitlines()[0] == "web: one"
        told = json.loads(rig.shown().splitlines()[1])
        assert (told["service"], told["message"]) == ("db", "one")
        assert abs(told["time"] - time.time()) < 5
        os.write(text, b"o\nno end")
        rig.close("web", text)
        await rig.flush()
        assert rig.shown().splitlines()[2:] == ["web: two", "web: no end"]
        assert os.listdir("/var/log") == []
        await rig.stop()

    isolated(body)


@pytest.mark.parametrize("services", [1, 100])
def test_a_console_whose_reader_keeps_at_it_misses_nothing(services: int) -> None:
    lines = 50_000 // services

    async def body(rig: LogRig) -> None:
        program = f"for n in range({lines}): print('line', n, 'of some that come faster than they are read')"
        os.set_blocking(rig.console, True)
        shown = os.open("/var/log/shown", os.O_RDWR | os.O_CREAT)
        reader = await asyncio.create_subprocess_exec("cat", stdin=rig.console, stdout=shown)
        running = []
        for number in range(services):
            fd = rig.open(f"s{number}", "console")
            running.append(await asyncio.create_subprocess_exec(sys.executable, "-ISc", program, stdout=fd))
            os.close(fd)
        for each in running:
            assert await each.wait() == 0
        for number in range(services):
            rig.logger.close(f"s{number}")
        await rig.until(lambda: not rig.logger._pipes)
        await rig.stop()
        os.close(rig.writer)
        assert await reader.wait() == 0
        found = os.pread(shown, 10 * MEBI, 0).decode().splitlines()
        for number in range(services):
            own = [line.split(" ", 3) for line in found if line.startswith(f"s{number}: ")]
            assert [int(line[2]) for line in own] == list(range(lines))
        assert len(found) == lines * services

    isolated(body)


def patiently() -> None:
    """In the logger: machines that are busy do not count."""
    log_writer.LAST_WORDS = 10.0


@pytest.mark.parametrize("stops", [False, True])
def test_what_services_say_last_waits_for_the_console_too(stops: bool) -> None:
    async def body(rig: LogRig) -> None:
        for number in range(30):
            fd = rig.open(f"s{number}", "console")
            os.write(fd, b"one of the last lines of a service that is stopped with all the others\n" * 900)
            rig.close(f"s{number}", fd)
        stop = asyncio.create_task(rig.stop()) if stops else None
        await rig.until(lambda: rig.read() >= 30 * 900)
        await rig.until(lambda: not rig.logger._pipes)
        await (stop or rig.stop())
        found = rig.shown().splitlines()
        assert [sum(line.startswith(f"s{number}: one") for line in found) for number in range(30)] == [900] * 30

    isolated(body, before=patiently)


def test_a_service_that_logs_to_a_file_too_does_not_wait_for_the_console() -> None:
    async def body(rig: LogRig) -> None:
        async def read_slowly() -> None:
            while True:
                await asyncio.sleep(0.2)
                try:
                    os.read(rig.console, 4096)
                except BlockingIOError:
                    pass

        fd = rig.open("web", "both", max_size=100 * MEBI)
        await rig.flush()
        reading = asyncio.create_task(asyncio.to_thread(put, fd, b"a line of a service that says a lot\n" * 100_000))
        slow = asyncio.create_task(read_slowly())
        await reading
        slow.cancel()
        await rig.flush()
        assert len(contents("web")[0]) == 3_600_000
        await rig.expect("of web dropped: the console took no more]")
        await rig.stop()

    isolated(body)


def test_a_policy_may_change_while_it_runs() -> None:
    from lcinit.config.service_values import ServiceLog

    async def body(rig: LogRig) -> None:
        fd = rig.open("web", "console")
        os.write(fd, b"shown\nbegun")
        await rig.flush()
        rig.logger.settings("web", ServiceLog(to="file"))
        await rig.flush()
        os.write(fd, b" and kept\n")
        await rig.flush()
        assert rig.shown() == "web: shown\nweb: begun\n"
        assert contents("web") == [b" and kept\n"]
        rig.logger.settings("web", ServiceLog(to="none"))
        await rig.flush()
        os.write(fd, b"x" * MEBI)
        await rig.flush()
        assert contents("web") == [b" and kept\n"]
        await rig.stop()

    isolated(body)


def test_nothing_at_all_needs_no_logger() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", "none")
        assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
        assert not os.get_inheritable(fd)
        rig.close("web", fd)
        assert rig.logger.starts == 0
        await rig.logger.stop()

    isolated(body)


@pytest.mark.parametrize("to", ["file", "console", "both"])
def test_too_many_lines_are_dropped_and_counted_when_their_time_is_over(to: str) -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", to, rate_limit_burst=3, rate_limit_interval=0.5)
        for number in range(10):
            os.write(fd, b"%d\n" % number)
        await rig.flush()
        mark = "dropped: more than 3 in 0.5 s]\n"
        if to != "console":
            assert contents("web") == [b"0\n1\n2\n"]
            await rig.until(lambda: f"7 lines {mark}".encode() in contents("web")[0])  # without a further line: a timer
        if to != "file":
            await rig.expect(f"web: 0\nweb: 1\nweb: 2\n[lcinit: 7 lines of web {mark}")
        os.write(fd, b"again\n")
        await rig.flush()
        if to != "console":
            assert contents("web") == [f"0\n1\n2\n[lcinit: 7 lines {mark}again\n".encode()]
        if to != "file":
            await rig.expect("web: again\n")
        await rig.stop()

    isolated(body)


def test_a_run_begins_with_a_line_of_its_own() -> None:
    async def body(rig: LogRig) -> None:
        for text in (b"no end", b"next\n"):
            fd = rig.open("web")
            os.write(fd, text)
            rig.close("web", fd)
            await rig.flush()
        assert contents("web") == [b"no end\nnext\n"]
        await rig.stop()

    isolated(body)


def test_a_service_that_stays_behind_is_not_waited_for() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web")
        left = os.dup(fd)  # as of a process that has outlived its service
        os.write(fd, b"in time\n")
        rig.close("web", fd)
        await rig.flush()
        await rig.until(lambda: not rig.logger._pipes)
        assert contents("web") == [b"in time\n"]
        with pytest.raises(BrokenPipeError):
            os.write(left, b"too late\n")
        await rig.stop()

    isolated(body)


def test_a_process_that_stays_behind_and_goes_on_writing_is_not_waited_for() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", max_size=MEBI, max_files=1)
        left = await asyncio.create_subprocess_exec("yes", stdout=fd)
        await asyncio.sleep(0.1)
        rig.close("web", fd)
        await rig.until(lambda: not rig.logger._pipes)
        assert await left.wait() != 0
        await rig.stop()

    isolated(body)


def test_pipes_are_such_that_services_wait_and_the_logger_does_not() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web")
        (pipe,) = rig.logger._pipes.values()
        assert (os.get_blocking(fd), os.get_blocking(pipe.reader)) == (True, False)
        assert not os.get_inheritable(fd)
        assert not os.get_inheritable(pipe.reader)
        rig.close("web", fd)
        await rig.stop()

    isolated(body)


def test_a_line_whose_rest_is_too_much_is_ended() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", "both", rate_limit_burst=1, rate_limit_interval=0.5)
        os.write(fd, b"x" * LONGEST)
        await rig.flush()
        await asyncio.to_thread(put, fd, b"the rest of it, which counts again\n")
        await rig.expect("1 line of web dropped: more than 1 in 0.5 s]\n")
        os.write(fd, b"next\n")
        await rig.expect("web: next\n")
        mark = "dropped: more than 1 in 0.5 s]\n"
        assert rig.shown() == f"web: {'x' * LONGEST}{CUT}\n[lcinit: 1 line of web {mark}web: next\n"
        assert contents("web") == [f"{'x' * LONGEST}\n[lcinit: 1 line {mark}next\n".encode()]
        await rig.stop()

    isolated(body)


def test_the_end_takes_all_that_was_written() -> None:
    async def body(rig: LogRig) -> None:
        descriptors = [rig.open(f"s{number}") for number in range(20)]
        for fd in descriptors:
            os.write(fd, b"x" * 60_000)
        await rig.stop()
        assert all(contents(f"s{number}") == [b"x" * 60_000 + b"\n"] for number in range(20))

    isolated(body)


def test_the_end_does_not_wait_for_a_logger_that_hangs() -> None:
    async def body(rig: LogRig) -> None:
        rig.open("web")
        await rig.flush()
        os.kill(rig.pid, signal.SIGSTOP)
        began = time.monotonic()
        await rig.logger.stop(0.3)
        assert 0.2 < time.monotonic() - began < 2
        assert rig.logger._pipes == {}
        os.kill(rig.pid, signal.SIGKILL)
        rig.reap()

    isolated(body)


def switches(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        found = dict(line.split(":", 1) for line in file)
    return int(found["voluntary_ctxt_switches"]) + int(found["nonvoluntary_ctxt_switches"])


def test_nothing_wakes_it_when_nothing_comes() -> None:
    async def body(rig: LogRig) -> None:
        descriptors = [rig.open(f"s{number}", "both", max_age=3600.0) for number in range(20)]
        for fd in descriptors:
            os.write(fd, b"a line\n")
        await rig.flush()
        await asyncio.sleep(0.2)
        before = switches(rig.pid)
        await asyncio.sleep(2)
        assert switches(rig.pid) == before
        for fd in descriptors:
            os.close(fd)  # pipes without writers are "ready" for ever
        await asyncio.sleep(0.2)
        before = switches(rig.pid)
        await asyncio.sleep(1)
        assert switches(rig.pid) == before
        await rig.stop()

    isolated(body)


def private(pid: int) -> int:
    """KiB that only this process has."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        found = dict(line.split(":", 1) for line in file if ":" in line)
    return int(found["Private_Dirty"].split()[0]) + int(found["Private_Clean"].split()[0])


def test_two_hundred_services_cost_it_little() -> None:
    async def body(rig: LogRig) -> None:
        descriptors = [rig.open("s0")]
        await rig.flush()
        before = private(rig.pid)
        descriptors += [rig.open(f"s{number}", "both") for number in range(1, 200)]
        for _ in range(20):
            for fd in descriptors:
                os.write(fd, b"a line of output\n" * 50)
            await rig.flush()
            rig.shown()
        assert private(rig.pid) - before < 200 * 16
        await rig.stop()

    isolated(body)


def test_a_line_without_end_is_rotated_all_the_same() -> None:
    async def body(rig: LogRig) -> None:
        fd = rig.open("web", max_size=100_000, max_files=1000)
        await asyncio.to_thread(put, fd, b"x" * (2 * MEBI))
        rig.close("web", fd)
        await rig.stop()
        assert b"".join(contents("web")) == b"x" * (2 * MEBI) + b"\n"
        assert max(len(text) for text in contents("web")) <= 100_000 + 2 * LONGEST

    isolated(body)
