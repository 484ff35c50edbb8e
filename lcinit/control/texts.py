"""The texts of the varlink interfaces: files beside this module, read with it while the root is the one they are in."""

from __future__ import annotations

import os


def _read() -> dict[str, str]:
    directory, texts = os.path.dirname(__file__), {}
    for name in os.listdir(directory):
        interface, extension = os.path.splitext(name)
        if extension == ".varlink":
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                texts[interface] = file.read()
    return texts


TEXTS = _read()  # by the interface's name
