"""Every problem of a file, with its place, its key and what would be right; raised all at once."""

from __future__ import annotations

from lcinit.errors import ConfigError
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

MAX_PROBLEMS: Final = 100
"""No more than this many problems are kept of one file: an alias can repeat one mistake thousands of times."""

_SHOWN: Final = 60
_SHOWN_PATH: Final = 160
_MORE: Final = "and more problems"
_PERHAPS_MORE: Final = "and perhaps more problems"


class Problem(Record):
    """One mistake. `line` and `column` count from 1; `path` is the key, as in `exec.before[0].timeout`."""

    line: int
    column: int
    path: str
    what: str
    right: str

    def text(self, name: str) -> str:
        """`FILE:LINE:COLUMN: KEY.PATH: what is wrong; what would be right`."""
        return f"{name}:{self.line}:{self.column}: {self.path}: {self.what}; {self.right}"


class InvalidFile(ConfigError):
    """All problems of one file, sorted by place. The message holds one line for each."""

    def __init__(self, name: str, problems: tuple[Problem, ...], more: str = "") -> None:
        lines = [problem.text(name) for problem in problems]
        if more:
            lines.append(f"{name}: {more}")
        super().__init__("\n".join(lines))
        self.name = name
        self.problems = problems


class Unfit(Exception):
    """A value that has the right type and yet is wrong: what is wrong, and what would be right."""

    def __init__(self, what: str, right: str) -> None:
        super().__init__(what)
        self.what = what
        self.right = right


class Problems:
    """Collects the problems of the file `name`, at most `most` of them."""

    def __init__(self, name: str, most: int = MAX_PROBLEMS) -> None:
        self.name = name
        self._most = most
        self._found: dict[tuple[int, int, str, str], Problem] = {}
        self._more = ""

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def full(self) -> bool:
        """Whether no more are kept: what would be right need not be looked for any more."""
        return len(self._found) >= self._most

    def skip(self) -> None:
        """Something is not looked at because they are full."""
        self._more = self._more or _PERHAPS_MORE

    def add(self, line: int, column: int, path: str, what: str, right: str) -> None:
        """Note a problem; the same one at the same place is noted once."""
        if self._more == _MORE:
            return
        path = path if len(path) <= _SHOWN_PATH and path.isprintable() else _escaped(path, _SHOWN_PATH)
        key = (line, column, path, what)
        if key in self._found:
            return
        if self.full:
            self._more = _MORE
            return
        self._found[key] = Problem(line=line, column=column, path=path, what=what, right=right)

    def error(self) -> InvalidFile:
        """The error that holds everything noted so far."""
        ordered = sorted(self._found.values(), key=lambda p: (p.line, p.column, p.path, p.what))
        return InvalidFile(self.name, tuple(ordered), self._more)

    def raise_if_any(self) -> None:
        """Raise InvalidFile when something was noted."""
        if self._found:
            raise self.error()


def below(path: str, key: str) -> str:
    """The path of a key in the mapping at `path`; of a long one no more than is shown, each entry below it has it."""
    key = key[: _SHOWN_PATH + 1]
    return f"{path}.{key}" if path else key


def quoted(text: str) -> str:
    """A text as a message shows it: in double quotes, on one line, control characters escaped, not too long."""
    return f'"{shortened(text)}"'


def shortened(text: str) -> str:
    """The same without the quotes."""
    return _escaped(text, _SHOWN)


def _escaped(text: str, length: int) -> str:
    if len(text) > length:
        text = text[: length - 1] + "…"
    # A double quote in front makes repr take single quotes around, and leave double ones as they are.
    return repr(f'"{text}')[2:-1].replace("\\'", "'")


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` most likely stands for; empty when none is near."""
    import difflib  # needed for a mistake only, and as dear as this whole package

    near = difflib.get_close_matches(word[:_SHOWN], list(known), n=1, cutoff=0.6)
    return near[0] if near else ""
