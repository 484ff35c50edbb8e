"""Placeholder until the real one lands."""

from __future__ import annotations

from lcinit.linux.signals import signal_number
from lcinit.plan.inits import stop_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Asker:
    def __init__(self, guest: Any, overrides: Any, unheard: Any) -> None:
        self.guest = guest
        self.overrides = overrides
        self.unheard = unheard

    def ask(self, word: str) -> None:
        names = stop_signals(self.guest.init_kind, self.overrides)
        if word == "restart":
            word = "reboot"
        name = names.get(word) or names.get("poweroff")
        if name is None:
            self.unheard("no word")
            return
        self.guest.signal(signal_number(name))

    def close(self) -> None:
        pass
