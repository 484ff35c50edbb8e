"""Reading service files, in processes of their own: PID 1 holds neither the YAML parser nor the boot root, where the
configuration and the catalogue are.

The reader is forked before anything is unshared and stays in the boot root. It sleeps; for every request it forks a
worker, which imports the parser and answers with plain data (see boot.reading). What the worker reads of the guest is
hostile: by then it has given up all privileges.
"""

from __future__ import annotations

import array
import errno
import gc
import marshal
import os
import resource
import socket
import struct

import lcinit
from lcinit import log
from lcinit.boot.namespaces import forbid_dumping
from lcinit.boot.reading import from_plain, to_plain
from lcinit.errors import EX_CONFIG, EX_SOFTWARE, LcinitError, SystemFailure
from lcinit.linux import capabilities, process
from lcinit.linux.signals import reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any, Never

    from lcinit.config.service_values import Catalogue, ServicePart
else:
    import _signal as signal


NOBODY = 65534
_CHUNK = 1 << 16
_PATIENCE = 20  # seconds after which a worker is ended (SIGALRM): the guest can hold up who reads its files
_MOST_CPU, _MOST_MEMORY = 20, 512 << 20  # seconds and bytes that a worker may use: a parser that a file has led astray
_FIRST, _AGAIN, _REBOOT = b"f", b"a", b"r"
_NUMBER = struct.Struct("=I")
_REBOOT_PATIENCE = 5.0  # seconds


class Reader:
    """PID 1's handle of the reader process."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel

    @classmethod
    def start(cls, path: str | None, inline: tuple[ServicePart, ...], directory: str) -> Reader:
        """Fork it, with signals blocked and one thread. `path` is the configuration's (as for config.load), `inline`
        its services as they were read already, `directory` that of the guest's own files, in the guest.

        The first worker is forked at once, so that its imports pass while PID 1 sets the guest up.
        """
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _serve(other, own, path, inline, directory)
        other.close()
        return cls(pid, own)

    async def read(self, root_fd: int, *, again: bool) -> Catalogue:
        """The services that there are now, with the guest's root by its handle; `again` reads the configuration anew.

        Raises LcinitError: ConfigError for a configuration that is wrong.
        """
        from asyncio import timeout  # not by the reader: PID 1 has it by now

        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            handed = array.array("i", [root_fd, writer])
            try:
                self._channel.sendmsg(
                    [_AGAIN if again else _FIRST], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)], socket.MSG_DONTWAIT
                )
            finally:
                os.close(writer)
            async with timeout(_PATIENCE + 5):
                answer = await _read_all(reader)
        except TimeoutError:
            raise SystemFailure(
                "the process that reads service files does not answer",
                hint="somebody in the guest may have stopped it: restart the container",
            ) from None
        except OSError as error:
            raise SystemFailure.from_os_error("have the service files read", error) from error
        finally:
            os.close(reader)
        if not answer:
            raise SystemFailure(
                "the process that read the service files ended without an answer",
                hint="is a file in the guest held up by somebody?",
            )
        kind, value = marshal.loads(answer)
        if kind == "error":
            message, hint, code = value
            raise LcinitError(message, hint=hint, exit_code=code)
        catalogue: Catalogue = from_plain(value)
        return catalogue

    def reboot(self, command: int) -> None:
        """reboot(2) by the reader, which is in the user namespace that owns PID 1's PID namespace; PID 1 with an id map
        is not. It does not return where that succeeds. Raises OSError.
        """
        self._channel.settimeout(_REBOOT_PATIENCE)
        self._channel.send(_REBOOT + _NUMBER.pack(command))
        answer = self._channel.recv(_NUMBER.size)
        number = _NUMBER.unpack(answer)[0] if len(answer) == _NUMBER.size else errno.EPIPE
        raise OSError(number, os.strerror(number))


async def _read_all(fd: int) -> bytes:
    import asyncio  # not by the reader: PID 1 has it by now

    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        while True:
            try:
                chunk = os.read(fd, _CHUNK)
            except BlockingIOError:
                ready.clear()
                await ready.wait()
                continue
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
    finally:
        loop.remove_reader(fd)


def _serve(
    channel: socket.socket, parents: socket.socket, path: str | None, inline: tuple[ServicePart, ...], directory: str
) -> Never:
    """In the reader: a worker for each request, until PID 1 is gone."""
    status = EX_SOFTWARE
    try:
        parents.close()
        process.close_all_but((channel.fileno(),))
        process.set_name("lcinit-reader")
        forbid_dumping()
        gc.freeze()
        gc.disable()
        first = True
        while first or _wait(channel):
            if not first and _reboot(channel):
                continue
            pid = os.fork()
            if pid == 0:
                _work(channel, path, inline, directory)
            os.waitpid(pid, 0)
            first = False
        status = 0
    finally:
        os._exit(status)


def _wait(channel: socket.socket) -> bool:
    """Whether there is another request, and not the end."""
    return bool(channel.recv(1, socket.MSG_PEEK))


def _reboot(channel: socket.socket) -> bool:
    """Whether the request was for a reboot: it failed, if this returns."""
    request = channel.recv(1 + _NUMBER.size, socket.MSG_PEEK)
    if not request.startswith(_REBOOT):
        return False
    channel.recv(1 + _NUMBER.size)
    try:
        process.reboot(_NUMBER.unpack(request[1:])[0])
        answer = 0
    except OSError as error:
        answer = error.errno or errno.EPERM
    channel.send(_NUMBER.pack(answer))
    return True


def _work(channel: socket.socket, path: str | None, inline: tuple[ServicePart, ...], directory: str) -> Never:
    """In a worker: one request, one answer."""
    status = EX_CONFIG
    try:
        from lcinit.config import load, service_files
        from lcinit.config.document import compose  # noqa: F401 - and with it the parser, before anything is given up

        answer: tuple[str, Any]
        received, fds, _, _ = socket.recv_fds(channel, 1, 2)
        if not received:
            os._exit(0)
        reset_signals()
        signal.alarm(_PATIENCE)
        root_fd, writer = fds
        try:
            answer = ("services", to_plain(_read(load.load, service_files, received, path, inline, directory, root_fd)))
        except LcinitError as error:
            answer = ("error", (error.message, error.hint, error.exit_code))
        os.set_blocking(writer, True)
        data = marshal.dumps(answer)
        while data:
            data = data[os.write(writer, data) :]
        status = 0
    except BaseException as error:
        log.unexpected("when service files were read", error)
    finally:
        os._exit(status)


def _read(
    load: Callable[[str | None], Any],
    service_files: Any,
    received: bytes,
    path: str | None,
    inline: tuple[ServicePart, ...],
    directory: str,
    root_fd: int,
) -> Catalogue:
    import yaml  # noqa: F401 - before the privileges go that reading it may need

    if received == _AGAIN:
        config = load(path)
        inline, directory = config.services or (), config.services_dir
    place = os.path.join(os.path.dirname(lcinit.__file__), "data", "services")
    if not os.path.isdir(place):  # a source tree
        place = os.path.join(os.path.dirname(os.path.dirname(lcinit.__file__)), "services")
    catalogue_file = service_files.read_catalogue(place)
    guest = service_files.read_guest(root_fd, directory)
    _give_up_privileges()
    catalogue: Catalogue = service_files.combine(inline, catalogue_file, guest, place)
    return catalogue


def _give_up_privileges() -> None:
    """What is parsed from here on is the guest's: be nobody, with nothing but memory and a pipe."""
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU, _MOST_CPU))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    process.set_no_new_privs()
    try:
        os.setgroups(())
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        pass  # a user namespace that has no such ids, or no right to them: the capabilities go below
    capabilities.clear_ambient()
    capabilities.set_capabilities(0, 0, 0)
    process.set_dumpable(False)
