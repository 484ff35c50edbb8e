"""The processes that read service files: PID 1 holds neither the YAML parser nor the boot root, where the
configuration and the catalogue are.

The first of them is the child that has read the configuration: it has the parser, and the files are read while PID 1
imports the rest. Later ones are started in the boot root when they are needed. Each request has a worker of its own,
which answers with plain data (see boot.reading). What it reads of the guest is hostile: before that is parsed it has
given up all privileges.
"""

from __future__ import annotations

import errno
import gc
import marshal
import os
import resource
import struct

from lcinit import log
from lcinit.boot.reading import to_plain
from lcinit.config import load, service_files
from lcinit.config.service_values import GuestFiles
from lcinit.errors import EX_CONFIG, EX_SOFTWARE, LcinitError
from lcinit.linux import capabilities, process
from lcinit.linux.signals import reset_signals
from lcinit.service.reader_protocol import AGAIN, FIRST_AND_STAY, NUMBER, PATIENCE, REBOOT
from lcinit.supervisor.dumping import forbid_dumping

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable
    from typing import Any, Never

    from lcinit.config.service_values import Catalogue
    from lcinit.config.values import Config
else:
    import _signal as signal
    import _socket as socket

NOBODY = 65534
MOST_CPU, MOST_MEMORY = 20, 512 << 20  # seconds and bytes that a worker may use: a parser that a file has led astray
MEMORY_FOR_FILES = 288 << 20  # the rest is for the answer, so that one file too many costs that file alone


def first(config: Config, path: str | None, channel: socket.socket, start: Callable[[str | None], list[str]]) -> Never:
    """In the child that has read the configuration: answer the first request for its services.

    Where PID 1 needs somebody in the boot root later this process becomes one that serves, without the parser: `start`
    gives the argv of that, for the configuration's path.
    """
    status = EX_SOFTWARE
    try:
        forbid_dumping()
        process.set_name("lcinit-reader")
        # while PID 1 gets on
        place = service_files.catalogue_directory()
        catalogue = service_files.read_catalogue(place)
        no_guest = _Prepared(config, catalogue, place)
        if not config.services:
            service_files.import_all()  # the guest has some, else there would be none
        received, fds = _receive(channel)
        stays = received == FIRST_AND_STAY
        if received:
            pid = os.fork() if stays else 0
            if pid == 0:
                channel.close()  # whoever parses what the guest has written has nothing to do with later requests
                _work(fds, no_guest.answer)
            os.waitpid(pid, 0)
            for fd in fds:
                os.close(fd)
            os.dup2(channel.fileno(), 0)
            argv = start(path)
            os.execv(argv[0], argv)
        status = 0
    except BaseException as error:
        log.unexpected("in the reader of service files", error)
    finally:
        os._exit(status)


def main(arguments: list[str]) -> Never:
    """As a program of its own, in the boot root: serve what comes by the socket that is descriptor 0.

    The argument, if there is one, is the configuration's path.
    """
    status = EX_SOFTWARE
    try:
        forbid_dumping()
        process.set_name("lcinit-reader")
        channel = socket.socket(fileno=os.dup(0))
        process.close_all_but((channel.fileno(),))
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        gc.freeze()
        gc.disable()
        path = arguments[0] if arguments else None
        while channel.recv(1, socket.MSG_PEEK):
            if _reboot(channel):
                continue
            pid = os.fork()
            if pid == 0:
                _answer(channel, path)
            os.waitpid(pid, 0)
        status = 0
    finally:
        os._exit(status)


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """The next request, and its descriptors; empty at the end."""
    data, control, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(2 * 4), socket.MSG_CMSG_CLOEXEC)
    fds = [number for _, _, rights in control for number in struct.unpack(f"={len(rights) // 4}i", rights)]
    return data, fds


def _reboot(channel: socket.socket) -> bool:
    """Whether the request was for a reboot: it failed, if this returns."""
    request = channel.recv(1 + NUMBER.size, socket.MSG_PEEK)
    if not request.startswith(REBOOT):
        return False
    channel.recv(1 + NUMBER.size)
    try:
        process.reboot(NUMBER.unpack(request[1:])[0])
        answer = 0
    except OSError as error:
        answer = error.errno or errno.EPERM
    channel.send(NUMBER.pack(answer))
    return True


def _answer(channel: socket.socket, path: str | None) -> Never:
    """In a worker: one request, one answer."""
    status = EX_SOFTWARE
    try:
        received, fds = _receive(channel)
        channel.close()
        if received == AGAIN:
            _work(fds, lambda root_fd: _read(path, root_fd))
    finally:
        os._exit(status)


class _Prepared:
    """The first answer, ready for a guest that has no service files of its own: all of it is lcinit's own or the
    configuration's.
    """

    def __init__(self, config: Config, catalogue: Any, place: str) -> None:
        self._config = config
        self._catalogue = catalogue
        self._place = place
        self._nothing = GuestFiles(directory=config.services_dir)
        self._answer = b""
        try:
            self._answer = _data(service_files.combine(config.services or (), catalogue, self._nothing, place))
        except LcinitError:
            pass  # it is told when it is asked for

    def answer(self, root_fd: int) -> bytes:
        """For a guest. Raises LcinitError."""
        guest = service_files.read_guest(root_fd, self._config.services_dir)
        if guest == self._nothing and self._answer:
            return self._answer
        return _combined(self._config, self._catalogue, self._place, guest)


def _work(fds: list[int], read: Callable[[int], bytes]) -> Never:
    """Read with the guest's root by its handle, the first of `fds`, and write the answer to the other one."""
    status = EX_CONFIG
    try:
        reset_signals()
        signal.alarm(PATIENCE)
        root_fd, writer = fds
        try:
            data = read(root_fd)
        except LcinitError as error:
            data = marshal.dumps(("error", (error.message, error.hint, error.exit_code)))
        os.set_blocking(writer, True)
        while data:
            data = data[os.write(writer, data) :]
        status = 0
    except BaseException as error:
        log.unexpected("when service files were read", error)
    finally:
        os._exit(status)


def _read(path: str | None, root_fd: int) -> bytes:
    config = load.load(path)
    place = service_files.catalogue_directory()
    catalogue = service_files.read_catalogue(place)
    return _combined(config, catalogue, place, service_files.read_guest(root_fd, config.services_dir))


def _combined(config: Config, catalogue: Any, place: str, guest: GuestFiles) -> bytes:
    service_files.import_all()
    _give_up_privileges()
    found = service_files.combine(config.services or (), catalogue, guest, place)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    return _data(found)


def _data(catalogue: Catalogue) -> bytes:
    return marshal.dumps(("services", to_plain(catalogue)))


def _give_up_privileges() -> None:
    """What is parsed from here on is the guest's: be nobody, with nothing but memory and a pipe."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU, MOST_CPU))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_FOR_FILES, MOST_MEMORY))
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
