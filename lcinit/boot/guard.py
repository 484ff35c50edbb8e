"""After the root has changed, every path leads into the guest: nothing may be imported or read for display any more."""

from __future__ import annotations

import _warnings
import sys

from lcinit import log
from lcinit.boot import held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from sys import UnraisableHookArgs
    from types import TracebackType


class RefuseImports:
    """The last finder that is left: says what was asked for and refuses."""

    @staticmethod
    def find_spec(name: str, *_where: object) -> ModuleSpec | None:
        """Refuse `name`, wherever it may be."""
        raise ImportError(f"{name} must be imported before the root changes: what is there now is the guest's")


def close() -> None:
    """Refuse imports from now on, but for what is held, and show exceptions without reading source files. May be called
    again.
    """
    sys.meta_path[:] = [held.Finder, RefuseImports]
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.excepthook = show_exception
    sys.unraisablehook = show_unraisable
    _warnings.filters[:] = [("ignore", None, Warning, None, 0)]  # a warning is shown with its line of source


def show_unraisable(what: UnraisableHookArgs) -> None:
    """The same for one that nobody could catch, in a finaliser for example."""
    show_exception(what.exc_type, what.exc_value or what.exc_type(), what.exc_traceback)


def show_exception(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    """One line a frame, from the code objects alone: the interpreter's own hook would open the files they name."""
    log.error(f"unexpected {getattr(kind, '__name__', kind)}: {error}")
    while trace is not None:
        code = trace.tb_frame.f_code
        log.error(f"  at {code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
