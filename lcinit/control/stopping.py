"""When PID 1 is sent the signal that a stop request means. Pure: time and what PID 1 listens to are arguments.

A signal for which PID 1 has neither a handler nor a block is lost (pid_namespaces(7)), and an init that has just been
started has neither for its first milliseconds. So a request is held until PID 1 listens.

States: idle (`due` is None) → asked → idle. While asked, each step finds PID 1 listening (send once, idle), or not:
then look again, at growing intervals, until patience ends; the signal is then sent all the same. With `repeat`, for an
init that waits in sigtimedwait(2) and so shows neither handler nor block, each look that finds nothing also sends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE = 10.0  # seconds from a request until the signal is sent to a PID 1 that does not listen
FIRST_LOOK, LAST_LOOK = 0.005, 0.25  # seconds between looks at /proc/PID/status: doubled from the first to the last
REPEATS = (1.0, 2.0, 4.0)  # seconds between the signals that are sent blindly
# systemd takes seven ctrl-alt-dels within two seconds for an order to reboot at once: never send as fast
SEND_INTERVAL = 1.0


class StopRequests:
    """What was asked for and not sent yet. `signals` maps poweroff, halt and reboot to signal numbers.

    To this class they are just numbers: whoever has other means than signals numbers those.
    """

    def __init__(self, signals: Mapping[str, int], *, repeat: bool = False) -> None:
        self.word: str | None = None
        self.due: float | None = None
        self.unheard = False  # the last signal was sent though PID 1 did not listen
        self._signals = signals
        self._repeat = repeat
        self._asked_at = 0.0
        self._looks = 0
        self._sent_at = -SEND_INTERVAL

    def ask(self, word: str, now: float) -> bool:
        """Take a request; false when no signal is known for it. The latest word wins, once more it changes nothing."""
        if word not in self._signals:
            return False
        if word != self.word:
            self.word, self._asked_at, self._looks = word, now, 0
            self.due = max(now, self._sent_at + SEND_INTERVAL)
        return True

    def step(self, now: float, listens: Callable[[int], bool]) -> int | None:
        """The signal to send now, None for none. Call it again when `due` has come.

        `listens(signal)` says whether PID 1 catches or blocks the signal.
        """
        if self.word is None or self.due is None or now < self.due:
            return None
        signal = self._signals[self.word]
        if listens(signal):
            self.unheard = False
            return self._send(signal, now, done=True)
        if self._repeat:
            self.unheard = self._looks >= len(REPEATS)
            done = self.unheard
            if not done:
                self.due = now + REPEATS[self._looks]
                self._looks += 1
            return self._send(signal, now, done=done)
        if now - self._asked_at >= PATIENCE:
            self.unheard = True
            return self._send(signal, now, done=True)
        self.due = now + min(FIRST_LOOK * 2**self._looks, LAST_LOOK)
        self._looks = min(self._looks + 1, 16)
        return None

    def drop(self) -> None:
        """Forget what was asked for and not sent yet."""
        self.word = self.due = None

    def _send(self, signal: int, now: float, *, done: bool) -> int:
        self._sent_at = now
        if done:
            self.drop()
        return signal


def listens(status: str, signal: int) -> bool:
    """Whether SigBlk or SigCgt of a /proc/PID/status text (proc_pid_status(5)) holds the signal."""
    for line in status.splitlines():
        name, _, mask = line.partition(":")
        if name in ("SigBlk", "SigCgt") and int(mask, 16) >> (signal - 1) & 1:
            return True
    return False
