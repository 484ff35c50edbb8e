"""Shapes of lists and mappings."""
# ruff: noqa: D102 - read, json and takes mean what Shape says of them

from __future__ import annotations

from lcinit.config.diagnostics import Unfit, below, quoted
from lcinit.config.document import LIST, MAP, Node
from lcinit.config.shapes import INVALID, Reading, Shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from lcinit.config.shapes import Json
    from lcinit.record import Record

_LONGEST_WORD = 100  # no word of anybody is as long, in any spelling


class ListOf(Shape):
    """A list, as a tuple. With `single`, one entry may stand without its list."""

    def __init__(self, entry: Shape, expects: str, *, single: bool = False, least: int = 0) -> None:
        self.entry = entry
        self.expects = expects
        self.single = single
        self.least = least
        alone = tuple(kind for kind in entry.kinds if kind != LIST) if single else ()
        self.kinds = (LIST, *alone)
        self.free_text = single and entry.free_text

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind != LIST:
            if node.kind not in self.kinds:
                return self.mismatch(node, path, reading)
            value = self.entry.read(node, path, reading)
            return INVALID if value is INVALID else (value,)
        if len(node.value) < self.least:
            return reading.problem(node, path, "is an empty list", f"write {self.expects}")
        values = [self.entry.read(entry, f"{path}[{at}]", reading) for at, entry in enumerate(node.value)]
        return INVALID if INVALID in values else tuple(values)

    def json(self) -> Json:
        schema: Json = {"type": "array", "items": self.entry.json()}
        if self.least:
            schema["minItems"] = self.least
        if not self.single:
            return schema
        alone = self.entry.json()
        forms = alone["anyOf"] if set(alone) == {"anyOf"} else [alone]
        return {"anyOf": [*(form for form in forms if form.get("type") != "array"), schema]}


class MapOf(Shape):
    """A mapping of names to values, as a tuple in the order of the file: of pairs, or of what `make` makes of each."""

    kinds: tuple[str, ...] = (MAP,)

    def __init__(self, name: Shape, value: Shape, expects: str, make: Callable[[Any, Any], Any] | None = None) -> None:
        self.name = name
        self.value = value
        self.expects = expects
        self.make = make

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind != MAP:
            return self.mismatch(node, path, reading)
        pairs: list[Any] = []
        for name_node, value_node in node.value:
            at = below(path, name_node.value)
            name = self.name.read(name_node, at, reading)
            value = self.value.read(value_node, at, reading)
            if name is INVALID or value is INVALID:
                pairs.append(INVALID)
            elif self.make is None:
                pairs.append((name, value))
            else:
                try:
                    pairs.append(self.make(name, value))
                except Unfit as unfit:
                    pairs.append(reading.problem(value_node, at, unfit.what, unfit.right))
        return INVALID if INVALID in pairs else tuple(pairs)

    def json(self) -> Json:
        return {"type": "object", "propertyNames": self.name.json(), "additionalProperties": self.value.json()}


class Field:
    """A key of a mapping. `to` is the record's field where its name differs, `doc` one sentence for users."""

    def __init__(self, key: str, shape: Shape, doc: str, *, to: str = "", required: bool = False) -> None:
        self.key = key
        self.shape = shape
        self.doc = doc
        self.to = to or key
        self.required = required


class Fields(Shape):
    """A mapping with known keys, as a record.

    A key that is absent or wrong keeps the record's default, so that what else is wrong is found too. `finish` gets
    the values of the keys that were right and returns the value in the record's stead. `refused` are keys that are
    known but not possible here, with the reason; `others` gives what other programs call keys, see other_words.
    """

    kinds = (MAP,)

    def __init__(
        self,
        record: Callable[..., Any] | type[Record],
        expects: str,
        *fields: Field,
        finish: Callable[[dict[str, Any], Node, str, Reading], Any] | None = None,
        refused: Mapping[str, str] | None = None,
        others: Callable[[], Mapping[str, str]] | None = None,
        any_of: tuple[str, ...] = (),
        empty: bool = True,
    ) -> None:
        self.record = record
        self.expects = expects
        self.fields = {field.key: field for field in fields}
        self.required = tuple(field.key for field in fields if field.required)
        self.finish = finish
        self.refused = refused or {}
        self.others = others
        self.any_of = any_of
        self.empty = empty

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind != MAP:
            return self.mismatch(node, path, reading)
        values: dict[str, Any] = {}
        right = True
        for name_node, value_node in node.value:
            name = name_node.value
            at = below(path, name)
            field = self.fields.get(name)
            if field is None:
                self._unknown(name_node, at, reading)
                right = False
                continue
            value = field.shape.read(value_node, at, reading)
            reading.found[at] = (value_node, value)
            if value is INVALID:
                right = False
            else:
                values[field.to] = value
        for key in self.required:
            if node.get(key) is None:
                right = False
                reading.problem(node, path, f"the key {key} is missing", f"write {self.expects}")
        if (not node.value and not self.empty) or (self.any_of and all(node.get(key) is None for key in self.any_of)):
            right = False
            missing = " and ".join(self.any_of)
            what = f"holds neither {missing.replace(' and ', ' nor ')}" if missing and node.value else "is empty"
            reading.problem(node, path, what, f"write {self.expects}")
        if not right:
            return INVALID
        return self.finish(values, node, path, reading) if self.finish is not None else self.record(**values)

    def _unknown(self, node: Node, path: str, reading: Reading) -> None:
        name = node.value
        if name in self.refused:
            reading.problem(node, path, f"{name} is not possible here", self.refused[name])
            return
        near = self._meant(name, reading) or reading.near(name, self.fields)
        right = f"did you mean {near}?" if near else f"the keys here are {', '.join(self.fields)}"
        reading.problem(node, path, f"the key {quoted(name)} is unknown", right)

    def _meant(self, name: str, reading: Reading) -> str:
        from lcinit.config.other_words import meant  # needed for a mistake only

        if reading.problems.full or len(name) > _LONGEST_WORD:
            return ""
        return meant(name, self.fields, {} if self.others is None else self.others())

    def json(self) -> Json:
        properties: Json = {}
        for key, field in self.fields.items():
            schema = {**field.shape.json(), "description": field.doc}
            default = getattr(self.record, field.to, None)
            if isinstance(default, str | int):
                schema["default"] = default
            properties[key] = schema
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if self.required:
            schema["required"] = list(self.required)
        if self.any_of:
            schema["anyOf"] = [{"required": [key]} for key in self.any_of]
        if not self.empty:
            schema["minProperties"] = 1
        return schema
