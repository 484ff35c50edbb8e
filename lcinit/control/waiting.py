"""What somebody waits for, and nobody has to: work that goes on by itself and has a result in the end."""

from __future__ import annotations

from lcinit import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Waiting:
    """A result to come. Who does the work calls `finish` or `fail`, once; who waits for it subscribes.

    `abandoned` is called when the last that waited goes away before it is done: the work is not to be undone for that,
    but what is kept for the sake of those who wait may be dropped. Nothing that a listener does reaches the worker.
    """

    def __init__(self, abandoned: Callable[[], object] | None = None) -> None:
        self.done = False
        self.result: dict[str, Any] | None = None
        self.error: Exception | None = None
        self._abandoned = abandoned
        self._callbacks: list[tuple[object, Callable[[], object]]] = []

    def finish(self, result: dict[str, Any]) -> None:
        """It has ended with this result."""
        self._end(result, None)

    def fail(self, error: Exception) -> None:
        """It has ended with this error."""
        self._end(None, error)

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` once when it is done, at once if it is, unless the function that is returned was called."""
        if self.done:
            _call(callback)
            return lambda: None
        entry = (object(), callback)  # one callback may be subscribed twice
        self._callbacks.append(entry)

        def unsubscribe() -> None:
            if entry in self._callbacks:
                self._callbacks.remove(entry)
                if not self._callbacks and not self.done and self._abandoned is not None:
                    _call(self._abandoned)

        return unsubscribe

    def _end(self, result: dict[str, Any] | None, error: Exception | None) -> None:
        if self.done:
            raise RuntimeError("it is done already")
        self.done, self.result, self.error = True, result, error
        callbacks, self._callbacks = self._callbacks, []
        for _, callback in callbacks:
            _call(callback)


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception as error:
        log.unexpected("one that waited", error)
