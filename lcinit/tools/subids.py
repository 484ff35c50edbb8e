"""/etc/subuid and /etc/subgid: ranges of ids that the administrator gave to users (subuid(5), subgid(5)). Pure.

A line is `USER:FIRST:SIZE`, where USER is a login name or a uid, in subgid(5) too. Nothing else is understood, and a
line that is wrong is told with its place and not used: newuidmap(1) does not use it either.
"""

from __future__ import annotations

from lcinit.record import Record
from lcinit.tools.id_ranges import LAST_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_DIGITS = len(str(LAST_ID))


class SubRange(Record):
    """`size` ids from `first` on, of `user` (name or uid, as it is written); `place` is FILE:LINE."""

    user: str
    first: int
    size: int
    place: str

    def last(self) -> int:
        """The last id of the range."""
        return self.first + self.size - 1


def parse(text: str, path: str) -> tuple[list[SubRange], list[str]]:
    """The ranges of a whole file in its order, and what is wrong with the other lines: `FILE:LINE: why`.

    Blank lines and those that begin with # are passed over.
    """
    ranges: list[SubRange] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{path}:{number}"
        if not line.strip() or line.startswith("#"):
            continue
        words = line.rstrip("\r").split(":")
        if len(words) != 3 or not words[0]:
            problems.append(f"{place}: {line!r} is not USER:FIRST:SIZE")
            continue
        first, size = (_number(word) for word in words[1:])
        if first is None or size is None:
            wrong = words[1] if first is None else words[2]
            problems.append(f"{place}: {wrong!r} is no plain decimal number")
        elif size == 0:
            problems.append(f"{place}: the range has no ids")
        elif first + size - 1 > LAST_ID:
            problems.append(f"{place}: the range ends at {first + size - 1}, above {LAST_ID}")
        else:
            ranges.append(SubRange(user=words[0], first=first, size=size, place=place))
    return ranges, problems


def _number(word: str) -> int | None:
    """Decimal digits as the kernel means them; None for everything else that int() would take (CVE-2020-13776)."""
    if not (word.isascii() and word.isdigit()) or (word[0] == "0" and word != "0") or len(word) > _MOST_DIGITS:
        return None
    return int(word)


def delegated(ranges: Sequence[SubRange], names: Sequence[str]) -> tuple[list[SubRange], list[str]]:
    """The ranges of the user of these names, in order; and those that are not used, with why.

    A range that overlaps an earlier one of the same user would map an id twice, which the kernel refuses. One that
    overlaps another user's, or holds id 0, would give away ids that belong to somebody.
    """
    own: list[SubRange] = []
    problems: list[str] = []
    for r in ranges:
        if r.user not in names:
            continue
        other = next((o for o in own if _overlap(r, o)), None)
        other = other or next((o for o in ranges if o.user not in names and _overlap(r, o)), None)
        if r.first == 0:
            problems.append(f"{r.place}: the range of {r.user} begins with id 0, which is root's")
        elif other is not None:
            shared = max(r.first, other.first)
            problems.append(
                f"{r.place}: the range of {r.user} overlaps {other.user}'s at {other.place}, from id {shared}"
            )
        else:
            own.append(r)
    return own, problems


def _overlap(one: SubRange, other: SubRange) -> bool:
    return one.first <= other.last() and other.first <= one.last()
