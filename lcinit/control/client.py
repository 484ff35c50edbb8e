"""Asking a running lcinit over its control socket: calls that are answered once, often, or by a raw connection."""

from __future__ import annotations

import select
import socket
import struct

from lcinit.control.manager import INTERFACE
from lcinit.control.services import INTERFACE as SERVICES
from lcinit.control.varlink import SERVICE, BrokenMessage, message, parse
from lcinit.errors import EX_NOPERM, EX_SOFTWARE, EX_UNAVAILABLE, EX_USAGE, LcinitError, SystemFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

PATH = "/run/lcinit/control"
TIMEOUT = 10.0  # seconds for PID 1 to take a call, and to answer it
_REPLY_LIMIT = 16 << 20  # bytes; what is longer is no reply of an lcinit
_CODES = {"AccessDenied": EX_NOPERM, "Internal": EX_SOFTWARE, "NoSuchService": EX_UNAVAILABLE}


class NotServed(SystemFailure):
    """There is no lcinit behind the socket."""


class NoServices(LcinitError):
    """The lcinit behind the socket supervises no services."""

    exit_code = EX_UNAVAILABLE


class Client:
    """A connection to the control socket at `path`. Methods raise LcinitError, NotServed where nobody serves it.

    `timeout` is for PID 1's answer, `silence` for how long a stream may have nothing to tell (None: as long as it
    likes); both in seconds.
    """

    def __init__(self, path: str = PATH, *, timeout: float = TIMEOUT, silence: float | None = None) -> None:
        self.path = path
        self._timeout = timeout
        self._silence = silence
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # not settimeout: a connect(2) that must not wait fails at once where others wait to be let in (EAGAIN)
        patience = struct.pack("=qq", int(timeout), int(timeout % 1 * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise self._unreachable(error) from error
        self._socket.settimeout(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The reply's parameters. `method` is one of io.lcinit.Manager, or a full name. None stands for "not given"."""
        self._send(method, parameters)
        return self._reply(method)[0]

    def wait(
        self, method: str, tick: Callable[[], object] | None = None, *, every: float = 1.0, **parameters: Any
    ) -> dict[str, Any]:
        """As `call`, for what may take any time; `tick` is called again and again meanwhile, after `every` seconds."""
        self._send(method, parameters)
        while not select.select([self._socket], [], [], None if tick is None else every)[0]:
            if tick is not None:
                tick()
        return self._reply(method)[0]

    def stream(self, method: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The parameters of each reply, until lcinit sends the last or ends (which is an error)."""
        self._send(method, parameters, more=True)
        self._socket.settimeout(self._silence)
        continues = True
        while continues:
            reply, continues = self._reply(method)
            yield reply

    def upgrade(self, method: str, **parameters: Any) -> tuple[socket.socket, bytes]:
        """The raw connection after the reply, and what of it has been received already. The caller closes it."""
        self._send(method, parameters, upgrade=True)
        self._reply(method)
        received = bytes(self._received)
        self._received.clear()
        self._socket.settimeout(None)
        return self._socket, received

    def _send(self, method: str, parameters: dict[str, Any], **flags: bool) -> None:
        full = method if "." in method else f"{INTERFACE}.{method}"
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            self._socket.sendall(message({"method": full, "parameters": given, **flags}))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have said why before it hung up: the reply tells
        except OSError as error:
            raise self._failed(error) from error

    def _reply(self, method: str) -> tuple[dict[str, Any], bool]:
        """The next reply's parameters, and whether more follow."""
        try:
            reply = parse(self._next_message())
        except BrokenMessage as error:
            raise SystemFailure(f"{self.path}: the reply is no varlink: {error}", hint="is it lcinit's?") from error
        except OSError as error:
            raise self._failed(error) from error
        parameters = reply.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise SystemFailure(f"{self.path}: the reply is no varlink: no parameters", hint="is it lcinit's?")
        if "error" in reply:
            raise _told(str(reply["error"]), parameters, method)
        return parameters, bool(reply.get("continues"))

    def _next_message(self) -> bytes:
        searched = 0
        while (end := self._received.find(0, searched)) < 0:
            searched = len(self._received)
            if searched > _REPLY_LIMIT:
                raise BrokenMessage(f"more than {_REPLY_LIMIT} bytes")
            data = self._socket.recv(256 * 1024)
            if not data:
                raise SystemFailure(
                    f"lcinit closed the connection to {self.path}",
                    hint="it has ended, was replaced (reexec), or needed room",
                )
            self._received += data
        found = bytes(self._received[:end])
        del self._received[: end + 1]
        return found

    def _failed(self, error: OSError) -> SystemFailure:
        if isinstance(error, TimeoutError):
            waited = self._socket.gettimeout() or 0.0
            return SystemFailure(
                f"lcinit says nothing on {self.path} within {waited:.0f} s", hint="look at its console"
            )
        return SystemFailure.from_os_error(f"talk to lcinit on {self.path}", error)

    def _unreachable(self, error: OSError) -> SystemFailure:
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)):
            return NotServed(
                f"no lcinit supervises a guest here: nobody serves {self.path}",
                hint="it does with exec.mode: tolerant, from the guest's start on, in the boot root or, with services, "
                "in the guest (--socket names another place); a guest that PID 1 was handed to takes initctl requests "
                "alone",
            )
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return SystemFailure(
                f"lcinit takes no client on {self.path} within {self._timeout:.0f} s", hint="try again"
            )
        if isinstance(error, PermissionError):
            return SystemFailure.from_os_error(
                f"talk to lcinit on {self.path}",
                error,
                hint="only root may: run it as root in the container that lcinit is PID 1 of, or as the machine's root",
            )
        return SystemFailure.from_os_error(f"talk to lcinit on {self.path}", error)


def _told(name: str, parameters: dict[str, Any], method: str) -> LcinitError:
    """The error of an error reply."""
    text, hint, code = (parameters.get(key) for key in ("message", "hint", "exit_code"))
    if isinstance(text, str):
        exit_code = code if isinstance(code, int) and 0 < code < 256 else _CODES.get(name.rpartition(".")[2])
        return LcinitError(text, hint=hint if isinstance(hint, str) else "", exit_code=exit_code)
    if name == f"{SERVICE}.InvalidParameter":
        return LcinitError(f"lcinit does not take this {parameters.get('parameter')} for {method}", exit_code=EX_USAGE)
    if name == f"{SERVICE}.InterfaceNotFound" and method.startswith(f"{SERVICES}."):
        return NoServices(
            "lcinit supervises no services here",
            hint="it does with exec.pid: shared and `services` in its configuration",
        )
    if name in (f"{SERVICE}.MethodNotFound", f"{SERVICE}.InterfaceNotFound"):
        return LcinitError(f"the lcinit that runs here has no {method}", hint="it may be of another version")
    return LcinitError(f"lcinit answers {method} with {name}")
