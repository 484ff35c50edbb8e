"""A hostile guest that is a Python script: the boot root's interpreter, lent to it read-only, and words to attack with.

Each attempt prints `NAME: done` or `NAME: ERRNO`, so that a test can say which of both it wants.
"""

from __future__ import annotations

import os
import re
from typing import Any

from tests.hostile.attempt import Outcome, boot, configuration, start

#: the boot root's /usr over the guest's own, which has no Python
LENT = {"source": "/usr", "target": "/usr", "options": ["ro"]}

PRELUDE = r"""
import ctypes, errno, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def check(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def syscall(number, *arguments):
    return check(libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments))))

def say(name, value):
    os.write(1, f"{name}: {value}\n".encode())

def attempt(name, function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        say(name, errno.errorcode[error.errno])
    else:
        say(name, "done")

def mountinfo():
    "(mount point, options) of every mount"
    return [(line.split()[4], line.split()[5].split(",")) for line in open("/proc/self/mountinfo")]

def descriptors():
    "number -> where it leads, without the one this reads through"
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            pass
    return found
"""


def command(script: str) -> list[str]:
    """The words that run the script with the prelude before it; by way of the guest's shell, which was there before."""
    return ["/bin/sh", "-c", 'exec /usr/bin/python3 -ISc "$0"', PRELUDE + script]


def python_configuration(script: str, *, mapped: bool = True, **keys: Any) -> str:
    """A configuration whose guest's init is the script, unless `exec` of the keys has another; else `configuration`."""
    mounts = [LENT, *keys.pop("mounts", [])]
    keys["exec"] = {"command": command(script), **keys.get("exec", {})}
    return configuration(mapped=mapped, mounts=mounts, **keys)


def attack(script: str, *, timeout: float = 20, **options: Any) -> Outcome:
    """Boot a guest that runs the script; `keys` among the options are those of the configuration."""
    keys = options.pop("keys", {})
    mapped = options.pop("mapped", True)
    return boot(python_configuration(script, mapped=mapped, **keys), timeout=timeout, **options)


def attack_with_console(script: str, guest: str, **options: Any) -> Outcome:
    """The same for a guest whose init is known by its name, so that it gets a console of its own, and so a keeper.

    `guest` is a copy that may be written to. It stays until everything it said has come through; then it is killed.
    """
    with open(f"{guest}/s6-svscan", "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\nexec /usr/bin/python3 -IS /attack.py\n")
        os.fchmod(file.fileno(), 0o755)
    with open(f"{guest}/attack.py", "w", encoding="utf-8") as file:
        file.write(f"{PRELUDE}\n{script}\nsay('the', 'end')\nsignal.pause()\n")
    keys = options.pop("keys", {})
    with start(python_configuration("", **keys, exec={"command": "/s6-svscan"}), guest=guest, **options) as container:
        container.expect(r"^the: end\r*$", 20)
        text = container.console().decode(errors="backslashreplace")
    return Outcome(None, re.sub(r"\r+\n", "\n", text).splitlines())
