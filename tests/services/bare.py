"""lcinit as a plain container's init, with services and no guest of its own: what supervises is what is tried."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from tests.hostile.attempt import start
from tests.services.rig import Guest

SHARED = {"mode": "tolerant", "pid": "shared"}


class Bare(Guest):
    """A container whose PID 1 supervises `services`. `keys` are further ones of the configuration. With
    `serves` it is waited for until it can be asked.
    """

    def __init__(
        self, services: Mapping[str, Any], *, env: dict[str, str] | None = None, serves: bool = False, **keys: Any
    ) -> None:
        exec_keys = {**SHARED, **keys.pop("exec", {})}
        config = {"root": None, "setup": "none", "exec": exec_keys, "services": dict(services), **keys}
        self.container = start(json.dumps(config), env=env)
        self._pid1 = 0
        if serves:
            self.client().close()

    def write(self, path: str, text: str) -> None:
        """A file in the container."""
        place = self.path(path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w") as file:
            file.write(text)

    def events(self) -> list[tuple[str, Any]]:
        """What happened: kind and service."""
        with self.client() as client:
            found = client.call("Events")["events"]
        return [(each["kind"], each["facts"].get("service")) for each in found]


def sh(script: str, **keys: Any) -> dict[str, Any]:
    """A service that is a shell's script and prints nowhere."""
    return {"command": ["/bin/sh", "-c", script], "log": "none", **keys}
