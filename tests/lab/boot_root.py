"""The boot root for tests: Debian and the dependencies from the cache, lcinit from the working tree as it is now."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile

from lcinit.tools import boot_root as builder
from tests.lab.cache import cached, stamp_of

RECIPE_VERSION = 1


def base() -> str:
    """A boot root without lcinit, cached: nobody may write to it."""
    recipe = (RECIPE_VERSION, builder.SUITE, builder.PACKAGES, builder.WHEELS, builder.UNWANTED)

    def build(directory: str) -> None:
        builder.install_debian(directory)
        builder.install_wheels(directory)

    return cached("boot-root", stamp_of(*recipe), build)


@functools.cache
def boot_root() -> str:
    """A boot root with the working tree's lcinit, made once a process and removed at its end.

    Files are hard links to the cached base: a test must not write into it (drivers lay an overlay over it).
    """
    parent = tempfile.mkdtemp(prefix="lcinit-boot-root-")
    atexit.register(shutil.rmtree, parent)
    os.chmod(parent, 0o755)
    directory = os.path.join(parent, "root")
    source = base()
    same_device = os.stat(source).st_dev == os.stat(parent).st_dev
    subprocess.run(["cp", "-al" if same_device else "-a", source, directory], check=True)
    builder.install_lcinit(directory)
    return directory
