"""Checking service files where they lie: each over the catalogue's of its name, as the guest's files are read."""

from __future__ import annotations

import os

from lcinit.config.diagnostics import InvalidFile, Problem, Problems, quoted
from lcinit.config.document import MAP, compose
from lcinit.config.schema import CONFIG
from lcinit.config.service_checks import merge
from lcinit.config.service_files import SUFFIX, catalogue_directory, parse_service, read_catalogue
from lcinit.config.service_names import NAME, is_name
from lcinit.config.service_schema import SERVICE
from lcinit.errors import ConfigError
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.config.service_values import Service, ServicePart


class Checked(Record):
    """What a file says of a service, and the service that it makes over what is below it; right by itself. The file is
    the service's own, or a configuration that has it among its `services`.
    """

    path: str
    part: ServicePart
    service: Service

    def says(self, key: str) -> bool:
        """Whether the file has this key of it."""
        return any(given == key for given, _ in self.part.given)

    def problem(self, key: str, what: str, right: str) -> Problem:
        """What is wrong with a key of it."""
        at = next((at for at, (given, _) in enumerate(self.part.given) if given == key), -1)
        line, column = self.part.places[at] if at >= 0 else self.part.place
        path = f"{self.part.path}.{key}" if self.part.path else key
        return Problem(line=line, column=column, path=path, what=what, right=right)


def is_service(path: str, data: bytes) -> bool:
    """Whether a document is a service file: more of its keys are a service's alone than a configuration's alone. Where
    that does not tell, by the name of its directory.
    """
    try:
        node = compose(data, Problems(path))
    except ConfigError:
        names = set()
    else:
        names = {name.value for name, _ in node.value} if node.kind == MAP else set()
    ours = len(names & (SERVICE.fields.keys() - CONFIG.fields.keys()))
    others = len(names & (CONFIG.fields.keys() - SERVICE.fields.keys()))
    return ours > others or (ours == others and os.path.basename(os.path.dirname(os.path.abspath(path))) == "services")


def shipped() -> Callable[[str], bytes | None]:
    """The catalogue."""
    return read_catalogue(catalogue_directory())


def check_service(path: str, data: bytes, catalogue: Callable[[str], bytes | None]) -> Checked:
    """The service that a file with this content makes. Raises ConfigError with every problem."""
    name = os.path.basename(path).removesuffix(SUFFIX)
    if not is_name(name):
        raise ConfigError(f"{path}: no service can be called {quoted(name)}", hint=f"rename it to what fits {NAME}")
    part = parse_service(data, path, name)
    service, mistakes = merge(name, [*_shipped_part(name, catalogue), part])
    if mistakes:
        raise InvalidFile(mistakes[0].origin, tuple(each.problem for each in mistakes))
    return Checked(path=path, part=part, service=service)


def check_inline(
    path: str, part: ServicePart, below: Checked | None, catalogue: Callable[[str], bytes | None]
) -> tuple[Checked, tuple[Problem, ...]]:
    """A service of a configuration, over that of a file of its own; and what is wrong between the two."""
    parts = [*_shipped_part(part.name, catalogue), *(() if below is None else (below.part,)), part]
    service, mistakes = merge(part.name, parts)
    return Checked(path=path, part=part, service=service), tuple(each.problem for each in mistakes)


def _shipped_part(name: str, catalogue: Callable[[str], bytes | None]) -> list[ServicePart]:
    data = catalogue(name)
    return [] if data is None else [parse_service(data, os.path.join(catalogue_directory(), f"{name}{SUFFIX}"), name)]


def files_of(directory: str) -> list[str]:
    """The service files of a directory. Raises ConfigError."""
    try:
        entries = sorted(os.listdir(directory))
    except OSError as error:
        raise ConfigError(f"cannot read {directory}: {error.strerror}") from error
    return [os.path.join(directory, each) for each in entries if each.endswith(SUFFIX) and not each.startswith(".")]
