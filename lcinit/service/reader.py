"""PID 1's handle of those who read service files for it, see reader_process."""

from __future__ import annotations

import errno
import marshal
import os
import struct

from lcinit import log
from lcinit.boot.reading import from_plain
from lcinit.errors import LcinitError, SystemFailure
from lcinit.linux import calls, mount, process
from lcinit.service.reader_protocol import AGAIN, FIRST, FIRST_AND_STAY, MOST_ANSWER, NUMBER, PATIENCE, REBOOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from lcinit.config.service_values import Catalogue
else:
    import _socket as socket

_CHUNK = 1 << 16
_REBOOT_PATIENCE = 5.0  # seconds


class Reader:
    """The services as files say they are.

    The first answer is that of the process that has read the configuration, by `channel`. If it `stays` it also gives
    those that follow. Otherwise each is had from a process that `start` starts in the boot root: it is given a handle
    of that root and the process' end of a socket.
    """

    def __init__(self, channel: socket.socket, *, stays: bool) -> None:
        self.start: Callable[[int, int], object] | None = None
        self._channel = channel
        self._stays = stays
        self._root = -1

    def keep_root(self, *, changes: bool) -> None:
        """Have a handle of this root, where the files are; with `changes` it is left behind, with what is mounted in
        it."""
        if self._stays:
            return
        try:
            if changes:
                flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | calls.AT_RECURSIVE
                self._root = mount.open_tree(calls.AT_FDCWD, "/", flags)
                mount.mount_setattr(self._root, "", calls.AT_RECURSIVE, propagation=mount.MS_PRIVATE)
            else:
                self._root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            log.debug(f"there is no way back to the boot root: {error.strerror}")

    def ask(self, root_fd: int) -> int:
        """Have the services read for the first time, with the guest's root by its handle; the descriptor on which
        `answer` waits. Raises SystemFailure.
        """
        return self._ask(self._channel, FIRST_AND_STAY if self._stays else FIRST, root_fd)

    async def read_again(self, root_fd: int) -> Catalogue:
        """The services that there are now, by the configuration and all files as they are now.

        Raises LcinitError: ConfigError for a configuration that is wrong.
        """
        if self._stays:
            return await self.answer(self._ask(self._channel, AGAIN, root_fd))
        if self._root < 0 or self.start is None:
            raise SystemFailure("the boot root cannot be entered again", hint="restart the container")
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            try:
                self.start(self._root, other.fileno())
            except OSError as error:
                raise SystemFailure.from_os_error("start the reader of service files", error) from error
            finally:
                other.close()
            return await self.answer(self._ask(own, AGAIN, root_fd))
        finally:
            own.close()

    def _ask(self, channel: socket.socket, request: bytes, root_fd: int) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=2i", root_fd, writer))]
            channel.sendmsg([request], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            os.close(reader)
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise SystemFailure(
                    "the process that reads service files is gone",
                    hint="somebody in the guest has killed it: restart the container",
                ) from None
            raise SystemFailure.from_os_error("have the service files read", error) from error
        finally:
            os.close(writer)
        return reader

    async def answer(self, reader: int) -> Catalogue:
        """What was asked for. Raises LcinitError as `read_again`."""
        from asyncio import timeout  # not by the reader: PID 1 has it by now

        try:
            async with timeout(PATIENCE + 5):
                answer = await _read_all(reader)
        except TimeoutError:
            raise SystemFailure(
                "the process that reads service files does not answer",
                hint="somebody in the guest may have stopped it: restart the container",
            ) from None
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
        """reboot(2), by the reader where that stays: it is in the user namespace that owns PID 1's PID namespace, which
        PID 1 with an id map is not. It does not return where that succeeds. Raises OSError.
        """
        if not self._stays:
            process.reboot(command)
            return
        self._channel.settimeout(_REBOOT_PATIENCE)
        self._channel.send(REBOOT + NUMBER.pack(command))
        answer = self._channel.recv(NUMBER.size)
        number = NUMBER.unpack(answer)[0] if len(answer) == NUMBER.size else errno.EPIPE
        raise OSError(number, os.strerror(number))


async def _read_all(fd: int) -> bytes:
    import asyncio

    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    left = MOST_ANSWER
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
            left -= len(chunk)
            if left < 0:
                raise SystemFailure(
                    f"the services that were read are longer than {MOST_ANSWER} bytes", hint="write shorter files"
                )
            chunks.append(chunk)
    finally:
        loop.remove_reader(fd)
