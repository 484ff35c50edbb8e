"""`attach`: a command in the guest that a lcinit on this machine supervises."""

from __future__ import annotations

import socket
import struct

from lcinit.control.client import Client
from lcinit.errors import SystemFailure
from lcinit.guest import session
from lcinit.guest.target import Target
from lcinit.tools.inject import have_streams, order
from lcinit.tools.interpreter import protect_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_UCRED = struct.Struct("=iII")  # struct ucred of unix(7)


def attach(path: str, argv: Sequence[str] = (), user: str | int = "root") -> session.End:
    """Run `argv` (the user's shell without one) in the guest of the lcinit behind a control socket.

    Raises LcinitError when there is none, or the command cannot be started.
    """
    have_streams()
    with guest(path) as target:
        protect_from(target)
        return session.run(target, order(argv, user))


def guest(path: str) -> Target:
    """The guest's init, held. lcinit is asked twice: what it says once the process is held is true of that process."""
    first = _ask(path)

    def still_is(target: Target) -> None:
        again = _ask(path)
        if (again["pid"], again["started"]) != (first["pid"], first["started"]):
            raise SystemFailure("the guest was started anew just now", hint="try again")
        parent = next(line.split()[1] for line in target.read("status").splitlines() if line.startswith("PPid:"))
        if int(parent) != again["lcinit"]:
            raise SystemFailure(f"process {target.pid} is not a child of lcinit ({again['lcinit']}), so not its guest")

    return Target(first["pid"], still_is)


def _ask(path: str) -> dict[str, Any]:
    """The guest's `pid` and when it was `started`, and the PID of `lcinit`."""
    with Client(path) as client:
        status = client.call("Status")["status"]
    peer = _server_of(path)
    if "services" in status:
        hint = f"you are in its root, or enter it by `nsenter -t {peer} -a`" if peer else "run the command in its root"
        raise SystemFailure("there is no guest to enter: lcinit supervises services in its own root", hint=hint)
    if status["pid"] != peer:
        hint = f"use `lcinit inject {peer}`" if peer else "run it in the container"
        raise SystemFailure(f"the lcinit behind {path} counts processes in another PID namespace", hint=hint)
    found = status["guest"]
    if found is None or not found["pid"]:
        raise SystemFailure(f"there is no guest to enter: it is {status['state']}")
    return {"pid": found["pid"], "started": found["started"], "lcinit": peer}


def _server_of(path: str) -> int:
    """The process that listens on a socket, as this PID namespace numbers it; 0 if it is in none of its."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            raise SystemFailure.from_os_error(f"talk to lcinit on {path}", error) from error
        pid, _, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(pid)
