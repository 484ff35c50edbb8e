"""Something of the outside that must stay as it is."""

from __future__ import annotations

import os


class Canary:
    """A directory of the outside with an empty file in it, and how to see whether anything of it was touched."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkdir(path, 0o700)
        with open(f"{path}/file", "w"):
            os.chmod(f"{path}/file", 0o600)
        self.before = self.look()

    def look(self) -> list[object]:
        """Names, owners, modes, sizes and change times."""
        entries = ((name, os.lstat(os.path.join(self.path, name))) for name in (".", *sorted(os.listdir(self.path))))
        return [(name, e.st_mode, e.st_uid, e.st_gid, e.st_size, e.st_rdev, e.st_ctime_ns) for name, e in entries]

    def assert_untouched(self) -> None:
        """Fail with what is different."""
        assert self.look() == self.before
