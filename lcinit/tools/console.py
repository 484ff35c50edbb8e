"""`console`: the guest's own console, shown on this terminal until the keys that detach it."""

from __future__ import annotations

import os

from lcinit.control.client import Client
from lcinit.errors import LcinitError
from lcinit.guest.flow import Flow, KeyFlow, Stream, wait
from lcinit.guest.session import Terminal
from lcinit.linux import process, signals
from lcinit.tools.inject import have_streams

_ENDING = (signals.SIGHUP, signals.SIGINT, signals.SIGTERM, signals.SIGQUIT)
_HANDLED = (*_ENDING, signals.SIGWINCH, signals.SIGTSTP, signals.SIGCONT)
_DETACHED, _CLOSED = "detached", "lcinit closed the console"


def console(path: str) -> tuple[int, str]:
    """Show the console behind a control socket: the exit code, and in a word why it is over.

    Standard input need not be a terminal; what it holds is typed then, and its end ends nothing.
    """
    have_streams()
    with Client(path) as client:
        connection, received = client.upgrade("OpenConsole")
        connection.setblocking(False)
        mask = signals.set_mask(signals.get_mask() | signals.mask_of(_HANDLED))
        try:
            view = _View(connection.fileno(), received, path)
            try:
                return view.show()
            finally:
                view.close()
        finally:
            signals.set_mask(mask)


class _View:
    def __init__(self, connection: int, received: bytes, path: str) -> None:
        self.path = path
        self.size = (0, 0)
        self.signals = signals.SignalFd(_HANDLED)
        self.terminal = Terminal(0) if os.isatty(0) else None
        self.stdin, self.stdout = Stream(0, os.O_RDONLY), Stream(1, os.O_WRONLY)
        self.typed: Flow | None = (KeyFlow if self.terminal else Flow)(self.stdin.fd, connection)
        self.shown = Flow(connection, self.stdout.fd)
        self.shown.hold(received)
        self._take_terminal()

    def close(self) -> None:
        if self.terminal is not None:
            self.terminal.restore()
        self.stdin.close()
        self.stdout.close()
        self.signals.close()

    def _take_terminal(self) -> None:
        """Raw, and of one size with the guest's. An old size is no reason to end."""
        if self.terminal is None:
            return
        self.terminal.make_raw()
        try:
            size = process.get_window_size(0)
            if size != self.size and 0 not in size:
                self.size = size
                with Client(self.path) as client:
                    client.call("SetConsoleSize", rows=size[0], columns=size[1])
        except (OSError, LcinitError):
            pass

    def show(self) -> tuple[int, str]:
        while True:
            flows = [self.shown] if self.typed is None else [self.typed, self.shown]
            ready = wait(flows, [self.signals.fileno()], None)
            if self.typed is not None:
                self.typed.step(ready)
                if isinstance(self.typed, KeyFlow) and self.typed.escaped:
                    return 0, _DETACHED
                if self.typed.ended:
                    if self.terminal is not None and not self.typed.broken:
                        return 128 + signals.SIGHUP, ""
                    self.typed = None
            self.shown.step(ready)
            if self.shown.ended:
                return (0, "") if self.shown.broken else (0, _CLOSED)
            if self.signals.fileno() in ready:
                for signal in self.signals.read():
                    if signal.signo in _ENDING:
                        return 128 + signal.signo, ""
                    self._job_control(signal.signo)

    def _job_control(self, number: int) -> None:
        if number == signals.SIGTSTP:
            if self.terminal is not None:
                self.terminal.restore()
            os.kill(os.getpid(), signals.SIGSTOP)
        self._take_terminal()
