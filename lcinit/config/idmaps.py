"""Id maps: `users` and `groups` of user_namespaces(7), in all the forms that a range can be written in."""

from __future__ import annotations

from lcinit.config.compound import Field, Fields
from lcinit.config.diagnostics import Unfit, quoted
from lcinit.config.document import LIST, MAP, TEXT, Node
from lcinit.config.names import MAX_ID
from lcinit.config.shapes import INVALID, Exactly, Flag, Forms, Number, Reading, Shape, Text
from lcinit.config.values import IdMap, IdRange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

MAX_RANGES: Final = 340
"""Lines of one map (UID_GID_MAP_MAX_EXTENTS, Linux 4.15)."""
MAP_BYTES: Final = 4096
"""A map is written at once and must stay below a page, however large the pages of this kernel (user_namespaces(7))."""

_ID: Final = "(?:0|[1-9][0-9]{0,9})"
_BLANK: Final = r"[ \t\n\r\f\v]"
_RANGE: Final = f"{_BLANK}*{_ID}{_BLANK}+{_ID}(?:{_BLANK}+{_ID})?{_BLANK}*"
_EXPECTS: Final = '"INSIDE OUTSIDE [SIZE]", [INSIDE, OUTSIDE, SIZE] or {internal, external, size} in decimal'


def map_text(ranges: Sequence[IdRange]) -> str:
    """The ranges as /proc/PID/uid_map and gid_map take them: a line each, inside, outside and size."""
    return "".join(f"{r.inside} {r.outside} {r.size}\n" for r in ranges)


def range_text(r: IdRange) -> str:
    """A range as users write it."""
    return f"{r.inside} {r.outside} {r.size}"


def parse_range(text: str) -> IdRange:
    """The range in `INSIDE OUTSIDE [SIZE]`: two or three ids in ASCII decimal, ASCII blanks between. Unfit otherwise.

    Not everything that int() takes: no sign, no underscore, no leading zero, no digits of other scripts.
    """
    # Not split() alone: that takes every blank of Unicode.
    words = text.split() if text.isascii() and not set(text) - set("0123456789 \t\n\r\f\v") else []
    if len(words) in (2, 3) and any(word[0] == "0" and word != "0" for word in words):
        decimal = " ".join(word.lstrip("0") or "0" for word in words)
        raise Unfit(f"{quoted(text)} has leading zeros", f"ids are decimal: write {quoted(decimal)}, if that is meant")
    if len(words) not in (2, 3) or any(len(word) > 10 for word in words):
        raise Unfit(f"{quoted(text)} is no range of ids", f"write {_EXPECTS}")
    return IdRange(**dict(zip(("inside", "outside", "size"), map(int, words), strict=False)))


def range_fault(r: IdRange) -> str:
    """Why the kernel would not take the range; empty when it would."""
    if r.size < 1:
        return f"the range {range_text(r)} has no ids"
    for column, first in (("inside", r.inside), ("outside", r.outside)):
        if first + r.size - 1 > MAX_ID:
            return f"the range {range_text(r)} ends {column} at {first + r.size - 1}, above {MAX_ID}"
    return ""


def overlap(one: IdRange, other: IdRange) -> str:
    """How two ranges of one map overlap; empty when they are disjoint in both columns."""
    for column in ("inside", "outside"):
        a, b = getattr(one, column), getattr(other, column)
        if a < b + other.size and b < a + one.size:
            return f"the range {range_text(one)} overlaps {range_text(other)} {column}, at {max(a, b)}"
    return ""


class _Range(Shape):
    """One range: text, a list of two or three numbers, or a mapping."""

    kinds = (TEXT, LIST, MAP)
    expects = _EXPECTS
    _number = Number(0, MAX_ID, f"an id from 0 to {MAX_ID}")
    _size = Number(1, MAX_ID + 1, "a number of ids from 1 on")
    _text = Text(_EXPECTS, convert=parse_range, shown=f"^{_RANGE}$")
    _fields = Fields(
        IdRange,
        "{internal, external, size}",
        Field("internal", _number, "The first id in the guest.", to="inside", required=True),
        Field(
            "external", _number, "The first id outside, in the boot root's user namespace.", to="outside", required=True
        ),
        Field("size", _size, "How many ids follow each other."),
    )

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind == TEXT:
            value = self._text.read(node, path, reading)
        elif node.kind == MAP:
            value = self._fields.read(node, path, reading)
        elif node.kind == LIST:
            value = self._list(node, path, reading)
        else:
            return self.mismatch(node, path, reading)
        if value is INVALID:
            return INVALID
        fault = range_fault(value)
        if fault:
            return reading.problem(node, path, fault, f"ids go from 0 to {MAX_ID}, a size from 1")
        return value

    def _list(self, node: Node, path: str, reading: Reading) -> Any:
        if len(node.value) not in (2, 3):
            return reading.problem(node, path, f"is a range of {len(node.value)} numbers", f"write {_EXPECTS}")
        shapes = (self._number, self._number, self._size)
        numbers = [
            shape.read(entry, f"{path}[{at}]", reading)
            for at, (shape, entry) in enumerate(zip(shapes, node.value, strict=False))
        ]
        if INVALID in numbers:
            return INVALID
        return IdRange(**dict(zip(("inside", "outside", "size"), numbers, strict=False)))

    def json(self) -> dict[str, Any]:
        number, size = self._number.json(), self._size.json()
        listed = {"type": "array", "prefixItems": [number, number, size], "items": False, "minItems": 2}
        return {"anyOf": [self._text.json(), listed, self._fields.json()]}


class _Ranges(Shape):
    """One range or a list of them, checked against each other as the kernel will."""

    kinds = (TEXT, LIST, MAP)
    expects = f"one range or a list of ranges; a range is {_EXPECTS}"
    _range = _Range()

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind not in self.kinds:
            return self.mismatch(node, path, reading)
        # A list that begins with a number is one range, so that the mistakes in one are told as such.
        if node.kind != LIST or (node.value and node.value[0].kind not in self.kinds):
            value = self._range.read(node, path, reading)
            places = [(node, path, value)]
        elif not node.value:
            return reading.problem(node, path, "is an empty list", f"write {self.expects}")
        else:
            places = [
                (entry, f"{path}[{at}]", self._range.read(entry, f"{path}[{at}]", reading))
                for at, entry in enumerate(node.value)
            ]
        right = all(value is not INVALID for _, _, value in places)
        if len(places) > MAX_RANGES:
            what = f"has {len(places)} ranges, and the kernel takes {MAX_RANGES}"
            return reading.problem(node, path, what, "join ranges that follow each other")
        seen: list[IdRange] = []
        for entry, at, value in places:
            if value is INVALID:
                continue
            for earlier in seen:
                fault = overlap(value, earlier)
                if fault:
                    right = False
                    reading.problem(entry, at, fault, "keep the ids of one map apart, on both sides")
                    break
            seen.append(value)
        if not right:
            return INVALID
        size = len(map_text(seen))
        if size >= MAP_BYTES:
            what = f"takes {size} bytes, and the kernel takes less than {MAP_BYTES} in one write"
            return reading.problem(node, path, what, "join ranges that follow each other")
        return tuple(seen)

    def json(self) -> dict[str, Any]:
        one = self._range.json()
        listed = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_RANGES}
        return {"anyOf": [*one["anyOf"], listed]}


def _entry(node: Node, path: str, at: int) -> tuple[Node, str]:
    """Where the range number `at` of some ranges stands: in a list of them, or alone."""
    if node.kind == LIST and node.value[0].kind in (TEXT, LIST, MAP):
        return node.value[at], f"{path}[{at}]"
    return node, path


def _read_map(values: dict[str, Any], node: Node, path: str, reading: Reading, *, guest: bool) -> Any:
    # At least one is there: the shape says so.
    users = values.get("users") or values["groups"]
    groups = values.get("groups") or users
    allowed = values.get("allow_outer_root", False)
    right = True
    for key, ranges in (("users", users), ("groups", groups)):
        place = node.get(key)
        if place is None:
            continue
        for at, r in enumerate(ranges):
            if r.outside == 0 and not allowed:
                right = False
                entry, entry_path = _entry(place, f"{path}.{key}", at)
                what = f"the range {range_text(r)} gives the guest the outer root's id 0"
                hint = f"map to another id, or write {path}.allow_outer_root: true"
                reading.problem(entry, entry_path, what, hint)
        if guest and not any(r.inside == 0 for r in ranges):
            right = False
            what = "has no range for the guest's id 0"
            hint = 'add one such as "0 1000000 65536": the guest starts as its own root'
            reading.problem(place, f"{path}.{key}", what, hint)
    return (IdMap(users=users, groups=groups), allowed) if right else INVALID


def _id_map(*, guest: bool) -> Forms:
    """Reads into a pair: an IdMap or None, and allow_outer_root. `guest`: the map of the guest, which needs an id 0."""
    return Forms(
        "false, or {users, groups}",
        Exactly(False, (None, False)),
        Exactly(None, (None, False)),
        Fields(
            IdMap,
            "users, groups or both",
            Field("users", _Ranges(), "Ranges of uids; those of groups where it is left out."),
            Field("groups", _Ranges(), "Ranges of gids; those of users where it is left out."),
            Field("allow_outer_root", Flag(), "Accept ranges that give the guest the outer id 0."),
            finish=lambda values, node, path, reading: _read_map(values, node, path, reading, guest=guest),
            any_of=("users", "groups"),
        ),
    )


ID_MAP: Final = _id_map(guest=True)
MOUNT_ID_MAP: Final = _id_map(guest=False)
