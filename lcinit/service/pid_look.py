"""Looking for a PID file in a process of its own: the file is the guest's, who can make reading it take for ever.

It is forked by the spawner, and so imports what PID 1 has then: no event loop.
"""

from __future__ import annotations

import marshal
import os
import time

from lcinit.errors import LcinitError
from lcinit.service.pid_file import FIRST_LOOK, LAST_LOOK, NoPid, read_pid
from lcinit.supervisor.accounts import identity

PATIENCE = 5.0  # seconds after the parent's end in which the file has to name a process of the service
_ANSWER = 512


def run(descriptors: list[int]) -> int:
    """In the process: `descriptors` are the guest's root, the pipe for the answer, and a file with what to do.

    The answer is `PID UID` (the UID of the service's user) or `!why not`, whenever that changes; who asked ends this
    process once it has what it needs.
    """
    root, answer, orders = descriptors
    order = marshal.loads(os.pread(orders, 1 << 16, 0))
    said = ""
    pause = FIRST_LOOK
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            who = identity(root, order["user"], None)
            uid = 0 if who is None else who.uid
            now = f"{read_pid(root, order['path'], uid=uid, belongs=lambda _pid: True)} {uid}"
        except (NoPid, LcinitError) as error:
            now = f"!{error.message}"
        if now != said:
            said = now
            os.write(answer, f"{now[: _ANSWER - 1]}\n".encode("utf-8", "replace"))
        if time.monotonic() > deadline:
            return 0
        time.sleep(pause)
        pause = min(pause * 2, LAST_LOOK)
