"""When a guest's init is asked to end, and in which way. Pure: time and what the init can hear are arguments.

States: idle → held → asked. A request is held while the init cannot hear it yet (control.stopping has the pace), and
asked once what the request means has been done. The same word again changes nothing in any state, so that an init that
is ending is not disturbed; another word is a new request.

Ways to leave held: the init hears (`do`); patience ends (`do` where a signal is all there is, it may help;
else `fall-back`); it will never hear (`fall-back` for a FIFO that is none, `deaf` for a program without a handler).
"""

from __future__ import annotations

from lcinit.control.stopping import StopRequests
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from lcinit.plan.inits import Recipe

    Hearing = Literal["yes", "not-yet", "never"]
    How = Literal["do", "again", "fall-back", "deaf"]

SETTLED = 1.0  # seconds after which a program that is no init has the handlers that it will ever have


class Act(Record):
    """What is to be done now for `word`: its recipe, the signal alone once more, the fallback; or it is deaf.

    `unheard`: though nothing shows that the init hears.
    """

    word: str
    how: How
    unheard: bool = False


class Asking:
    """Requests to one start of one init. `recipes` are those of plan.inits, `blind` the opposite of its `catches`.

    `plain`: it is no init but some program, started at `born`.
    """

    def __init__(self, recipes: Mapping[str, Recipe], *, blind: bool, plain: bool, born: float) -> None:
        self.asked: str | None = None  # what was asked of it last
        self._recipes = recipes
        self._words = list(recipes)
        self._requests = StopRequests({word: number for number, word in enumerate(self._words)}, repeat=blind)
        self._plain = plain
        self._settled = born + SETTLED

    @property
    def due(self) -> float | None:
        """When `step` is to be called next; None: not before another request."""
        return self._requests.due

    def ask(self, word: str, now: float) -> bool:
        """Take a request; false when this init has no word for it."""
        if word not in self._recipes:
            return False
        if word != self.asked:
            self._requests.ask(word, now)
        elif self._requests.word != word:
            self._requests.drop()  # another word was held meanwhile: what was asked stays asked
        return True

    def step(self, now: float, hears: Callable[[str], Hearing]) -> Act | None:
        """What is to be done now, if anything. `hears(word)` says whether the init could be asked for it."""
        word = self._requests.word
        if word is None or self._requests.due is None or now < self._requests.due:
            return None
        hearing: Hearing = hears(word)
        if hearing == "not-yet" and self._plain and now >= self._settled:
            hearing = "never"
        if hearing == "never":
            self._requests.drop()
            self.asked = word
            return Act(word=word, how="deaf" if self._plain else "fall-back", unheard=True)
        if self._requests.step(now, lambda _number: hearing == "yes") is None:
            return None
        again = self.asked == word
        self.asked = word
        unheard = self._requests.unheard
        if again:
            return Act(word=word, how="again", unheard=unheard)
        if unheard and self._recipes[word].fifos:
            return Act(word=word, how="fall-back", unheard=True)
        return Act(word=word, how="do", unheard=unheard)
