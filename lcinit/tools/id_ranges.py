"""Choosing outer ids for a guest from those that this user namespace has. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Range = tuple[int, int, int]
    Piece = tuple[int, int]

WANTED = 65536  # what Debian's users and groups, nobody (65534) and systemd's dynamic users need
PREFERRED = 1_000_000  # above what adduser(8), useradd(8) and systemd (uid-gid.txt) give to people and services
LAST_ID = 2**32 - 2


def parse_id_map(text: str) -> list[Range]:
    """The ranges of a uid_map or gid_map as (inside, outside, size) (user_namespaces(7))."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return [(int(inside), int(outside), int(size)) for inside, outside, size in lines]


def mapped_ids(ranges: list[Range]) -> int:
    """How many ids there are."""
    return sum(size for _, _, size in ranges)


def guest_range(text: str) -> Piece | None:
    """`(first, size)` of ids that a guest can be given, from the text of this process' own uid_map or gid_map.

    65536 ids from 1000000 on where they exist; else the upper end of the highest range that has as many; else the
    longest piece without id 0, which is never given away. None where there is no other id than 0.
    """
    pieces = [(first, last) for first, last in own_ids(text) if last > 0]
    pieces = [(max(first, 1), last) for first, last in pieces]
    for first, last in pieces:
        if first <= PREFERRED and last >= PREFERRED + WANTED - 1:
            return PREFERRED, WANTED
    long = [last for first, last in pieces if last - first + 1 >= WANTED]
    if long:
        return max(long) - WANTED + 1, WANTED
    if not pieces:
        return None
    first, last = max(pieces, key=lambda piece: piece[1] - piece[0])
    return first, last - first + 1


def own_ids(text: str) -> list[Piece]:
    """`(first, last)` of each run of ids that exist in this user namespace, by the text of its map, in rising order."""
    return runs((inside, size) for inside, _, size in parse_id_map(text))


def runs(pieces: Iterable[Piece]) -> list[Piece]:
    """`(first, last)` of each run that `(first, size)` make together, in rising order."""
    found: list[Piece] = []
    for first, size in sorted(pieces):
        last = min(first + size - 1, LAST_ID)
        if found and found[-1][1] + 1 >= first:
            found[-1] = found[-1][0], max(last, found[-1][1])
        elif first <= last:
            found.append((first, last))
    return found


def missing_id(first: int, size: int, own: Sequence[Piece]) -> int | None:
    """The first id of a range that is in none of the runs; None when all are."""
    for low, high in own:
        if low <= first <= high:
            return high + 1 if high < first + size - 1 else None
    return first


def highest_for_root(own: Sequence[Piece]) -> tuple[Range, ...] | None:
    """The default of contain(1) for root: 0 is the highest id there is, and every other id but 0 is itself.

    So no id of the guest is outer 0, and the files of ordinary users keep their owners. None without an id beside 0.
    """
    top = max(last for _, last in own)
    if top == 0:
        return None
    ranges: list[Range] = [(0, top, 1)]
    for first, last in own:
        first, last = max(first, 1), min(last, top - 1)
        if first <= last:
            ranges.append((first, first, last - first + 1))
    return tuple(ranges)


def own_and_delegated(own_id: int, pieces: Iterable[Piece], own: Sequence[Piece]) -> tuple[Range, ...]:
    """The default for an ordinary user: 0 is the user, 1 and following are the `(first, size)` given to the user.

    What does not exist in this user namespace, or is the user's own id, is left out.
    """
    ranges: list[Range] = [(0, own_id, 1)]
    inside = 1
    for first, size in pieces:
        if missing_id(first, size, own) is not None or first <= own_id < first + size:
            continue
        ranges.append((inside, first, size))
        inside += size
    return tuple(ranges)


def free_piece(pieces: Sequence[Piece], used: Sequence[Piece], owner: int) -> tuple[Piece, bool] | None:
    """`(first, size)` for a guest out of the `(first, size)` that root was given, and whether no guest has it now.

    The one that begins with `owner`, if the guest's files belong to an id of root's ranges; else the first that does
    not overlap `used`; else the first. Pieces are of WANTED ids; a range of fewer is one piece. None without any.
    """
    candidates: list[Piece] = []
    for first, size in pieces:
        if first <= owner < first + size:
            return (owner, min(WANTED, first + size - owner)), True
        step = min(WANTED, size)
        candidates += [(start, step) for start in range(first, first + size - step + 1, step)]
    candidates.sort(key=lambda piece: -piece[1])  # stable: as they come, but whole pieces before short ones
    for first, size in candidates:
        if not any(first < start + count and start < first + size for start, count in used):
            return (first, size), True
    return (candidates[0], False) if candidates else None
