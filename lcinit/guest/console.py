"""The guest's console on the loop: its pty relayed to PID 1's own streams, kept for a while, and shared with others.

The relay itself never blocks and keeps bounded memory (control.relay). Its edge-triggered epoll set is one descriptor
to the loop, under asyncio and uvloop alike.
"""

from __future__ import annotations

import asyncio
import os
import select
import termios
import time

from lcinit import log
from lcinit.control.relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable
    from typing import Any

SCROLLBACK = 64 * 1024  # bytes of output kept for those who come later
LAST_WORDS = 1.0  # seconds for a dead guest's last output to reach a console that is slow


class Tap:
    """One more reader of the console, until it is closed."""

    def __init__(self, console: Console, write: Callable[[bytes], object]) -> None:
        self.write = write
        self._console = console

    def close(self) -> None:
        """Hear nothing more."""
        self._console.taps.discard(self)


class Console:
    """The console of all starts of one guest. `attach` gives it a start's pty, `detach` takes it away."""

    def __init__(self) -> None:
        self.taps: set[Tap] = set()
        self._kept = bytearray()
        self._relay: Relay | None = None
        self._master = -1
        self._poll: select.epoll | None = None
        self._timer: TimerHandle | None = None
        self._terminal = _terminal_settings()

    @property
    def attached(self) -> bool:
        """Whether a pty is relayed now."""
        return self._relay is not None

    def attach(self, master: int, held: tuple[bytes, bytes] = (b"", b"")) -> None:
        """Relay this pty's master, which belongs to the console from now on. Needs the loop.

        `held` is what another relay of it had read.
        """
        self.detach()
        self._master = master
        self._relay = Relay(master, 0, 1, self._output)
        self._relay.hold(*held)
        self._poll = select.epoll()
        self._relay.register(self._poll)
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._ready)
        if self._terminal:
            log.set_raw_terminal(True)
        self._pump()

    def facts(self) -> dict[str, Any]:
        """All but the pty itself, for an lcinit that takes over, as JSON types."""
        output, entered = self._relay.held() if self._relay is not None else (b"", b"")
        return {
            "terminal": {str(fd): [*each[:6], [_number(c) for c in each[6]]] for fd, each in self._terminal.items()},
            "scrollback": self._kept.decode("latin-1"),
            "output": output.decode("latin-1"),
            "input": entered.decode("latin-1"),
        }

    def master(self) -> int:
        """The pty's master; -1 where none is attached."""
        return self._master

    def take_over(self, facts: dict[str, Any], master: int) -> None:
        """Go on as the console that told these facts; `master` is its pty's, -1 for none. Needs the loop."""
        self._terminal = {int(fd): [*each[:6], [bytes([c]) for c in each[6]]] for fd, each in facts["terminal"].items()}
        self._kept += facts["scrollback"].encode("latin-1")
        if master >= 0:
            self.attach(master, (facts["output"].encode("latin-1"), facts["input"].encode("latin-1")))

    def detach(self) -> None:
        """Close the pty: whoever still has the other end in the guest is hung up."""
        if self._relay is None or self._poll is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._poll.close()
        self._relay.close()
        os.close(self._master)
        self._relay, self._poll, self._master = None, None, -1

    async def drain(self) -> None:
        """Let what the guest wrote before its end reach the console, as far as that takes it within a second."""
        deadline = time.monotonic() + LAST_WORDS
        while self._relay is not None and not self._relay.drained() and time.monotonic() < deadline:
            self._pump()
            await asyncio.sleep(0.005)

    def restore(self) -> None:
        """Give the terminal back the settings it had."""
        for fd, settings in self._terminal.items():
            try:
                termios.tcsetattr(fd, termios.TCSANOW, settings)
            except (OSError, termios.error):
                continue  # hung up: there is nobody to see it
        log.set_raw_terminal(False)

    def resize(self) -> None:
        """The manager's terminal has another size now."""
        if self._relay is not None:
            self._relay.copy_window_size()

    def set_size(self, rows: int, columns: int) -> None:
        """Have the guest's terminal this size."""
        if self._relay is not None:
            self._relay.set_window_size(rows, columns)

    def tap(self, write: Callable[[bytes], object]) -> Tap:
        """Have `write` called with every piece of output from now on."""
        tap = Tap(self, write)
        self.taps.add(tap)
        return tap

    def scrollback(self) -> bytes:
        """The last output, up to 64 KiB."""
        return bytes(self._kept)

    def type(self, data: bytes) -> int:
        """Type at the guest's console; how many bytes were taken, which may be fewer while it does not read."""
        if self._relay is None:
            return 0
        taken = self._relay.type(data)
        self._pump()
        return taken

    def _output(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-SCROLLBACK]
        for tap in tuple(self.taps):
            try:
                tap.write(data)
            except Exception as error:
                tap.close()
                log.warning(f"a reader of the console was dropped: {type(error).__name__}: {error}")

    def _ready(self) -> None:
        if self._poll is None or self._relay is None:
            return
        for fd, events in self._poll.poll(0):
            self._relay.ready(fd, events)
        self._pump()

    def _pump(self) -> None:
        """Move what there is; come back at once when there may be more, or when output begins to be dropped."""
        if self._relay is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        if self._relay.pump(now):
            delay = 0.0
        elif self._relay.due is not None:
            delay = max(0.0, self._relay.due - now)
        else:
            return
        self._timer = asyncio.get_running_loop().call_later(delay, self._pump)


def _number(character: bytes | int) -> int:
    return character if isinstance(character, int) else character[0]


def _terminal_settings() -> dict[int, Any]:
    settings = {}
    for fd in (0, 1):
        try:
            settings[fd] = termios.tcgetattr(fd)
        except (OSError, termios.error):
            continue
    return settings
