"""What serves the clients of the control socket: the varlink interfaces, and the server that lets clients in."""

from __future__ import annotations

import asyncio

from lcinit.control.answers import Interfaces, internal
from lcinit.control.manager import Manager, access_denied
from lcinit.control.server import Server
from lcinit.control.services import Services

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from lcinit.control.manager import Served
    from lcinit.control.service import Serve
    from lcinit.control.services import ServicesOffered
else:
    import _socket as socket  # without the half that imports enum and selectors


def serving(served: Served, services: ServicesOffered | None = None, *, procfs: int | None = None) -> Serve:
    """Serves io.lcinit.Manager, and io.lcinit.Services where lcinit supervises `services`. `procfs` is for `Server`."""

    def serve(descriptor: int) -> Server:
        def room_to_follow() -> bool:
            return server.room_to_follow()

        interfaces = Interfaces()
        Manager(served, room_to_follow).serve_in(interfaces)
        if services is not None:
            Services(services, room_to_follow).serve_in(interfaces)
        listener = socket.socket(fileno=descriptor)
        try:
            server = Server(
                listener,
                asyncio.get_running_loop(),
                interfaces.answer,
                refused=access_denied(),
                internal=internal,
                procfs=procfs,
            )
        except BaseException:
            listener.detach()
            raise
        return server

    return serve
