"""Services that write a line to a descriptor of their own when they are ready, as s6 has it."""

from __future__ import annotations

import asyncio
import time

import pytest

from lcinit.service.ready_fd import MOST, ReadyFd
from tests.hostile.attempt import BOTH_LOOPS
from tests.namespace.isolated import needs_root
from tests.namespace.readiness_rig import as_pid1, ended, started, until

pytestmark = needs_root


class Service:
    """A shell whose descriptor 3 is the pipe. `words` has what was called."""

    def __init__(self, script: str) -> None:
        self.words: list[str] = []
        self.pipe = ReadyFd(lambda: self._called("ready"), lambda: self._called("closed"))
        fd = self.pipe.writer
        command = f"exec 3>&{fd}; exec {fd}>&-; {script}" if fd != 3 else script
        self.process = started("bash", "-c", command, pass_fds=(fd,))
        self.pipe.handed()

    def _called(self, word: str) -> None:
        assert self.pipe.writer == -1
        self.words.append(word)

    async def over(self) -> int:
        self.process.kill()
        return await ended(self.process)


@pytest.mark.parametrize("loop", BOTH_LOOPS)
@pytest.mark.parametrize(
    "script",
    [
        "echo >&3; exec 3>&-; sleep 100",
        "echo ready >&3; sleep 100",
        "printf half >&3; sleep 0.1; printf 'more\\nrest' >&3; sleep 100",
        "(sleep 0.1; echo >&3) & sleep 100",
    ],
)
def test_the_first_newline_says_that_it_is_ready(script: str, loop: str) -> None:
    async def body() -> None:
        service = Service(script)
        await until(lambda: service.words, "readiness")
        await asyncio.sleep(0.05)
        assert service.words == ["ready"]
        await service.over()

    as_pid1(body, loop)


@pytest.mark.parametrize("script", ["printf half >&3; sleep 0.1", "true", "printf half >&3; exec 3>&-; sleep 100"])
def test_who_closes_it_without_a_newline_will_not_be_ready_that_way(script: str) -> None:
    async def body() -> None:
        service = Service(script)
        await until(lambda: service.words, "the end")
        assert service.words == ["closed"]
        await service.over()

    as_pid1(body)


def test_a_child_that_holds_it_open_may_still_say_so() -> None:
    async def body() -> None:
        service = Service("sleep 0.3 & exit 0")
        assert await ended(service.process) == 0
        await asyncio.sleep(0.1)
        assert service.words == []
        await until(lambda: service.words, "the end")
        assert service.words == ["closed"]

    as_pid1(body)


@pytest.mark.parametrize("loop", BOTH_LOOPS)
def test_a_stream_without_a_newline_is_given_up(loop: str) -> None:
    async def body() -> None:
        service = Service("exec tr '\\0' x </dev/zero >&3")
        await until(lambda: service.words, "the end")
        assert service.words == ["closed"]
        assert await ended(service.process) != 0  # SIGPIPE: nobody reads it
        quiet = Service(f"head -c {MOST - 512} /dev/zero | tr '\\0' x >&3; echo >&3; sleep 100")
        await until(lambda: quiet.words, "readiness")
        assert quiet.words == ["ready"]
        await quiet.over()

    as_pid1(body, loop)


def test_a_wake_up_for_nothing_is_no_wait() -> None:
    """The service can open its end for reading, and take away what the loop was woken for (proc_pid_fd(5))."""

    async def body() -> None:
        service = Service("sleep 100")
        began = time.monotonic()
        service.pipe._readable()
        assert time.monotonic() - began < 1
        assert service.words == []
        service.pipe.close()
        await service.over()

    as_pid1(body, timeout=10)


def test_it_says_nothing_after_the_start_is_over() -> None:
    async def body() -> None:
        service = Service("sleep 0.1; echo >&3; sleep 100")
        service.pipe.close()
        service.pipe.close()
        await asyncio.sleep(0.3)
        assert service.words == []
        await service.over()
        unborn = ReadyFd(lambda: None, lambda: None)  # never handed to anybody
        unborn.close()
        unborn.handed()

    as_pid1(body)
