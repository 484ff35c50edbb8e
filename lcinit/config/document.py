"""Strict YAML: bytes to a tree of nodes that know their place. No I/O.

The parser is libyaml's, through PyYAML, read event by event: nothing recurses, so the depth of a document never
touches the C stack, and the caps on depth and size hold before anything is built. Plain scalars are resolved as in
YAML 1.1, less everything that people read otherwise: `010`, `0x10`, `1_000`, `1:30`, `1e3` are refused with the form
to write, as are tags, merge keys, duplicate keys and a second document. Aliases are accepted as long as the document
stays below the cap with all of them expanded, where a long text counts as many values.
"""

from __future__ import annotations

from lcinit.config.diagnostics import Problems, below, quoted, shortened
from lcinit.config.yaml_parser import yaml_parser
from lcinit.errors import EX_OSERR, LcinitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
"""Nested collections, aliases expanded."""
MAX_NODES: Final = 20_000
"""Scalars and collections, keys too, aliases expanded."""
_TEXT_OF_A_VALUE: Final = 16
"""So many characters count as one more value where an alias repeats them."""

ROOT_PATH: Final = "(document)"
"""What stands for the key path of the document itself in a message."""

# What a node can be. A BAD one was reported when it was read: nobody reports it again.
NULL: Final = "null"
FLAG: Final = "flag"
NUMBER: Final = "number"
DECIMAL: Final = "decimal"
TEXT: Final = "text"
LIST: Final = "list"
MAP: Final = "map"
BAD: Final = "bad"

_WORDS: Final[dict[str, tuple[str, bool | None]]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), (NULL, None)),
    **{form: (FLAG, True) for word in ("yes", "true", "on") for form in (word, word.title(), word.upper())},
    **{form: (FLAG, False) for word in ("no", "false", "off") for form in (word, word.title(), word.upper())},
}
_NUMERIC_START: Final = frozenset("+-.0123456789")
_NUMERIC: Final = frozenset("0123456789abcdefABCDEFxXoOinIN_.:+-")
# Everything that YAML 1.1 or 1.2 calls a number, beside plain decimal integers and fractions.
_ODD_NUMBER: Final = (
    r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
_MAX_DIGITS: Final = 18
_MAX_NUMBER: Final = 1000
"""Characters of what can be meant as a number: what is longer is text."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = ("\r\n", "\r", "\x85", "\u2028", "\u2029")
_FEWER: Final = "use fewer aliases, above all of long texts, or write shorter files"
_SYNTAX_HINTS: Final = {
    "mapping values are not allowed in this context": "indent keys of one mapping alike, and put text that holds "
    '": " in quotes',
    "did not find expected key": "indent keys of one mapping alike, and entries of one list alike",
    "could not find expected ':'": 'write "key: value", and put longer text in quotes',
    "found unexpected end of stream": "close the quotation",
    "did not find expected ',' or ']'": "close the list with ]",
    "did not find expected ',' or '}'": "close the mapping with }",
    "found character that cannot start any token": "put text that begins with a special character in quotes",
}


class Node:
    """One value of a document.

    `kind` is one of the constants above; `value` is None, bool, int, float, str, a list of nodes, or a list of pairs
    of nodes. `raw` is a scalar as written. `line` and `column` count from 1. `weight` is what an alias of it counts:
    this node, all below it, and their text; `height` the collections on the longest way down.
    """

    __slots__ = ("column", "height", "kind", "line", "raw", "value", "weight")

    def __init__(self, kind: str, value: Any, line: int, column: int, raw: str = "") -> None:
        self.kind = kind
        self.value = value
        self.line = line
        self.column = column
        self.raw = raw
        self.weight = 1
        self.height = 0

    def get(self, key: str) -> Node | None:
        """The value of a key; None where there is none or this is no mapping."""
        if self.kind == MAP:
            for name, value in self.value:
                if name.value == key:
                    return value  # type: ignore[no-any-return]
        return None


class Allowance:
    """The values that may be in all documents together that share it, aliases expanded."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left = most


class _Open:
    """A collection whose end has not been read."""

    __slots__ = ("key", "node", "seen")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key: Node | None = None
        self.seen: dict[str, int] = {}


def compose(data: bytes, problems: Problems, allowance: Allowance | None = None) -> Node:
    """The document in `data`; an empty one is a null node.

    Problems that leave the structure readable are noted in `problems`, and their nodes are BAD; others are raised
    as InvalidFile, with all that was noted before; one that finds too little left of the `allowance` takes nothing of
    it. LcinitError when PyYAML was built without libyaml.
    """
    if len(data) > MAX_BYTES:
        problems.add(1, 1, ROOT_PATH, f"holds more than {MAX_BYTES} bytes", "write a shorter file")
        raise problems.error()
    composer = _Composer(_decode(data, problems), problems)
    root = composer.compose()
    if allowance is not None:
        if composer.total > allowance.left:
            what = f"all files together hold more than {allowance.most} values with their aliases expanded"
            problems.add(1, 1, ROOT_PATH, what, _FEWER)
            raise problems.error()
        allowance.left -= composer.total
    return root


def _decode(data: bytes, problems: Problems) -> str:
    data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place_after(data[: error.start].decode())
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        problems.add(line, column, ROOT_PATH, what, "save the file as UTF-8")
        raise problems.error() from None


def _place_after(text: str) -> tuple[int, int]:
    """Line and column of what follows, with the line ends of YAML."""
    for end in _LINE_ENDS:
        text = text.replace(end, "\n")
    return text.count("\n") + 1, len(text) - text.rfind("\n")


class _Composer:
    """Builds the tree from events, with a stack of its own."""

    def __init__(self, text: str, problems: Problems) -> None:
        self._text = text
        self._problems = problems
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._unfinished: set[int] = set()
        self.total = 0
        self._root: Node | None = None

    def compose(self) -> Node:
        yaml = yaml_parser()
        events = yaml.events
        scalar, mapping, mapping_end = events.ScalarEvent, events.MappingStartEvent, events.MappingEndEvent
        try:
            next_event = yaml.parse(self._text).get_event
            if type(next_event()) is not events.StreamStartEvent:
                raise LcinitError(
                    "PyYAML's parser and its events are not of one version",
                    hint="install PyYAML anew",
                    exit_code=EX_OSERR,
                )
            while (event := next_event()) is not None:
                kind = type(event)
                if kind is scalar:
                    self._scalar(event)
                elif kind is mapping:
                    self._open(event, MAP)
                elif kind is events.SequenceStartEvent:
                    self._open(event, LIST)
                elif kind is mapping_end or kind is events.SequenceEndEvent:
                    self._close()
                elif kind is events.AliasEvent:
                    self._alias(event)
                elif kind is events.DocumentStartEvent and self._root is not None:
                    self._fail(event.start_mark, "a second document begins", 'keep one document, without another "---"')
        except yaml.MarkedError as error:
            self._syntax(error)
        except yaml.Error as error:
            self._unreadable(error)
        return self._root or Node(NULL, None, 1, 1)

    # Nodes

    def _scalar(self, event: Any) -> None:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        self.total += 1
        if self.total > MAX_NODES:
            self._count(mark, 0)
        if event.tag is not None:
            node = self._bad(
                line, column, f"the tag {quoted(event.tag)}", "tags are not accepted: write the value alone"
            )
        elif event.implicit[0]:
            node = self._plain(event.value, line, column)
        elif "\0" in event.value:
            node = self._bad(line, column, "holds a NUL byte", "nothing that the kernel takes can hold one")
        else:
            node = Node(TEXT, event.value, line, column, event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        node.raw = event.value
        node.weight += len(event.value) // _TEXT_OF_A_VALUE
        self._add(node)

    def _plain(self, raw: str, line: int, column: int) -> Node:
        word = _WORDS.get(raw)
        if word is not None:
            return Node(word[0], word[1], line, column, raw)
        if raw[0] in _NUMERIC_START:
            digits = raw[1:] if raw[0] == "-" else raw
            if digits.isascii() and digits.isdigit() and (digits[0] != "0" or digits == "0"):
                if len(digits) > _MAX_DIGITS:
                    return self._bad(line, column, f"the number {quoted(raw)} is too long", "no value here is as large")
                return Node(NUMBER, int(raw), line, column, raw)
            if len(raw) <= _MAX_NUMBER and _NUMERIC.issuperset(raw):
                return self._numeric(raw, line, column)
        elif raw == "<<" and self._stack and self._stack[-1].node.kind == MAP and self._stack[-1].key is None:
            right = "merge keys are not accepted: write the keys out"
            return self._bad(line, column, "a merge key", right, key=raw)
        return Node(TEXT, raw, line, column, raw)

    def _numeric(self, raw: str, line: int, column: int) -> Node:
        """A plain scalar made of the characters of numbers alone."""
        import re

        if re.fullmatch(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}", raw):
            return Node(DECIMAL, float(raw), line, column, raw)
        if not re.fullmatch(_ODD_NUMBER, raw):
            return Node(TEXT, raw, line, column, raw)
        return self._bad(line, column, *_odd_number(raw))

    def _bad(self, line: int, column: int, what: str, right: str, *, key: str = "") -> Node:
        self._problems.add(line, column, self._path(key), what, right)
        return Node(BAD, None, line, column, key)

    def _open(self, event: Any, kind: str) -> None:
        mark = event.start_mark
        self._count(mark, 1)
        node = Node(kind, [], mark.line + 1, mark.column + 1)
        node.height = 1
        if event.tag is not None:
            self._bad(node.line, node.column, f"the tag {quoted(event.tag)}", "tags are not accepted")
        if len(self._stack) >= MAX_DEPTH:
            self._fail(mark, f"is nested more than {MAX_DEPTH} deep", "write it flatter")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._unfinished.add(id(node))
        self._stack.append(_Open(node))

    def _close(self) -> None:
        node = self._stack.pop().node
        self._unfinished.discard(id(node))
        self._add(node)

    def _alias(self, event: Any) -> None:
        mark = event.start_mark
        name = shortened(event.anchor)
        node = self._anchors.get(event.anchor)
        if node is None:
            right = f"write &{name} before a value above, or the value itself"
            node = self._bad(mark.line + 1, mark.column + 1, f"nothing is named &{name}", right)
        elif id(node) in self._unfinished:
            self._fail(mark, f"*{name} stands inside &{name} itself", "write the value out")
        if len(self._stack) + node.height > MAX_DEPTH:
            self._fail(mark, f"*{name} nests more than {MAX_DEPTH} deep", "write it flatter")
        self._count(mark, node.weight)
        self._add(node)

    def _add(self, node: Node) -> None:
        """Put a finished node into the collection that is open."""
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        outer, key = parent.node, parent.key
        outer.weight += node.weight
        if node.height >= outer.height:
            outer.height = node.height + 1
        if outer.kind == LIST:
            outer.value.append(node)
        elif key is None:
            parent.key = self._key(node, parent)
        else:
            if key.kind != BAD:
                outer.value.append((key, node))
            parent.key = None

    def _key(self, node: Node, parent: _Open) -> Node:
        """The node as a key of `parent`: text, and not there yet."""
        if node.kind == BAD:
            return node
        if node.kind in (LIST, MAP):
            return self._bad(node.line, node.column, "a list or mapping stands where a key is expected", "write a name")
        if node.kind != TEXT:
            shown = node.raw or "nothing"
            what = f"the key {shown} is not text to YAML"
            right = f"write {quoted(node.raw)}, with the quotes"
            return self._bad(node.line, node.column, what, right, key=shown)
        first = parent.seen.get(node.value)
        if first is not None:
            what = f"the key {quoted(node.value)} stands twice, first in line {first}"
            return self._bad(node.line, node.column, what, "keep one of them", key=node.value)
        parent.seen[node.value] = node.line
        return node

    # Problems

    def _path(self, key: str = "") -> str:
        """The key path of what is being read; `key` when that is a key itself."""
        path = ""
        for entry in self._stack:
            if entry.node.kind == LIST:
                path += f"[{len(entry.node.value)}]"
            elif entry.key is not None:
                path = below(path, entry.key.raw or "?")
        return (below(path, key) if key else path) or ROOT_PATH

    def _count(self, mark: Any, nodes: int) -> None:
        self.total += nodes
        if self.total > MAX_NODES:
            what = f"holds more than {MAX_NODES} values with its aliases expanded"
            self._fail(mark, what, _FEWER)

    def _fail(self, mark: Any, what: str, right: str) -> NoReturn:
        self._problems.add(mark.line + 1, mark.column + 1, self._path(), what, right)
        raise self._problems.error()

    def _syntax(self, error: Any) -> NoReturn:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        if "nesting depth" in str(error.problem):  # libyaml has a cap of its own since 0.2.6, far above ours
            what, right = f"is nested more than {MAX_DEPTH} deep", "write it flatter"
        elif mark is not None and self._text[mark.index : mark.index + 1] == "\t":
            what, right = "a tab indents this line", "indent with spaces"
        else:
            what = f"{error.context}, {error.problem}" if error.context else str(error.problem)
            right = _SYNTAX_HINTS.get(str(error.problem), "see YAML 1.1, or put text with special characters in quotes")
        self._problems.add(line, column, self._path(), what, right)
        raise self._problems.error() from None

    def _unreadable(self, error: Any) -> NoReturn:
        """A character that YAML does not allow anywhere: libyaml tells an offset in bytes, this a place."""
        offset = int(getattr(error, "position", 0) or 0)
        line, column = _place_after(self._text.encode()[:offset].decode("utf-8", "ignore"))
        character = getattr(error, "character", None)
        what = f"the character U+{character:04X}" if isinstance(character, int) else "a character"
        right = 'write it as an escape in double quotes, as "\\x1b"'
        self._problems.add(line, column, self._path(), f"{what} is not allowed in YAML", right)
        raise self._problems.error() from None


def _odd_number(raw: str) -> tuple[str, str]:
    """What is wrong with a number in a form that readers and parsers understand differently, and what to write."""
    shown = shortened(raw)
    text = f'or "{shown}" in quotes for the text'
    plain = raw.replace("_", "").lstrip("+")
    digits = plain.lstrip("-")
    if ":" in raw:
        return f"{shown} is a number to base 60 in YAML 1.1", f"write seconds, 1m30s, {text}"
    if digits[:2] in ("0x", "0b", "0o"):
        if len(digits) > 2 and len(digits) <= _MAX_DIGITS:
            return f"{shown} is not decimal", f"write {int(plain, 0)}, {text}"
        return f"{shown} is not decimal", f"write a decimal number, {text}"
    if digits.isdigit() and len(digits) > _MAX_DIGITS:
        return f"the number {shown} is too long", f"write a shorter one, {text}"
    if digits.isdigit() and digits[0] == "0" and len(digits) > 1:
        stripped = digits.lstrip("0") or "0"
        if not set("89") & set(digits):
            octal = f"{int(digits, 8)} if octal was meant, {stripped} if decimal"
        else:
            octal = stripped
        return f"{shown} is octal in YAML 1.1 and decimal in YAML 1.2", f"write {octal}, {text}"
    if digits.isdigit():
        return f"{shown} is not a plain number", f"write {plain}, {text}"
    return f"{shown} is not a plain number", f"write digits, or digits.digits, {text}"
