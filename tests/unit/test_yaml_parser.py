"""libyaml's parser without the rest of PyYAML, each case in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lcinit

PATHS = [str(Path(lcinit.__file__).parent.parent), os.path.dirname(os.path.dirname(yaml.__file__))]
COMPOSE = """
from lcinit.config.diagnostics import Problems, InvalidFile
from lcinit.config.document import compose
def told(data):
    try:
        compose(data, Problems("f"))
    except InvalidFile as error:
        return str(error)
    return "nothing"
"""
WRONG = [
    b"a: \x01\n",
    b"a: [1\n",
    b"\tb: 1\n",
    b"a: 'x\n",
    b"%YAML 9.9\n---\na\n",
    b"a: @b\n",
    b"- a\nb: c\n",
    b"a: \xf0\x9f\x98\x80\x7f",
]


def said(code: str) -> list[str]:
    start = f"import sys; sys.path[:0] = {PATHS!r}\nimport lcinit.config.yaml_parser as module\n"
    argv = [sys.executable, "-I", "-S", "-c", f"{start}yaml_parser = module.yaml_parser\n{code}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_it_parses_without_the_rest() -> None:
    code = """
events, parsed = yaml_parser().events, yaml_parser().parse("a: [1]")
kinds = []
while (event := parsed.get_event()) is not None:
    kinds.append(type(event).__name__[:-5])
print(*kinds)
print("re" in sys.modules, "yaml" in sys.modules, yaml_parser() is yaml_parser())
"""
    begins, ends = "StreamStart DocumentStart MappingStart", "MappingEnd DocumentEnd StreamEnd"
    assert said(code) == [f"{begins} Scalar SequenceStart Scalar SequenceEnd {ends}", "False False True"]


@pytest.mark.parametrize("data", WRONG)
def test_what_is_wrong_is_told_as_with_all_of_it(data: bytes) -> None:
    alone = said(COMPOSE + f"print(told({data!r}))")
    assert alone == said("import yaml\n" + COMPOSE + f"print(told({data!r}))")
    assert alone[0].startswith("f:1:") or alone[0].startswith("f:2:")


@pytest.mark.parametrize("before", [False, True])
def test_others_can_load_with_it_in_the_same_process(before: bool) -> None:
    code = f"""
if {before}:
    import yaml
yaml_parser()
import yaml
print(yaml.safe_load("a: [1, 2.5, x]"), yaml.load("b: 1", yaml.CSafeLoader), yaml.__with_libyaml__)
try:
    yaml.load("[", yaml.CSafeLoader)
except yaml.YAMLError as error:
    kind = type(error)
print(kind.__name__, hasattr(yaml, "nodes"), kind is yaml.parser.ParserError)
"""
    assert said(code) == ["{'a': [1, 2.5, 'x']} {'b': 1} True", f"ParserError {before} {before}"]


@pytest.mark.parametrize("missing", ["reader", "representer"])
def test_one_that_asks_for_more_is_imported_as_it_is(missing: str) -> None:
    code = (
        COMPOSE
        + f"""
del module._UNMARKED[{missing!r}]
print(told(b"a: 1"), told(b"a: [1").partition(":")[0], "yaml.resolver" in sys.modules)
"""
    )
    assert said(code) == ["nothing f True"]


def test_events_of_another_pyyaml_are_an_error_and_no_empty_document() -> None:
    code = """
from lcinit.config.diagnostics import Problems
from lcinit.config.document import compose
for name, kind in vars(yaml_parser().events).copy().items():
    if name.endswith("Event"):
        setattr(yaml_parser().events, name, type(name, (), {}))
try:
    print(compose(b"a: 1", Problems("f")).kind)
except module.LcinitError as error:
    print(error.exit_code, error)
"""
    (line,) = said(code)
    assert line == "71 PyYAML's parser and its events are not of one version; install PyYAML anew"


def test_a_broken_import_takes_nothing_with_it() -> None:
    code = """
def vanish(base):
    sys.modules.pop("yaml")
    raise ValueError("gone")
module._reader_error = vanish
print(yaml_parser().parse is not None, "yaml.resolver" in sys.modules)
"""
    assert said(code) == ["True True"]


def test_none_at_all_is_an_import_error_and_one_without_libyaml_is_told() -> None:
    code = f"""
sys.path.remove({PATHS[1]!r})
try:
    yaml_parser()
except ImportError as error:
    print(error)
sys.path.append({PATHS[1]!r})
sys.modules["yaml._yaml"] = None
try:
    yaml_parser()
except Exception as error:
    print(error.exit_code, error)
"""
    missing, without = said(code)
    assert missing == "No module named 'yaml'"
    assert without.startswith("71 PyYAML was built without libyaml")
