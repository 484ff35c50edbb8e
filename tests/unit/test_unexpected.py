"""Mistakes of lcinit's own, wherever PID 1 may make them on its loop: one line each, and the loop goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from lcinit.errors import LcinitError
from lcinit.linux import signals
from lcinit.linux.signals import SignalInfo
from lcinit.supervisor import loop as loops
from lcinit.supervisor.chores import Chores
from lcinit.supervisor.reaper import Reaper
from lcinit.supervisor.watch import SignalStream


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    monkeypatch.setenv("LCINIT_EVENT_LOOP", request.param)
    made = loops.new_loop()
    yield made
    made.close()


def in_a_fork(body: Callable[[], None]) -> None:
    """Run it in a child: signals are blocked and children reaped there alone."""
    pid = os.fork()
    if pid == 0:
        try:
            signals.block_all()
            body()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def fail(*_: object) -> None:
    raise RuntimeError("unforeseen")


def test_in_a_callback_or_a_timer(loop: asyncio.AbstractEventLoop, capfd: pytest.CaptureFixture[str]) -> None:
    async def body() -> str:
        loop.call_soon(fail)
        Chores().later(0.001, fail)
        await asyncio.sleep(0.05)
        return "alive"

    assert loop.run_until_complete(body()) == "alive"
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("unexpected, on the event loop" in line and "RuntimeError: unforeseen" in line for line in lines)


def test_in_a_task(loop: asyncio.AbstractEventLoop, capfd: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        fail()

    async def body() -> None:
        await asyncio.wait((Chores().spawn(work()),))
        await asyncio.sleep(0)

    loop.run_until_complete(body())
    assert capfd.readouterr().err == "lcinit: error: unexpected, in PID 1: RuntimeError: unforeseen\n"


def test_timers_that_are_forgotten_do_not_come(loop: asyncio.AbstractEventLoop) -> None:
    called = []

    async def body() -> None:
        chores = Chores()
        chores.later(0.01, lambda: called.append("forgotten"))
        chores.forget_timers()
        chores.later(0.01, lambda: called.append("wanted"))
        await asyncio.sleep(0.05)

    loop.run_until_complete(body())
    assert called == ["wanted"]


def test_on_a_signal_and_at_the_end_of_a_child(
    loop: asyncio.AbstractEventLoop, capfd: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        reaper = Reaper()
        taken: list[int] = []

        def take(info: SignalInfo) -> None:
            taken.append(info.signo)
            if info.signo == signal.SIGUSR1:
                fail()
            if info.signo == signal.SIGWINCH:
                raise LcinitError("not now", hint="later")

        async def run() -> None:
            stream = SignalStream(reaper, take)
            stream.start()
            children = []
            for _ in range(3):
                pid = os.fork()
                if pid == 0:
                    os._exit(7)
                children.append(reaper.register(pid))
                children[-1].on_end = fail
            for number in (signal.SIGUSR1, signal.SIGWINCH, signal.SIGUSR2):
                os.kill(os.getpid(), number)
            async with asyncio.timeout(5):
                while len(taken) < 3 or any(child.status is None for child in children):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert [child.status for child in children] == [7, 7, 7]
            stream.stop()

        loop.run_until_complete(run())
        assert sorted(taken) == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH]

    in_a_fork(body)
    said = capfd.readouterr().err
    assert said.count("unexpected, on SIGUSR1: RuntimeError: unforeseen") == 1
    assert said.count("warning: SIGWINCH: not now; later") == 1
    assert said.count("unexpected, at the end of process") == 3
