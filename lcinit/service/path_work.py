"""What is done for PID 1 at paths of the guest, in a process of its own: what is mounted there may never answer, and
holds up whoever asks it then.

It is forked by the spawner, and so imports what PID 1 has then: no event loop.
"""

from __future__ import annotations

from lcinit.control.initctl_places import Places
from lcinit.control.socket_place import SocketPlace, remove_made
from lcinit.errors import LcinitError
from lcinit.service.enabling import Enabling
from lcinit.service.path_messages import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    Done = tuple[Any, list[int]]
    """A value for marshal, and descriptors that go with it."""
else:
    import _socket as socket  # without the half that imports enum and selectors


def run(descriptors: list[int]) -> int:
    """In the process: the descriptor is a SEQPACKET socket. It has the order: what to do, and with what; the answer is
    ("done", value), ("error", message, hint, exit code) or ("refused", errno, text, path).
    """
    channel = socket.socket(fileno=descriptors[0])
    (what, order), given = receive(channel)
    answer: tuple[Any, ...]
    handed: list[int] = []
    try:
        value, handed = _WORK[what](order, given)
        answer = ("done", value)
    except LcinitError as error:
        answer = ("error", error.message, error.hint, error.exit_code)
    except OSError as error:
        answer = ("refused", error.errno or 0, error.strerror or str(error), error.filename or "")
    send(channel, answer, handed)
    return 0


def _enable(order: Any, given: list[int]) -> Done:
    return Enabling(given[0], order["directory"]).enable(order["names"]), []


def _disable(order: Any, given: list[int]) -> Done:
    return Enabling(given[0], order["directory"]).disable(order["names"]), []


def _initctl(order: Any, given: list[int]) -> Done:
    return Places.looked_at(order, given)


def _listen(order: Any, _given: list[int]) -> Done:
    place = SocketPlace(order)
    listener = place.bind()
    return place.made, [listener, place.directory]


def _remove_initctl(order: Any, given: list[int]) -> Done:
    Places.removed(order, given)
    return None, []


def _remove(order: Any, given: list[int]) -> Done:
    """What lcinit has made, at its end: as much of it as goes."""
    for name, made in order["sockets"]:
        try:
            remove_made(given.pop(0), name, made)
        except OSError:
            pass  # nothing can be done about it
    if order["initctl"] is not None:
        Places.removed(order["initctl"], given)
    return None, []


_WORK: dict[str, Callable[[Any, list[int]], Done]] = {
    "enable": _enable,
    "disable": _disable,
    "initctl": _initctl,
    "listen": _listen,
    "remove": _remove,
    "remove-initctl": _remove_initctl,
}
