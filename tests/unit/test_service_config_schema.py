"""The JSON Schema of a service file agrees with its reader, and docs/services.md with both."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lcinit.cli import schema as command
from lcinit.config.service_checks import merge
from lcinit.config.service_files import catalogue_directory, parse_service
from lcinit.config.service_schema import SERVICE, service_json_schema
from lcinit.config.service_values import CgroupLimits, Health, Service, ServiceLog
from lcinit.errors import ConfigError
from tests.unit.test_config_schema import VALIDATOR as INIT
from tests.unit.test_config_schema import blocks, data
from tests.unit.test_service_config_fields import ACCEPTED, REFUSED, inner

DOCS = Path(__file__).parents[2] / "docs" / "services.md"
VALIDATOR = jsonschema.Draft202012Validator(service_json_schema())
# What is wrong with these is no matter of form: arithmetic, names of the kernel's, addresses, one key beside another.
BEYOND_A_SCHEMA = (
    *("command: '\"x'", 'command: ["", x]', "pid_file: /run/../x", "description: ", "limits: {nofile: '5:4'"),
    *(
        "reload_signal: SIGFOO",
        "watchdog_signal: SIGFOO",
        "success_exit_status: [SIGFOO]",
        "restart_prevent_exit_status: [SIGFOO]",
    ),
    *("health: {tcp: '", "health: {http: 'http://", 'health: {http: "http://', "environment_file: "),
    *(
        "capabilities: [net_rwa]",
        "cgroup: {memory_max: 0M}",
        "cgroup: {memory_max: 9999999999T}",
        "cgroup: {memory_max: 4194305T}",
        "log: {to: none",
    ),
    *("cgroup: {memory_high: 2M, ", "cgroup: {cpu_max: 0%}", "cgroup: {cpu_max: 100001%}", "log: {max_"),
    *("log: {to: file, format", "log: {rate_limit_interval", "tty: /dev/../etc/x"),
    "runlevels: 1.0",  # which is an integer in JSON
    *(
        f"{key}: {name}"
        for key in ("requires", "wants", "start_after", "start_before")
        for name in ("lcinit", "exec.command", '"a\\n"')  # $ of Python's patterns is also before a last newline
    ),
    *(f"{key}: 0s" for key in ("restart_delay", "restart_max_delay", "restart_reset")),
)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(service_json_schema())
    assert service_json_schema()["title"] == "lcinit service, NAME.yml"


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, text, _ in ACCEPTED])
def test_what_is_accepted_is_accepted_by_the_schema_of_a_service_and_of_a_configuration(key, text):
    read = data(f"{key}: {text}".encode())
    VALIDATOR.validate(read)
    INIT.validate({"services": {"x": read}})


@pytest.mark.parametrize("text", [f"{key}: {text}" for key, text, _ in REFUSED])
def test_what_is_refused_is_refused_by_the_schema_where_that_is_a_matter_of_form(text):
    try:
        read = data(text.encode())
    except ConfigError:
        return
    if not text.startswith(BEYOND_A_SCHEMA):
        assert not VALIDATOR.is_valid(read)
        assert not INIT.is_valid({"services": {"x": read}})


@pytest.mark.parametrize("value", [{"sockets": []}, {"timer": "1h"}, {"comand": "x"}, [], "x", 1])
def test_what_is_no_service_is_refused_by_both(value):
    assert not VALIDATOR.is_valid(value)
    with pytest.raises(ConfigError):
        parse_service(json.dumps(value).encode(), "f", "x")


@pytest.mark.parametrize("value", [None, {}])
def test_an_empty_file_is_accepted_by_both(value):
    VALIDATOR.validate(value)
    parse_service(json.dumps(value).encode(), "f", "x")


@pytest.mark.parametrize("name", ["a", "A@b.c-1", "_", "x" * 64, "-a", "a b", "", "x" * 65, "é", "a/b", ".a"])
def test_names_of_services_are_those_of_the_schema(name):
    value = {"exec": {"mode": "tolerant", "pid": "shared"}, "services": {name: {"command": "x"}}}
    assert INIT.is_valid(value) is (name in ("a", "A@b.c-1", "_", "x" * 64))


SCALARS = st.sampled_from(
    [
        *(None, True, False, 0, 1, 3, 5, 0.0, 1.0, 1.5, "", "no", "none", "file", "/x", "/dev/x", "-/x", "x y", "1m"),
        *("TERM", "a", "512M", "50%", "022", "S", "2345", "127.0.0.1:80", "http://127.0.0.1/", "localhost:1"),
        *("net_raw", "1:2", "simple", "é\n"),
    ]
)
INNER = {name for key in ("health", "cgroup", "log") for name in inner(key).fields}
KEYS = st.sampled_from(sorted({*INNER, *("command", "timeout", "input", "user", "nofile", "soft", "hard", "A")}))
VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3), max_leaves=6
)


@settings(max_examples=600, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SERVICE.fields)), VALUES, min_size=1, max_size=2))
def test_what_lcinit_accepts_the_schema_accepts(value):
    try:
        parse_service(json.dumps(value).encode(), "f", "x")
    except ConfigError:
        return
    VALIDATOR.validate(value)


def test_defaults_in_the_schema_are_those_of_a_service():
    schema = service_json_schema()["properties"]
    shown = {key: value["default"] for key, value in schema.items() if "default" in value}
    assert shown["umask"] == "022"
    assert shown["start_timeout"] == 90.0 and shown["type"] == "simple" and shown["essential"] is False
    given = dict(parse_service(json.dumps(shown).encode(), "f", "x").given)
    assert given == {key: getattr(Service, key) for key in shown}
    assert "default" not in schema["nice"]


def test_the_command_prints_it(capsys):
    assert command.run(["--service"]) == 0
    assert json.loads(capsys.readouterr().out) == service_json_schema()
    assert command.run(["--service", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == service_json_schema()
    assert command.run([]) == 0
    assert "services" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("name", sorted(os.listdir(catalogue_directory())))
def test_the_catalogue_is_right_by_both(name):
    if name.endswith(".yml"):
        text = Path(catalogue_directory(), name).read_bytes()
        parse_service(text, name, name[:-4])
        VALIDATOR.validate(data(text))


# the documentation


def rows() -> dict[str, dict[str, list[str]]]:
    """The tables of the documentation: section → key → the other cells."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in DOCS.read_text().split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        for line in body.split("\n"):
            if line.startswith("| `"):
                names, *cells = [cell.strip() for cell in line.strip("|").replace("\\|", "¦").split(" | ")]
                for name in names.replace("`", "").split(", "):
                    found.setdefault(title.strip("`"), {})[name] = cells
    return found


RECORDS = {"health": Health, "cgroup": CgroupLimits, "log": ServiceLog}


def test_every_key_is_in_the_documentation_once():
    tables = rows()
    own = [name for title, table in tables.items() if title not in RECORDS for name in table]
    assert sorted(own) == sorted(SERVICE.fields)
    for title in RECORDS:
        assert list(tables[title]) == list(inner(title).fields)
    assert all(field.doc.endswith(".") for field in SERVICE.fields.values())


NOTHING = {"none", "null", "", "required"}
IN_WORDS = {"user", "group", "groups", "cwd", "limits", "cgroup"}


@pytest.mark.parametrize("title", [title for title in rows() if title not in RECORDS])
def test_defaults_in_the_documentation_are_true(title):
    for name, cells in rows()[title].items():
        default, written = getattr(Service, name), cells[1].replace("`", "")
        if name in IN_WORDS:
            assert default in (None, (), CgroupLimits())
        elif written in NOTHING:
            assert default in (None, (), "")
        else:
            assert parse_service(f"{name}: {cells[1].replace('`', '')}".encode(), "f", "x").given == ((name, default),)


@pytest.mark.parametrize("title", RECORDS)
def test_defaults_of_mappings_in_the_documentation_are_true(title):
    around = {"health": "tcp: 1, ", "log": "to: both, rate_limit_burst: 1, ", "cgroup": ""}[title]
    for name, cells in rows()[title].items():
        default, written = getattr(RECORDS[title], name), cells[1].replace("`", "")
        if written in NOTHING:
            assert default is None
        elif name in around:
            assert f"{default}" == written
        else:
            ((_, value),) = parse_service(f"{title}: {{{around}{name}: {written}}}".encode(), "f", "x").given
            assert getattr(value, name) == default


@pytest.mark.parametrize("text", blocks(DOCS), ids=lambda text: text.split("\n")[0])
def test_examples_in_the_documentation_are_right(text):
    value = yaml.safe_load(text)
    if "services" in value:
        INIT.validate(value)
    else:
        VALIDATOR.validate(value)
        assert merge("web", [parse_service(text.encode(), "f", "web")])[1] == ()


@pytest.mark.parametrize("name", ["service-readiness.md", "service-isolation.md", "service-logs.md"])
def test_examples_on_the_other_pages_are_right(name):
    for text in blocks(DOCS.parent / name):
        value = yaml.safe_load(text)
        if not {"services", "exec"} & value.keys():
            _, wrong = merge("x", [parse_service(b"command: x", "f", "x"), parse_service(text.encode(), "f", "x")])
            assert wrong == (), text
