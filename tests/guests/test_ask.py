"""Every guest's init asked in its own words, from the first instant of its life, and what ends it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from lcinit.guest.ask import Asker
from lcinit.linux.process import set_dumpable
from tests.guests import nested_rig
from tests.lab import guests
from tests.namespace.isolated import needs_root, run_isolated

pytestmark = needs_root

OFF, AGAIN = -signal.SIGINT, -signal.SIGHUP
TRAP = ("/bin/sh", "-c", "trap 'exit 7' TERM; echo trapping; while :; do sleep 0.1; done")

#: guest → how PID 1 ends when asked for poweroff or halt, and for reboot; seconds that it may take
ENDS = {
    "systemd252": (OFF, AGAIN, 6),
    "systemd257": (OFF, AGAIN, 6),
    "systemd262": (OFF, AGAIN, 6),
    "sysvinit": (OFF, AGAIN, 10),
    "busybox": (OFF, AGAIN, 8),
    "runit": (OFF, AGAIN, 12),
    "runit-etc": (OFF, AGAIN, 12),
    "openrc": (OFF, AGAIN, 15),
    "finit": (OFF, AGAIN, 8),
    "s6": (0, 0, 4),
    "plain": (7, 7, 4),
}


@pytest.fixture
def leaf() -> Iterator[str]:
    with nested_rig.cgroup_leaf() as directory:
        yield directory


def ask_and_wait(guest: nested_rig.Nested, word: str, timeout: float) -> tuple[list[tuple[str, str]], int | None]:
    """The answers that came, and how PID 1 ended."""

    async def asked() -> tuple[list[tuple[str, str]], int | None]:
        loop = asyncio.get_running_loop()
        answers: list[tuple[str, str]] = []
        asker = Asker(guest, (), loop, lambda _word, answer, detail: answers.append((answer, detail)))
        ended = asyncio.Event()
        loop.add_reader(guest.pidfd, ended.set)
        answers.append(asker.ask(word))
        try:
            await asyncio.wait_for(ended.wait(), timeout)
        except TimeoutError:
            pass
        loop.remove_reader(guest.pidfd)
        asker.close()
        return answers, guest.ended(0)

    return asyncio.run(asked())


@pytest.mark.parametrize(("word", "moment"), [("poweroff", 0), ("halt", 0.03), ("reboot", 0.2)])
@pytest.mark.parametrize("name", sorted(ENDS))
def test_an_init_that_has_just_begun_ends_as_it_was_asked(name: str, word: str, moment: float, leaf: str) -> None:
    """At some moment (seconds) of its boot. One that is up is asked in test_matrix, by lcinit itself."""
    guests.guest(name)
    off, again, timeout = ENDS[name]

    def body() -> None:
        set_dumpable(False)  # as lcinit is
        guest = nested_rig.start(name, leaf, TRAP if name == "plain" else None)
        if name == "runit-etc":
            assert guest.init_kind == name
        time.sleep(moment)
        answers, status = ask_and_wait(guest, word, timeout)
        assert answers[-1][0] == "sent", (answers, guest.console())
        assert status == (again if word == "reboot" else off), (answers, guest.console())

    run_isolated(body, pid=True, timeout=60)


def test_a_program_without_a_handler_is_known_as_deaf_within_a_second(leaf: str) -> None:
    guests.guest("plain")

    def body() -> None:
        set_dumpable(False)
        guest = nested_rig.start("plain", leaf, ("/bin/sleep", "1000000"))
        answers, status = ask_and_wait(guest, "poweroff", 1.5)
        assert [answer for answer, _ in answers] == ["held", "deaf"]
        assert status is None

    run_isolated(body, pid=True, timeout=30)
