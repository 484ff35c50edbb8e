"""The JSON Schema: an independent validator accepts what lcinit accepts, and refuses what a schema can refuse."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lcinit.cli import schema as command
from lcinit.config.compound import Fields, ListOf
from lcinit.config.diagnostics import Problems
from lcinit.config.document import compose
from lcinit.config.load import parse
from lcinit.config.schema import CONFIG, json_schema
from lcinit.config.shapes import Forms, Shape, Then
from lcinit.config.values import Command, Config
from lcinit.errors import ConfigError
from tests.unit.test_config_compatibility import ACCEPTED, REFUSED
from tests.unit.test_config_document import plain

DATA = Path(__file__).parent / "data"
DOCS = Path(__file__).parents[2] / "docs"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
# What is wrong with these is no matter of form: arithmetic on ids, one key beside another, a text read as words.
BEYOND_A_SCHEMA = {
    "root: none", "root: /", "root: /mnt/../etc", "id_map: {users: 1 5 1}", "exec: 'echo \"x'",
}  # fmt: skip
BROKEN_BEYOND_A_SCHEMA = {"overlapping-map", "outer-root"}
UNREADABLE = {"alias-bomb", "duplicate-key", "tab-indentation"}


def data(text: bytes) -> object:
    """The data of a document, as any YAML library would give it; InvalidFile where lcinit's reader refuses it."""
    problems = Problems("f")
    node = compose(text, problems)
    problems.raise_if_any()
    return plain(node)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", ["example-init.yml", "every-key.yml"])
def test_examples_are_accepted_by_both(name):
    text = (DATA / name).read_bytes()
    assert isinstance(parse(text, name), Config)
    VALIDATOR.validate(data(text))


@pytest.mark.parametrize("text", [text for text, _ in ACCEPTED])
def test_accepted_forms_are_accepted_by_both(text):
    VALIDATOR.validate(data(text.encode()))


@pytest.mark.parametrize("text", [text for text, _ in REFUSED if text not in BEYOND_A_SCHEMA])
def test_refused_forms_are_refused_by_both(text):
    try:
        read = data(text.encode())
    except ConfigError:
        return
    assert not VALIDATOR.is_valid(read)


@pytest.mark.parametrize("path", sorted((DATA / "broken").glob("*.yml")), ids=lambda path: path.stem)
def test_broken_files_are_refused_by_both_where_a_schema_can(path):
    with pytest.raises(ConfigError):
        parse(path.read_bytes(), path.name)
    if path.stem == "octal":
        assert not VALIDATOR.is_valid(yaml.safe_load(path.read_text()))
    elif path.stem not in UNREADABLE:
        assert VALIDATOR.is_valid(data(path.read_bytes())) is (path.stem in BROKEN_BEYOND_A_SCHEMA)


SCALARS = st.sampled_from(
    [None, True, False, 0, 1, 5, 1.5, "", "auto", "none", "/x", "x y", "0 1 2", "1m", "TERM", "a"]
)
INNER = {key for field in CONFIG.fields.values() for key in getattr(field.shape, "fields", {})}
KEYS = st.sampled_from(sorted({*CONFIG.fields, *INNER, "path", "users", "groups", "before", "command", "timeout"}))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2), max_leaves=6
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(CONFIG.fields)), VALUES, max_size=1))
def test_what_lcinit_accepts_the_schema_accepts(value):
    try:
        parse(json.dumps(value).encode(), "f")
    except ConfigError:
        return
    VALIDATOR.validate(value)


def shapes(shape: Shape, path: str) -> dict[str, Fields]:
    """Every mapping of known keys below a shape, by the path of the mapping."""
    if isinstance(shape, Fields):
        found = {path: shape}
        for key, field in shape.fields.items():
            found.update(shapes(field.shape, f"{path}.{key}" if path else key))
        return found
    if isinstance(shape, Forms):
        return {at: inner for form in shape.forms for at, inner in shapes(form, path).items()}
    if isinstance(shape, Then):
        return shapes(shape.shape, path)
    return shapes(shape.entry, path) if isinstance(shape, ListOf) else {}


def section(path: str, fields: Fields) -> str:
    """The part of the documentation that tells about a mapping: of commands there is one for all."""
    parts = (DOCS / "configuration.md").read_text().split("\n## ")
    if fields.record is Command:
        return next(part for part in parts if part.startswith("Kinds of values"))
    if not path:
        return "\n".join(part.split("\n")[0] for part in parts)
    return next(part for part in parts if f"`{path.partition('.')[0].partition('[')[0]}`" in part.split("\n")[0])


@pytest.mark.parametrize(("path", "fields"), shapes(CONFIG, "").items())
def test_every_key_is_documented(path, fields):
    text = section(path, fields)
    for key, field in fields.fields.items():
        assert f"`{key}`" in text, f"docs/configuration.md does not name {path}.{key}"
        assert field.doc.endswith(".")


def blocks(path: Path) -> list[str]:
    """The YAML examples of a document."""
    parts = path.read_text().split("```yaml\n")[1:]
    return [part.split("```")[0] for part in parts]


@pytest.mark.parametrize("text", blocks(DOCS / "configuration.md"), ids=lambda text: text.split("\n")[0])
def test_examples_in_the_documentation_are_right(text):
    assert isinstance(parse(text.encode(), "configuration.md"), Config)
    VALIDATOR.validate(data(text.encode()))


def test_the_whole_schema_of_the_documentation_is_the_defaults():
    whole = max(blocks(DOCS / "configuration.md"), key=len)
    config = parse(whole.encode(), "configuration.md")
    assert config.replace(exec=config.exec.replace(command_given=False)) == Config()
    assert set(data(whole.encode())) == set(CONFIG.fields)


def test_the_command_prints_it(capsys):
    assert command.run([]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
