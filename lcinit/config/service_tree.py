"""Checking service files where they lie."""

from __future__ import annotations

import os

from lcinit.config.document import MAP, compose
from lcinit.config.load import read_file
from lcinit.config.service_checks import merge
from lcinit.config.service_files import SUFFIX, parse_service
from lcinit.config.service_names import is_name
from lcinit.config.service_schema import SERVICE
from lcinit.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.config.service_values import Service


def is_service(data: bytes, configuration_keys: frozenset[str]) -> bool:
    """Whether a document is a service file: keys of a service, and none that a configuration has."""
    from lcinit.config.diagnostics import Problems

    try:
        node = compose(data, Problems(""))
    except ConfigError:
        return False
    names = {name.value for name, _ in node.value} if node.kind == MAP else set()
    return bool(names & SERVICE.fields.keys()) and not names & configuration_keys


def check_service(path: str) -> Service:
    """The service that a file is by itself. Raises ConfigError with every problem."""
    name = os.path.basename(path).removesuffix(SUFFIX)
    if not is_name(name):
        raise ConfigError(f"{path}: no service can have this name", hint="letters, digits, _ . @ -, at most 64")
    service, mistakes = merge(name, [parse_service(read_file(path), path, name)])
    if mistakes:
        raise ConfigError("\n".join(each.text() for each in mistakes))
    return service


def files_of(directory: str) -> list[str]:
    """The service files of a directory. Raises ConfigError."""
    try:
        entries = sorted(os.listdir(directory))
    except OSError as error:
        raise ConfigError(f"cannot read {directory}: {error.strerror}") from error
    return [os.path.join(directory, each) for each in entries if each.endswith(SUFFIX) and not each.startswith(".")]
