"""What every step of a plan is: data that says what is done, where and why."""

from __future__ import annotations

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal

    PhaseName = Literal["setup.before", "setup", "root", "exec.before", "exec"]

PHASES = ("setup.before", "setup", "root", "exec.before", "exec")


class Step(Record):
    """One thing that is done. `kind` names it in JSON; `why` is for the reader of the plan."""

    kind: ClassVar[str] = ""
    phase: PhaseName
    why: str = ""

    def what(self) -> str:
        """What is done, in a few words."""
        return self.kind

    def where(self) -> str:
        """The object it is done to; empty where there is none."""
        return ""

    def facts(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return {"step": self.kind, "what": self.what(), "where": self.where(), **self.values()}


def quote(word: str) -> str:
    """The word as a shell would need it, for display."""
    plain = word and all(c.isalnum() or c in "%+,-./:=@_" for c in word)
    return word if plain else "'" + word.replace("'", "'\"'\"'") + "'"
