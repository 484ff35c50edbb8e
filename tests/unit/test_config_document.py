"""Strict YAML: what is refused, where, and that no input does anything but parse or raise ConfigError."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcinit.config import document
from lcinit.config.diagnostics import InvalidFile, Problems
from lcinit.config.document import BAD, MAX_BYTES, MAX_DEPTH, MAX_NODES, Allowance, Node, compose
from lcinit.config.load import parse
from lcinit.config.values import Config
from lcinit.errors import ConfigError


def plain(node: Node) -> object:
    """The data of a node."""
    if node.kind == "list":
        return [plain(entry) for entry in node.value]
    if node.kind == "map":
        return {name.value: plain(value) for name, value in node.value}
    return node.value


def data(text: str) -> object:
    problems = Problems("f")
    node = compose(text.encode(), problems)
    problems.raise_if_any()
    return plain(node)


def problem(text: str | bytes) -> str:
    """The first problem of a document, without the file's name."""
    problems = Problems("f")
    with pytest.raises(InvalidFile) as caught:
        compose(text.encode() if isinstance(text, str) else text, problems)
        problems.raise_if_any()
    return str(caught.value).splitlines()[0].removeprefix("f:")


TEXTS = [
    "y",
    "n",
    "--",
    "--x",
    "1.2.3",
    "10.0.0.1",
    "0x",
    "1-2",
    "2024-01-01",
    "-e",
    "٣",
    "1024:4096",
    "=",
    "1m30s",
    "deadbeef",
    "/x",
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE")),
        *((word, False) for word in ("no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE")),
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        ("0", 0),
        ("-1", -1),
        ("4294967295", 4294967295),
        ("1.5", 1.5),
        ("-0.25", -0.25),
        *((word, word) for word in TEXTS),
        *((f'"{word}"', word) for word in ("yes", "010", "", "null", "1", "<<")),
    ],
)  # fmt: skip
def test_scalars_mean_what_people_read(text, value):
    found = data(f"key: {text}\n")["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("010", "write 8 if octal was meant, 10 if decimal"),
        ("-010", "write 8 if octal was meant, 10 if decimal"),
        ("00", "write 0 if octal was meant, 0 if decimal"),
        ("089", "write 89"),
        ("0x10", "write 16"),
        ("0b101", "write 5"),
        ("0o17", "write 15"),
        ("1_000", "write 1000"),
        ("+5", "write 5"),
        ("1:30", "write seconds, 1m30s"),
        ("1:30:00", "write seconds"),
        ("1:30.5", "write seconds"),
        ("1e3", "write digits, or digits.digits"),
        ("1.5e3", "write digits, or digits.digits"),
        (".5", "write digits"),
        ("5.", "write digits"),
        ("01.5", "write digits"),
        (".inf", "write digits"),
        ("-.INF", "write digits"),
        (".NaN", "write digits"),
    ],
)
def test_numbers_that_parsers_read_differently_are_refused_with_the_form_to_write(text, right):
    found = problem(f"a:\n- 1\n- {text}\n")
    assert found.startswith(f"3:3: a[1]: {text} is ")
    assert right in found
    assert f'"{text}" in quotes' in found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("12: {b: 010}\n", "12.b"),
        ("a: {yes: {b: [010]}}\n", "a.yes.b[0]"),
        ("010: {b: 010}\n", "010.b"),
        ("!x k: {b: 010}\n", "k.b"),
        ("k: 1\nk: {b: 010}\n", "k.b"),
        ("~: {b: 010}\n", "~.b"),
        ("[k]: {b: 010}\n", "?.b"),
        ("*k : {b: 010}\n", "?.b"),
    ],
)
def test_what_stands_below_a_wrong_key_has_its_name_in_the_path(text, path):
    problems = Problems("f")
    compose(text.encode(), problems)
    assert str(problems.error()).splitlines()[-1].split(": ")[1] == path


@pytest.mark.row(23)
@pytest.mark.parametrize("most", [document._MAX_NUMBER, MAX_BYTES])
@pytest.mark.parametrize("middle", ["1", "_", "7.", "0x", "1_"])
def test_what_looks_like_a_number_of_any_length_is_read_at_once(most, middle, monkeypatch):
    monkeypatch.setattr(document, "_MAX_NUMBER", most)
    began = time.process_time()
    for begin, end in itertools.product(("", "-", "0x", "1.", ".", "1e", "1:30"), ("-", "x", "e", "")):
        problems = Problems("f")
        compose(f"a: {begin}{middle * (40_000 // len(middle))}{end}\n".encode(), problems)
        assert len(str(problems.error())) < 500
    assert time.process_time() - began < 2


@pytest.mark.row(23)
@pytest.mark.parametrize("text", ["0" + "7" * 900, "1_" * 400, "0x" + "f" * 900, "*" + "a" * 9000])
def test_what_is_refused_is_not_shown_in_all_its_length(text):
    assert len(problem(f"a: {text}\n")) < 400
    assert len(problem(f"&{'a' * 9000} a: &{'b' * 9000} [*{'b' * 9000}]")) < 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", '2:11: b.c: the key "c" stands twice, first in line 2; keep one of them'),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "2:5: c.<<: a merge key; merge keys are not accepted: write the keys out"),
        ("a: !!str 1\n", '1:4: a: the tag "tag:yaml.org,2002:str"; tags are not accepted: write the value alone'),
        ("a: ! 1\n", '1:4: a: the tag "!"; tags are not accepted: write the value alone'),
        ("a: !x [1]\n", '1:4: a: the tag "!x"; tags are not accepted'),
        ("a: !!python/object/apply:os.system [x]\n", "1:4: a: the tag "),
        ("yes: 1\n", '1:1: yes: the key yes is not text to YAML; write "yes", with the quotes'),
        ("3: 1\n", '1:1: 3: the key 3 is not text to YAML; write "3", with the quotes'),
        ("[a]: 1\n", "1:1: (document): a list or mapping stands where a key is expected; write a name"),
        ("a: *x\n", "1:4: a: nothing is named &x; write &x before a value above, or the value itself"),
        ("a: &x [*x]\n", "1:8: a[0]: *x stands inside &x itself; write the value out"),
        ("a: 1\n---\nb: 2\n", '2:1: (document): a second document begins; keep one document, without another "---"'),
        ("a:\n\tb: 1\n", "2:1: a: a tab indents this line; indent with spaces"),
        ("a:\n  b: 1\n \tc: 2\n", "3:2: a.b: a tab indents this line; indent with spaces"),
        ("a: {\n\tb: 1,\n\tc: @x}\n", "3:5: a.c: while scanning for the next token, found character that "),
        ("a: [\n\t@x]\n", "2:2: a[0]: while scanning for the next token, found character that cannot start "),
        ("a: [\n\tb\n\tc]\n", "3:1: a[0]: a tab indents this line; indent with spaces"),
        ("-\tb: c\n", "1:2: [0]: a tab indents this line; indent with spaces"),
        ("a:\r\n  é: 1\u2028\tb: 2\n", "3:1: a.é: a tab indents this line; indent with spaces"),
        ("a: b: c\n", "1:5: (document): mapping values are not allowed in this context; "),
        ('a: "x\n', "2:1: a: while scanning a quoted scalar, found unexpected end of stream; close the quotation"),
        ("a: \x01\n", "1:4: (document): the character U+0001 is not allowed in YAML; "),
        ("x: é\na: \x1b\n", "2:4: "),
        (b"a: 1\nb: \xc3\xa9\xff\n", "2:5: (document): byte 0xff is not UTF-8; save the file as UTF-8"),
        ("x: 1\r\n\rz:\x85 b: \x01\n", "4:5: (document): the character U+0001 is not allowed in YAML; "),
        ("\ufeffa: \x01\n", "1:4: (document): the character U+0001 is not allowed in YAML; "),
        (b"x: 1\r\n\rz:\xe2\x80\xa9 b\xff\n", "4:3: (document): byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfa\xff\n", "1:2: (document): byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "1:1: (document): byte 0xff is not UTF-8; save the file as UTF-8"),
        ('a: "\\0"\n', "1:4: a: holds a NUL byte; "),
        ("a: 1234567890123456789\n", '1:4: a: the number "1234567890123456789" is too long; '),
    ],
)
def test_refusal_has_its_place_and_key(text, expected):
    assert problem(text).startswith(expected), problem(text)


def test_anchors_and_aliases_of_any_kind_are_accepted():
    found = data("a: &n 5\nb: *n\nc: &l [*n, x]\nd: *l\n&k e: *k\n")
    assert found == {"a": 5, "b": 5, "c": [5, "x"], "d": [5, "x"], "e": "e"}


@pytest.mark.row(23)
def test_alias_bomb_is_refused_without_being_expanded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    began = time.monotonic()
    assert f"holds more than {MAX_NODES} values with its aliases expanded" in problem("\n".join(lines))
    assert time.monotonic() - began < 5


@pytest.mark.row(23)
def test_expansion_up_to_the_cap_is_accepted_and_one_more_is_not():
    # The document, its key and the list are 3 nodes; the first entry and each alias is one.
    entries = MAX_NODES - 4
    assert len(data(f"a: [&x v{', *x' * entries}]")["a"]) == entries + 1
    assert "holds more than" in problem(f"a: [&x v{', *x' * (entries + 1)}]")


@pytest.mark.row(23)
def test_an_alias_of_a_long_text_counts_as_many_values():
    assert len(data(f"a: [&x {'v' * 32_000}{', *x' * 9}]")["a"]) == 10
    assert "holds more than" in problem(f"a: [&x {'v' * 32_000}{', *x' * 10}]")
    assert "holds more than" in problem(f"a: {{? &x {'v' * 32_000} : [*x{', *x' * 9}]}}")
    assert "holds more than" in problem(f"a: &x [{'v' * 3_200}]\nb: [*x{', *x' * 99}]")


def test_documents_that_share_an_allowance_hold_no_more_together():
    allowance = Allowance(11)
    for text in (b"a: &x [1, 2]\nb: *x", b"k"):
        compose(text, Problems("f"), allowance)
    before = allowance.left
    with pytest.raises(InvalidFile, match="all files together hold more than 11 values with their aliases expanded"):
        compose(b"[a]", Problems("f"), allowance)
    assert before == allowance.left == 1
    compose(b"k", Problems("f"), allowance)


@pytest.mark.row(23)
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 100_000])
def test_depth_is_refused_without_touching_the_stack(opening, depth):
    assert f"more than {MAX_DEPTH} deep" in problem(opening * depth)


@pytest.mark.row(23)
def test_depth_up_to_the_cap_is_accepted_and_aliases_count():
    assert data("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    half = MAX_DEPTH // 2
    assert data(f"- &a {'[' * half}{']' * half}\n- {'[' * (half - 1)}*a{']' * (half - 1)}\n")
    assert "nests more than" in problem(f"- &a {'[' * half}{']' * half}\n- {'[' * half}*a{']' * half}\n")


@pytest.mark.row(23)
def test_a_document_longer_than_the_cap_is_not_even_parsed():
    assert problem(b"\xff" * (MAX_BYTES + 1)).startswith(f"1:1: (document): holds more than {MAX_BYTES} bytes")


@pytest.mark.row(23)
def test_a_long_document_is_read_in_reasonable_time():
    began = time.monotonic()
    with pytest.raises(ConfigError):
        parse(b"x" * (MAX_BYTES - 8) + b": 1\n", "f")
    with pytest.raises(ConfigError):
        parse(b"exec: '" + b"\\" * (MAX_BYTES - 9) + b"'\n", "f")
    parse(b'exec: "' + b"x" * (MAX_BYTES - 9) + b'"\n', "f")
    assert time.monotonic() - began < 20


def test_a_document_with_its_byte_order_mark_and_windows_lines_is_read():
    assert data("\ufeffa: 1\r\nb: x\r\n") == {"a": 1, "b": "x"}


YAML_LIKE = st.text(
    alphabet=st.sampled_from(list("abe:-[]{}&*!|>'\"%@`#?,. \n\t01_xyn~<=\\\0\x1b\x85é\u2028")), max_size=60
)
KEYS = [
    "root",
    "id_map",
    "users",
    "groups",
    "size",
    "setup",
    "exec",
    "before",
    "command",
    "limits",
    "nofile",
    "mounts",
    "environment",
    "stop",
]
STRUCTURED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def parses_or_refuses(text: bytes) -> None:
    try:
        assert isinstance(parse(text, "f"), Config)
    except ConfigError as error:
        assert str(error).startswith("f:")


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_parse_or_give_a_config_error(text):
    parses_or_refuses(text)


@settings(max_examples=300, deadline=None)
@given(YAML_LIKE)
def test_any_text_parses_or_gives_a_config_error(text):
    parses_or_refuses(text.encode())


@settings(max_examples=300, deadline=None)
@given(STRUCTURED)
def test_any_structure_parses_or_gives_a_config_error(value):
    import json

    parses_or_refuses(json.dumps(value).encode())


def test_a_bad_node_is_reported_once_and_not_by_its_reader():
    problems = Problems("f")
    node = compose(b"runlevel: 010\n", problems)
    assert node.get("runlevel").kind == BAD
    with pytest.raises(InvalidFile) as caught:
        parse(b"runlevel: 010\n", "f")
    assert len(caught.value.problems) == 1
