"""One boot of a small guest whose only program is a script: what it tried, what was said, and how PID 1 ended."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.lab import guests
from tests.lab.boot_root import boot_root
from tests.lab.container import Bind, Container
from tests.lab.managers import Unshare

SHIFT = 1000000
ID_MAP = {"users": f"0 {SHIFT} 65536"}
BOTH_LOOPS = ("asyncio", "uvloop")


class Outcome(NamedTuple):
    """`status` is PID 1's exit code (128 + signal), `lines` the console without line ends."""

    status: int | None
    lines: list[str]

    def said(self, name: str) -> list[str]:
        """The rests of the lines `NAME: REST` that the script printed."""
        return [line.removeprefix(f"{name}: ") for line in self.lines if line.startswith(f"{name}: ")]

    def errors(self) -> list[str]:
        """What lcinit reported as an error, without its prefix."""
        return [line.removeprefix("lcinit: error: ") for line in self.lines if line.startswith("lcinit: error: ")]

    def __str__(self) -> str:
        return f"status {self.status}\n" + "\n".join(self.lines)


@functools.cache
def shared_guest(shift: int | None = SHIFT) -> str:
    """The guest "plain", owned through the id map or as it is: made once, and nobody may write to it."""
    if shift is None:
        return guests.guest("plain")
    directory = os.path.join(tempfile.mkdtemp(prefix="lcinit-hostile-"), "root")
    atexit.register(_remove, os.path.dirname(directory))
    os.chmod(os.path.dirname(directory), 0o755)
    return guests.copy_of("plain", directory, shift)


def _remove(directory: str) -> None:
    guests.remove_tree(directory)


def own_guest(directory: str, shift: int | None = SHIFT) -> str:
    """A copy of it at `directory` whose entries may be replaced (files are hard links: never written in place)."""
    source = shared_guest(shift)
    same = os.stat(source).st_dev == os.stat(os.path.dirname(directory)).st_dev
    subprocess.run(["cp", "-al" if same else "-a", source, directory], check=True)
    return directory


def configuration(script: str | None = None, *, mapped: bool = True, **keys: Any) -> str:
    """A configuration as text. `script` is run by the guest's shell as its init; keys are those of the file."""
    values: dict[str, Any] = {"root": "/mnt/root"}
    if mapped:
        values["id_map"] = ID_MAP
    if script is not None:
        values["exec"] = {"command": ["/bin/sh", "-c", script]}
    for key, value in keys.items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        values[key] = {**values[key], **value} if both else value
    return json.dumps(values)


def start(
    config: str,
    *,
    guest: str | None = None,
    binds: Iterable[Bind | tuple[str, str] | tuple[str, str, bool]] = (),
    env: dict[str, str] | None = None,
    driver: Callable[..., Container] = Unshare,
    console: str = "pipe",
    **options: Any,
) -> Container:
    """The container, started. The caller stops it (or uses it as a context manager)."""
    container = driver(console=console)
    root = guest or shared_guest(SHIFT if "id_map" in config else None)
    return container.start(boot_root(), guest_root=root, config=config, binds=binds, env=env, **options)


def boot(config: str, *, timeout: float = 20, **options: Any) -> Outcome:
    """Start it and wait for its end; ContainerError after `timeout` seconds."""
    with start(config, **options) as container:
        return outcome(container, timeout)


def outcome(container: Container, timeout: float = 20) -> Outcome:
    """Wait for the container's end."""
    ended = container.wait(timeout)
    text = container.console().decode(errors="backslashreplace")
    return Outcome(ended.status, re.sub(r"\r+\n", "\n", text).splitlines())
