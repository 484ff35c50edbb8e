"""What a value may look like: each shape reads nodes into values and tells its JSON Schema, so the two cannot drift.

A shape's `read` notes problems and returns the value, or INVALID when there is none; `json` is its part of a JSON
Schema (draft 2020-12). Text patterns are written in what Python and ECMA 262 have in common.
"""

# ruff: noqa: D102 - read, json and takes mean what Shape says of them

from __future__ import annotations

from lcinit.config.diagnostics import Problems, Unfit, closest, quoted, shortened
from lcinit.config.document import BAD, DECIMAL, FLAG, LIST, MAP, NULL, NUMBER, ROOT_PATH, TEXT, Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final

    Json = dict[str, Any]


MAX_TEXT: Final = 4096
"""Characters of a text that must match a pattern: no pattern is tried on more."""


class Invalid:
    """The type of INVALID."""

    def __bool__(self) -> bool:
        return False


INVALID: Final = Invalid()
"""What `read` returns when it noted a problem instead of a value."""


class Reading:
    """One pass over a document: its problems, and what each key gave."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.found: dict[str, tuple[Node, Any]] = {}

    def problem(self, node: Node, path: str, what: str, right: str) -> Invalid:
        """Note a problem at the place of `node`, unless the node itself was reported already."""
        if node.kind != BAD:
            self.problems.add(node.line, node.column, path or ROOT_PATH, what, right)
        return INVALID

    def near(self, word: str, known: Iterable[str]) -> str:
        """The known word that `word` stands for; empty when none is near, or when nobody would read it any more."""
        return "" if self.problems.full else closest(word, known)

    def value(self, path: str, default: Any) -> Any:
        """What the key at `path` gave: INVALID when it was wrong, `default` when it is absent."""
        found = self.found.get(path)
        return default if found is None else found[1]


def describe(node: Node) -> str:
    """What a node is, as a message says it."""
    if node.kind == NULL:
        return "is null"
    if node.kind == FLAG:
        return f"is the boolean {node.raw}"
    if node.kind in (NUMBER, DECIMAL):
        return f"is the number {node.raw}"
    if node.kind == TEXT:
        return f"is the text {quoted(node.value)}"
    return "is a list" if node.kind == LIST else "is a mapping"


class Shape:
    """`kinds` are the kinds of node it reads, `expects` says in a message what it wants."""

    kinds: tuple[str, ...] = ()
    expects = ""
    free_text = False
    """Whether any text may stand here, so that a number or boolean may have been meant as text."""

    def takes(self, node: Node) -> bool:
        """Whether a node is this shape's to read, right or wrong."""
        return node.kind in self.kinds

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        """The value of a node, or INVALID."""
        raise NotImplementedError

    def json(self) -> Json:
        """The JSON Schema of what `read` accepts."""
        raise NotImplementedError

    def mismatch(self, node: Node, path: str, reading: Reading) -> Invalid:
        """Note that the node is of another kind."""
        right = f"write {self.expects}"
        if self.free_text and node.kind in (NUMBER, DECIMAL, FLAG):
            right = f"{right} ({quoted(node.raw)}, with the quotes, is text)"
        elif NUMBER in self.kinds and node.kind == TEXT and node.value.isascii() and node.value.isdigit():
            right = f"write {shortened(node.value)} without quotes"
        return reading.problem(node, path, describe(node), right)


class Exactly(Shape):
    """One null or boolean that stands for `value`."""

    def __init__(self, written: bool | None, value: Any) -> None:
        self.written = written
        self.value = value
        self.kinds = (NULL,) if written is None else (FLAG,)
        self.expects = "null" if written is None else "true" if written else "false"

    def takes(self, node: Node) -> bool:
        return node.kind in self.kinds and node.value is self.written

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        return self.value if self.takes(node) else self.mismatch(node, path, reading)

    def json(self) -> Json:
        return {"const": self.written}


class Flag(Shape):
    """A boolean."""

    kinds = (FLAG,)
    expects = "true or false"

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        return node.value if node.kind == FLAG else self.mismatch(node, path, reading)

    def json(self) -> Json:
        return {"type": "boolean"}


class Number(Shape):
    """An integer from `low` to `high`; with `decimals` also a fraction."""

    def __init__(self, low: int, high: int, expects: str, *, decimals: bool = False, above_low: bool = False) -> None:
        self.low = low
        self.high = high
        self.kinds = (NUMBER, DECIMAL) if decimals else (NUMBER,)
        self.expects = expects
        self.above_low = above_low

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind not in self.kinds:
            return self.mismatch(node, path, reading)
        if not self.low <= node.value <= self.high or (self.above_low and node.value == self.low):
            return reading.problem(node, path, f"{node.raw} is out of range", f"write {self.expects}")
        return node.value

    def json(self) -> Json:
        low = "exclusiveMinimum" if self.above_low else "minimum"
        return {"type": "number" if DECIMAL in self.kinds else "integer", low: self.low, "maximum": self.high}


class Text(Shape):
    """Text that matches `pattern` as a whole (none: any but the empty text), then goes through `convert`.

    `shown` is a pattern for the JSON Schema alone, where `convert` finds out as much without the cost of compiling it.
    """

    kinds = (TEXT,)
    free_text = True

    def __init__(
        self, expects: str, pattern: str = "", convert: Callable[[str], Any] | None = None, *, shown: str = ""
    ) -> None:
        self.expects = expects
        self.pattern = pattern
        self.convert = convert
        self.shown = shown

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind != TEXT:
            return self.mismatch(node, path, reading)
        value = node.value
        if not value:
            return reading.problem(node, path, "is empty", f"write {self.expects}")
        if self.pattern:
            import re

            if len(value) > MAX_TEXT or re.fullmatch(self.pattern, value) is None:
                return reading.problem(node, path, f"{quoted(value)} does not fit", f"write {self.expects}")
        if self.convert is None:
            return value
        if reading.problems.full:
            reading.problems.skip()  # what else is wrong would not be told, and a conversion can take its time
            return INVALID
        try:
            return self.convert(value)
        except Unfit as unfit:
            return reading.problem(node, path, unfit.what, unfit.right)

    def json(self) -> Json:
        if self.pattern:
            return {"type": "string", "pattern": f"^(?:{self.pattern})$", "maxLength": MAX_TEXT}
        return {"type": "string", "pattern": self.shown} if self.shown else {"type": "string", "minLength": 1}


class AnyText(Shape):
    """Text, the empty one too."""

    kinds = (TEXT,)
    free_text = True

    def __init__(self, expects: str) -> None:
        self.expects = expects

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        return node.value if node.kind == TEXT else self.mismatch(node, path, reading)

    def json(self) -> Json:
        return {"type": "string"}


class Choice(Shape):
    """One of some words, each with its value. In a Forms it takes those words and leaves other text to the others."""

    kinds: tuple[str, ...] = (TEXT,)

    def __init__(self, words: dict[str, Any] | Iterable[str]) -> None:
        self.words: dict[str, Any] = words if isinstance(words, dict) else {word: word for word in words}
        self.expects = one_of(self.words)

    def takes(self, node: Node) -> bool:
        return node.kind == TEXT and node.value in self.words

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind != TEXT:
            return reading.problem(node, path, describe(node), f"write {self.expects}")
        if node.value not in self.words:
            near = reading.near(node.value, self.words)
            right = f"did you mean {near}? write {self.expects}" if near else f"write {self.expects}"
            return reading.problem(node, path, f"{quoted(node.value)} is not known", right)
        return self.words[node.value]

    def json(self) -> Json:
        return {"enum": list(self.words)}


class Forms(Shape):
    """The first of several shapes that takes the node; a Choice before another text shape has its words reserved."""

    def __init__(self, expects: str, *forms: Shape) -> None:
        self.expects = expects
        self.forms = forms
        self.kinds = tuple({kind: None for form in forms for kind in form.kinds})
        self.free_text = any(form.free_text for form in forms)

    def takes(self, node: Node) -> bool:
        return any(form.takes(node) for form in self.forms)

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        for form in self.forms:
            if form.takes(node):
                return form.read(node, path, reading)
        if node.kind == TEXT:
            for form in self.forms:
                if isinstance(form, Choice) and (near := reading.near(node.value, form.words)):
                    right = f"did you mean {near}? write {self.expects}"
                    return reading.problem(node, path, f"{quoted(node.value)} is not known", right)
        return self.mismatch(node, path, reading)

    def json(self) -> Json:
        return {"anyOf": [form.json() for form in self.forms]}


class Then(Shape):
    """A shape whose value goes through a function, which may raise Unfit."""

    def __init__(self, shape: Shape, function: Callable[[Any], Any]) -> None:
        self.shape = shape
        self.function = function
        self.kinds = shape.kinds
        self.expects = shape.expects
        self.free_text = shape.free_text

    def takes(self, node: Node) -> bool:
        return self.shape.takes(node)

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        value = self.shape.read(node, path, reading)
        if value is INVALID:
            return INVALID
        try:
            return self.function(value)
        except Unfit as unfit:
            return reading.problem(node, path, unfit.what, unfit.right)

    def json(self) -> Json:
        return self.shape.json()


class Anything(Shape):
    """A value that is not looked at."""

    kinds = (NULL, FLAG, NUMBER, DECIMAL, TEXT, LIST, MAP)
    expects = "any value"

    def read(self, node: Node, path: str, reading: Reading) -> Any:  # noqa: ARG002
        return node.value if node.kind != BAD else INVALID

    def json(self) -> Json:
        return {}


def one_of(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
