"""Choosing outer ids for a guest from those that this user namespace has. Pure."""

from __future__ import annotations

WANTED = 65536  # what Debian's users and groups, nobody (65534) and systemd's dynamic users need
PREFERRED = 1_000_000  # above what adduser(8), useradd(8) and systemd (uid-gid.txt) give to people and services
LAST_ID = 2**32 - 2


def parse_id_map(text: str) -> list[tuple[int, int, int]]:
    """The ranges of a uid_map or gid_map as (inside, outside, size) (user_namespaces(7))."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return [(int(inside), int(outside), int(size)) for inside, outside, size in lines]


def mapped_ids(ranges: list[tuple[int, int, int]]) -> int:
    """How many ids there are."""
    return sum(size for _, _, size in ranges)


def guest_range(text: str) -> tuple[int, int] | None:
    """`(first, size)` of ids that a guest can be given, from the text of this process' own uid_map or gid_map.

    65536 ids from 1000000 on where they exist; else the upper end of the highest range that has as many; else the
    longest piece without id 0, which is never given away. None where there is no other id than 0.
    """
    pieces = []
    for inside, _, size in parse_id_map(text):
        first, last = max(inside, 1), min(inside + size - 1, LAST_ID)
        if first <= last:
            pieces.append((first, last))
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
