"""What `run`, `contain` and `pseudo` are told on their command line, and the id maps that follow from it. Pure."""

from __future__ import annotations

from lcinit.config.diagnostics import Unfit
from lcinit.config.idmaps import MAP_BYTES, MAX_RANGES, map_text, overlap, parse_range, range_fault, range_text
from lcinit.config.values import IdMap, IdRange
from lcinit.errors import EX_CONFIG, EX_NOPERM, ConfigError, LcinitError, UsageError
from lcinit.record import Record
from lcinit.tools import id_ranges
from lcinit.tools.subids import SubRange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    Piece = tuple[int, int]
    Name = Literal["run", "contain"]

SIDES = ("uid", "gid")
FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
PROGRAMS = {"uid": "newuidmap", "gid": "newgidmap"}


class Options(Record):
    """One command line of `run` or `contain`; `target` is a directory or a configuration file.

    `plain_streams`: the guest gets the caller's standard streams and no terminal of its own (-c). `users` and `groups`
    are the texts of -u and -g.
    """

    target: str
    command: tuple[str, ...] = ()
    users: str | None = None
    groups: str | None = None
    share_network: bool = False
    inside: str | None = None
    outside: str | None = None
    plain_streams: bool = False
    name: Name = "run"


class Side(Record):
    """What is known of uids, or of gids, for choosing a map.

    `own` are the `(first, last)` that exist in this user namespace, `own_id` the caller's; `privileged`: the caller may
    write any map; `root_below`: uid 0 here is an ordinary user outside. `delegated` are the caller's ranges of the
    file, `problems` its wrong lines; `program`: newuidmap(1) or newgidmap(1) is there. `used` are ranges that guests
    have now.
    """

    kind: Literal["uid", "gid"]
    own_id: int
    own: tuple[Piece, ...]
    privileged: bool
    root_below: bool = False
    delegated: tuple[SubRange, ...] = ()
    problems: tuple[str, ...] = ()
    program: bool = False
    user: str = "root"
    used: tuple[Piece, ...] = ()

    def pieces(self) -> list[Piece]:
        """The delegated ranges as `(first, size)`."""
        return [(r.first, r.size) for r in self.delegated]


class Choice(Record):
    """The map of a guest. `simple`: the caller's own id alone, which the kernel lets the caller map without help.

    `notes` are for the user.
    """

    id_map: IdMap
    simple: bool
    notes: tuple[str, ...] = ()


def parse_map(text: str, option: str) -> tuple[IdRange, ...]:
    """`INSIDE:OUTSIDE:SIZE[,...]`, as contain(1) has it. Raises UsageError that names what is wrong."""
    ranges: list[IdRange] = []
    for item in text.replace(";", ",").split(","):
        words = item.split(":")
        if len(words) != 3 or any(not word or word.strip() != word for word in words):
            raise UsageError(f"{option}: {item!r} is no range", hint="write INSIDE:OUTSIDE:SIZE, as in 0:100000:65536")
        try:
            found = parse_range(" ".join(words))
        except Unfit as unfit:
            raise UsageError(
                f"{option}: {item!r} is no range", hint="INSIDE:OUTSIDE:SIZE are plain decimal numbers below 2^32"
            ) from unfit
        fault = range_fault(found) or next(filter(None, (overlap(found, earlier) for earlier in ranges)), "")
        if fault:
            raise UsageError(f"{option}: {fault}", hint="keep the ids of one map apart, on both sides")
        ranges.append(found)
    if len(ranges) > MAX_RANGES or len(map_text(ranges)) >= MAP_BYTES:
        raise UsageError(
            f"{option}: {len(ranges)} ranges are too many",
            hint=f"the kernel takes {MAX_RANGES}, in fewer than 4096 bytes",
        )
    if not any(r.inside == 0 for r in ranges):
        raise UsageError(f"{option}: no range for id 0 inside", hint="the command starts as root there")
    return tuple(ranges)


def choose(
    options_users: str | None, options_groups: str | None, sides: Sequence[Side], name: str, owner: Piece
) -> Choice:
    """The map for the options -u and -g, or the default of `name` (run, contain or pseudo).

    `owner` is the uid and gid of the guest's files, where there are any. A side that was not given takes the other's
    ranges under `run` as root, as a configuration's id_map does, and its default elsewhere, as under contain(1).
    Raises UsageError, ConfigError or, where it is not permitted, LcinitError.
    """
    users, groups = sides
    notes: list[str] = []
    found: list[tuple[IdRange, ...]] = []
    for side, text, other, its_owner in (
        (users, options_users, options_groups, owner[0]),
        (groups, options_groups, options_users, owner[1]),
    ):
        option = "-u" if side.kind == "uid" else "-g"
        if text is None and name == "run" and side.privileged:
            text = other
        if text is not None:
            given = parse_map(text, option)
            _check_given(given, side, option)
            found.append(given)
        else:
            ranges, note = _default(side, name, its_owner)
            found.append(tuple(IdRange(inside=i, outside=o, size=n) for i, o, n in ranges))
            notes += note
    simple = all(
        not side.privileged and ranges == (IdRange(inside=0, outside=side.own_id, size=1),)
        for side, ranges in zip(sides, found, strict=True)
    )
    return Choice(id_map=IdMap(users=found[0], groups=found[1]), simple=simple, notes=tuple(notes))


def _check_given(ranges: tuple[IdRange, ...], side: Side, option: str) -> None:
    for r in ranges:
        absent = id_ranges.missing_id(r.outside, r.size, side.own)
        if absent is not None:
            raise UsageError(
                f"{option}: {side.kind} {absent} of the range {range_text(r)} does not exist in this user namespace",
                hint=f"/proc/self/{side.kind}_map lists those that do",
            )
        if r.outside == 0 and not (side.root_below and side.own_id == 0):
            raise ConfigError(
                f"{option}: the range {range_text(r)} gives the guest the outer root's id 0",
                hint="map to other ids, such as 0:100000:65536",
                exit_code=EX_NOPERM,
            )
        if not side.privileged and (r.outside, r.size) != (side.own_id, 1):
            _check_delegated(r, side, option)


def _check_delegated(r: IdRange, side: Side, option: str) -> None:
    """Refuse what newuidmap(1) would: ids that are neither the caller's own nor in ranges of the file."""
    if id_ranges.missing_id(r.outside, r.size, id_ranges.runs(side.pieces())) is not None:
        where = "; ".join((f"{FILES[side.kind]} gives {side.user} no such range", *side.problems))
        raise ConfigError(
            f"{option}: {side.kind} {_span(r.outside, r.size)} was not given to you: {where}",
            hint=f"have root add {side.user}:{r.outside}:{r.size} to {FILES[side.kind]}",
            exit_code=EX_NOPERM,
        )
    if not side.program:
        raise LcinitError(
            f"{option}: an ordinary user maps more than the own id with {PROGRAMS[side.kind]}, which is not installed",
            hint="install the package uidmap (shadow-utils on some distributions)",
            exit_code=EX_NOPERM,
        )


def _default(side: Side, name: str, owner: int) -> tuple[tuple[tuple[int, int, int], ...], list[str]]:
    if not side.privileged:
        return _ordinary_default(side)
    if side.own == ((0, 0),):
        if side.root_below:
            return ((0, 0, 1),), []
        raise ConfigError(f"this user namespace has no {side.kind} beside 0 that a guest could get")
    if name == "run":
        return _run_default(side, owner)
    highest = id_ranges.highest_for_root(side.own)
    if highest is None:
        raise AssertionError("a user namespace with more than id 0 has a highest one")
    return highest, []


def _ordinary_default(side: Side) -> tuple[tuple[tuple[int, int, int], ...], list[str]]:
    if side.user == "root" and side.own_id == 0 and not side.root_below:
        raise LcinitError(
            f"root without CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID can map its own {side.kind} 0, which no guest gets",
            hint=f"start it with them, or give -u and -g with ranges that {FILES[side.kind]} has for root",
            exit_code=EX_NOPERM,
        )
    if side.delegated and not side.program:
        note = f"only your own {side.kind} is mapped: {PROGRAMS[side.kind]} is not installed (package uidmap)"
        return ((0, side.own_id, 1),), [*side.problems, note]
    return id_ranges.own_and_delegated(side.own_id, side.pieces(), side.own), list(side.problems)


def _run_default(side: Side, owner: int) -> tuple[tuple[tuple[int, int, int], ...], list[str]]:
    file = FILES[side.kind]
    pieces = [(first, size) for first, size in side.pieces() if id_ranges.missing_id(first, size, side.own) is None]
    chosen = id_ranges.free_piece(pieces, side.used, owner)
    if chosen is None:
        why = "; ".join((f"{file} has no usable range for {side.user}", *side.problems))
        raise ConfigError(
            f"no {side.kind}s for the guest: {why}",
            hint=f"add the line {side.user}:{_free_line(side)} to {file}, or give -u and -g",
            exit_code=EX_CONFIG,
        )
    (first, size), free = chosen
    notes = list(side.problems)
    if not free:
        notes.append(
            f"every {side.kind} range of {side.user} in {file} is in use: this guest shares {_span(first, size)}"
        )
    return ((0, first, size),), notes


def _span(first: int, size: int) -> str:
    return str(first) if size == 1 else f"{first}-{first + size - 1}"


def _free_line(side: Side) -> str:
    found = id_ranges.guest_range("".join(f"{low} {low} {high - low + 1}\n" for low, high in side.own))
    first, size = found or (id_ranges.PREFERRED, id_ranges.WANTED)
    return f"{first}:{size}"
