"""Words of other supervisors in a service file: what is meant is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lcinit.config.other_words import OF_SERVICES, folded
from lcinit.config.service_files import parse_service
from lcinit.config.service_schema import SERVICE
from lcinit.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "services.md"


def told(key: str) -> str:
    """What the message says of an unknown key."""
    with pytest.raises(ConfigError) as caught:
        parse_service(f"command: x\n{key}: 1\n".encode(), "a.yml", "a")
    return caught.value.message.partition(" is unknown; ")[2]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("WorkingDirectory", "cwd"),
        ("working_directory", "cwd"),
        ("working-directory", "cwd"),
        ("directory", "cwd"),
        ("ExecStart", "command"),
        ("exec_start_pre", "start_pre"),
        ("TimeoutStopSec", "stop_timeout"),
        ("timeout_stop", "stop_timeout"),
        ("stopwaitsecs", "stop_timeout"),
        ("stop-timeout", "stop_timeout"),
        ("StopTimeout", "stop_timeout"),
        ("KillSignal", "stop_signal"),
        ("depends_on", "requires"),
        ("After", "start_after"),
        ("LimitNOFILE", "limits: {nofile: …}"),
        ("MemoryMax", "cgroup: {memory_max: …}"),
        ("EnvironmentFile", "environment_file"),
        ("UMask", "umask"),
        ("comand", "command"),
    ],
)
def test_what_is_meant_is_told(written: str, meant: str) -> None:
    assert told(written) == f"did you mean {meant}?"


def test_a_word_of_nobodys_is_answered_with_the_keys() -> None:
    assert told("zzz").startswith("the keys here are description, command")


def test_what_is_told_is_a_key_and_no_word_is_one() -> None:
    for word, meant in OF_SERVICES.items():
        key, _, within = meant.partition(": ")
        assert key in SERVICE.fields, (word, meant)
        assert word == folded(word)
        assert word not in {folded(each) for each in SERVICE.fields}, word
        if within:
            told_of = SERVICE.fields[key].shape.json()
            assert within[1:-4] in str(told_of), (word, meant)


def test_every_word_of_systemds_in_the_documentation_is_known() -> None:
    found = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            keys = re.findall(r"`(\w+)`", cells[0])
            words = re.findall(r"`([A-Z]\w+)=", cells[3])
            found.update(dict.fromkeys(words, keys))
    assert len(found) > 40
    for word, keys in found.items():
        assert any(key in told(word) for key in keys), (word, keys, told(word))
