"""Reading the configuration in a process of its own.

PID 1 then never holds the YAML parser: a parser that crashes is a child that crashed, its memory is gone when it is
done, and on a second core it works while PID 1 imports what the boot needs. The child answers with plain data, in the
form of marshal, of which PID 1 makes the same Config that the child had. With services it goes on, as their reader.
"""

from __future__ import annotations

import marshal
import os
import select

from lcinit.config.load import DEFAULT_PATH, read_file
from lcinit.config.service_values import ServicePart
from lcinit.errors import EX_CONFIG, ConfigError, LcinitError, SystemFailure
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any, Never

    from lcinit.config.values import Config

    GoOn = Callable[[Config, str | None, socket.socket], Never]
else:
    import _socket as socket

_CHUNK = 1 << 16
_NOTHING = object()
_PROCESSOR = 36  # proc_pid_stat(5), the 39th field, counted from the one after the name


class Reading:
    """A configuration that is being read by the child `pid`. `result` must be asked for once: it reaps the child, but
    for one that goes on because there are services. That is in `go_on` then, with the configuration, the path that it
    was read from, and the other end of `channel`; what `result` returns then has no more than their names.
    """

    def __init__(self, path: str | None, go_on: GoOn | None = None) -> None:
        """Forks. Raises SystemFailure."""
        self.path = path
        try:
            self.channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self.pid = os.fork()
        except OSError as error:
            raise SystemFailure.from_os_error("have the configuration read", error) from error
        if self.pid == 0:
            os.close(reader)
            self.channel.close()
            _read(path, writer, other, go_on)
        _run_elsewhere(self.pid)
        os.close(writer)
        other.close()
        self._reader = reader

    def is_ready(self) -> bool:
        """Whether the answer is there, or there will be none."""
        return bool(select.select([self._reader], [], [], 0)[0])

    def mentions_services(self) -> bool:
        """Whether the file looks as if there were services in it: what they need can be begun meanwhile."""
        try:
            text = read_file(self.path or DEFAULT_PATH)
        except ConfigError:
            return False  # the child tells what is wrong
        return any(key in text for key in (b"services:", b'services"', b"services'"))

    def result(self) -> Config:
        """The configuration. Raises what reading it raised, with the same message and exit code."""
        chunks = []
        try:
            while chunk := os.read(self._reader, _CHUNK):
                chunks.append(chunk)
        finally:
            os.close(self._reader)
        answer = b"".join(chunks)
        status = 0
        if answer:
            kind, value = marshal.loads(answer)
            if kind == "services":
                plain, names = value
                parts = tuple([ServicePart(name=name, origin="") for name in names])
                return from_plain(plain).replace(services=parts)  # type: ignore[no-any-return]
        _, status = os.waitpid(self.pid, 0)
        self.channel.close()
        if status != 0 or not answer:
            code = os.waitstatus_to_exitcode(status)
            how = f"with signal {-code}" if code < 0 else f"with exit code {code}"
            raise ConfigError(f"the process that read the configuration ended {how}", hint="`lcinit check` tells more")
        if kind == "error":
            message, hint, code = value
            raise LcinitError(message, hint=hint, exit_code=code)
        config: Config = from_plain(value)
        return config


def _run_elsewhere(pid: int) -> None:
    """Have a new child begin on another processor than this one.

    By itself it may stay until the kernel balances, some ten milliseconds later, where the other processors sleep: in a
    guest of KVM one that sleeps does not count as idle. That costs time and nothing else, and so does a failure here.
    """
    try:
        allowed = os.sched_getaffinity(0)
        if len(allowed) > 1:
            stat = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fields = os.read(stat, 1024).rpartition(b")")[2].split()
            finally:
                os.close(stat)
            os.sched_setaffinity(pid, allowed - {int(fields[_PROCESSOR])})
            os.sched_setaffinity(pid, allowed)
    except (OSError, ValueError, IndexError):
        pass


def _read(path: str | None, writer: int, channel: socket.socket, go_on: GoOn | None) -> Never:
    """In the child."""
    status = EX_CONFIG
    config: Config | None = None
    try:
        from lcinit.config.load import load

        try:
            config = load(path)
            answer: tuple[str, Any]
            if go_on is not None and config.services is not None:
                # of its services no more than their names: the rest comes with those of files
                names = tuple([part.name for part in config.services])
                answer = ("services", (to_plain(config.replace(services=())), names))
            else:
                answer = ("config", to_plain(config))
        except LcinitError as error:
            answer = ("error", (error.message, error.hint, error.exit_code))
        data = marshal.dumps(answer)
        while data:
            data = data[os.write(writer, data) :]
        if go_on is not None and config is not None and config.services is not None:
            os.close(writer)
            go_on(config, path, channel)
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
