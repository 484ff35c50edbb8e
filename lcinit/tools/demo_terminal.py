"""The caller's terminal and a fresh pty, joined: the guest never holds the caller's own terminal (CVE-2017-5226)."""

from __future__ import annotations

import os
import select
import signal
import termios

from lcinit.control.relay import make_raw
from lcinit.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_END_OF_FILE = b"\x04"  # VEOF of a new terminal (termios(3))
_CHUNK = 4096
_AGAIN = 0.2  # seconds of silence after the end of input until ctrl-D is typed


def relay(master: int, pidfd: int) -> None:
    """Pass bytes between standard input and output and the pty, both ways, until the process of `pidfd` has ended.

    A terminal is raw meanwhile, and gives its size to the pty. An end of input is passed on as ctrl-D.
    """
    terminal = os.isatty(0)
    before = termios.tcgetattr(0) if terminal else None
    try:
        if terminal:
            make_raw(0)

            def copy_size(_signo: int = 0, _frame: FrameType | None = None) -> None:
                rows, columns = process.get_window_size(0)
                process.set_window_size(master, rows, columns)

            copy_size()
            signal.signal(signal.SIGWINCH, copy_size)
        _copy(master, pidfd)
    finally:
        if before is not None:
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _copy(master: int, pidfd: int) -> None:
    watched = [0, master, pidfd]
    ended = False
    while True:
        ready = select.select(watched, [], [], _AGAIN if ended else None)[0]
        if 0 in ready:
            typed = os.read(0, _CHUNK)
            _write_all(master, typed)
            if not typed:
                watched.remove(0)
                ended = True
        if ended and not ready:
            # said again and again: one that comes while the shell changes the terminal's mode is lost
            _write_all(master, _END_OF_FILE)
        if master in ready:
            try:
                shown = os.read(master, _CHUNK)
            except OSError:
                return  # EIO: every process that held the slave has ended
            _write_all(1, shown)
        elif pidfd in ready:
            return


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
