"""What is to run in a guest, and the messages between the process that asks for it and the one that enters.

A message is one packet: a letter, and what belongs to it.
"""

from __future__ import annotations

import struct

from lcinit.record import Record

FAILED = b"F"  # from the middle: exit code and text; nothing runs
STREAMS = b"S"  # from the middle: the names of the streams' outer ends, which come along
GO = b"G"  # from the caller: the streams are as the command should find them
RUNNING = b"R"  # from the middle: the command's program has been executed
ENDED = b"X"  # from the middle: the wait status
SIGNAL = b"K"  # from the caller: a signal for the command's process group

FAILED_HEAD = struct.Struct("=cB")
ENDED_FORM = struct.Struct("=ci")
SIGNAL_FORM = struct.Struct("=cB")
LARGEST = 8192


class Order(Record):
    """What to run. `argv` empty is the user's login shell; `terminal` gives it a terminal of the guest's.

    `separate_errors`: standard error is a pipe of its own even with a terminal. `environment` is what the caller
    chooses (TERM, container); the rest comes from the guest's own account of the user.
    """

    argv: tuple[str, ...] = ()
    user: str | int = "root"
    terminal: bool = False
    separate_errors: bool = False
    environment: tuple[tuple[str, str], ...] = ()
