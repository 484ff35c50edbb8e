"""Reading the configuration in a process of its own.

PID 1 then never holds the YAML parser: a parser that crashes is a child that crashed, its memory is gone when it is
done, and on a second core it works while PID 1 imports what the boot needs. The child answers with plain data, in the
form of marshal, of which PID 1 makes the same Config that the child had.
"""

from __future__ import annotations

import marshal
import os

from lcinit.errors import EX_CONFIG, ConfigError, LcinitError
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Never

    from lcinit.config.values import Config

_CHUNK = 1 << 16
_NOTHING = object()


class Reading:
    """A configuration that is being read by the child `pid`. `result` must be asked for once: it reaps the child."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _read(path, writer)
        os.close(writer)
        self._reader = reader

    def result(self) -> Config:
        """The configuration. Raises what reading it raised, with the same message and exit code."""
        chunks = []
        try:
            while chunk := os.read(self._reader, _CHUNK):
                chunks.append(chunk)
        finally:
            os.close(self._reader)
        _, status = os.waitpid(self.pid, 0)
        answer = b"".join(chunks)
        if status != 0 or not answer:
            code = os.waitstatus_to_exitcode(status)
            how = f"with signal {-code}" if code < 0 else f"with exit code {code}"
            raise ConfigError(f"the process that read the configuration ended {how}", hint="`lcinit check` tells more")
        kind, value = marshal.loads(answer)
        if kind == "error":
            message, hint, code = value
            raise LcinitError(message, hint=hint, exit_code=code)
        config: Config = from_plain(value)
        return config


def _read(path: str | None, writer: int) -> Never:
    """In the child."""
    status = EX_CONFIG
    try:
        from lcinit.config.load import load

        try:
            answer: tuple[str, Any] = ("config", to_plain(load(path)))
        except LcinitError as error:
            answer = ("error", (error.message, error.hint, error.exit_code))
        data = marshal.dumps(answer)
        while data:
            data = data[os.write(writer, data) :]
        status = 0
    finally:
        os._exit(status)


def to_plain(value: Any) -> Any:
    """A value of a configuration as what marshal knows: a record becomes a pair of its class's name and its fields."""
    if isinstance(value, Record):
        # what is the class's own default is left out: most of a service is
        defaults = type(value)
        given = value.__dict__.items()
        fields = {name: to_plain(each) for name, each in given if each is not getattr(defaults, name, _NOTHING)}
        return {"": defaults.__name__, **fields}
    if isinstance(value, tuple):
        return tuple(to_plain(each) for each in value)
    return value


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`."""
    if isinstance(value, dict):
        from lcinit.config import service_values, values

        name = value.pop("")
        record = getattr(values, name, None) or getattr(service_values, name)
        return record(**{key: from_plain(each) for key, each in value.items()})
    if isinstance(value, tuple):
        return tuple(from_plain(each) for each in value)
    return value
