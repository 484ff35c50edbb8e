"""What processes a container has, looked at from outside."""

from __future__ import annotations

import os
import time

from tests.services.rig import Guest


def running(guest: Guest, text: str) -> list[int]:
    """Those that have `text` among their arguments and have not ended, as the container numbers them."""
    found = []
    for pid in os.listdir(guest.path("/proc")):
        if not pid.isdigit() or pid == "1":
            continue
        try:
            with open(guest.path(f"/proc/{pid}/cmdline"), "rb") as file:
                if text.encode() in file.read():
                    found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def none_left(guest: Guest, text: str, seconds: float = 3) -> None:
    """Wait until there are none of these."""
    deadline = time.monotonic() + seconds
    while found := running(guest, text):
        assert time.monotonic() < deadline, f"{found} are left\n{guest.console()}"
        time.sleep(0.02)
