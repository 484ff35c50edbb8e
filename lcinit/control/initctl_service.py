"""The initctl FIFO of a supervising lcinit, on its event loop: every request becomes one call.

The FIFO stands at the first of `places` where it can be made, and the other places are links to it: managers look at
/run/initctl and /dev/initctl in the mount namespace of PID 1. A boot root that has neither is served without.

Nothing is polled. A pipe that is open for writing too never ends, so its readers are not woken by a writer's close;
that somebody replaced it is told by SIGIO (see `fifo`), whose receiver calls `look`. A flood costs one read in each
PAUSE, after a BURST: its writers wait for the pipe, and no request is lost, because all that is read is acted on.
"""

from __future__ import annotations

import asyncio
import os

from lcinit import log
from lcinit.control.initctl import FrameReader, InitVariables, Request, answer
from lcinit.control.initctl_places import Places
from lcinit.control.ratelimit import RateLimit
from lcinit.errors import LcinitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any

    Elsewhere = Callable[[str, dict[str, Any], list[int]], Awaitable[tuple[Any, list[int]]]]
    """Has `initctl` (Places.looked_at) or `remove-initctl` (Places.removed) done by another process."""

PLACES = ("/run/initctl", "/dev/initctl")
READ_SIZE = 64 * 1024  # a pipe's capacity: one read empties it
BURST = 64  # reads without a pause: more than ten thousand requests
PAUSE = 0.02  # seconds between two reads from then on: a flood is read at 3 MiB, or 8,500 requests, a second
LOOK_PAUSE = 0.1  # seconds between two looks at the places
FIRST_RETRY, LAST_RETRY = 5.0, 600.0  # seconds until a FIFO that cannot be made is tried again: doubled each time


class InitctlService:
    """Takes requests for `request(word, origin)`: poweroff, halt, reboot or reexec. With `runlevel`, which is called as
    `runlevel(level, origin)` for 1 to 5 and S, also reload.

    What they refuse with LcinitError is logged. `remade` counts the FIFOs that were made, `taken` the requests.
    One that follows another in the same process, over an exec, gets the FIFO's descriptor to `adopt`, and `variables`.

    `elsewhere` is for who shares its root with others, that may mount there what never answers: the first look is at
    the start, before there is anybody, and all that come later are another process'. The FIFO is read meanwhile.
    """

    def __init__(
        self,
        request: Callable[[str, str], None],
        *,
        places: Sequence[str] = PLACES,
        adopt: int = -1,
        variables: Mapping[str, str] | None = None,
        runlevel: Callable[[str, str], None] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.taken = 0
        self._request = request
        self._runlevel = runlevel
        self._places = Places(places, adopt, begin=self._begin, lost=self._stop_reading)
        self._elsewhere = elsewhere
        self._looking: Task[None] | None = None
        self._removing: Task[None] | None = None
        self._look_again = False
        self._loop: AbstractEventLoop | None = None
        self._fd = adopt  # what is read
        self._frames = FrameReader()
        self._variables = InitVariables(variables)
        self._rest: TimerHandle | None = None
        self._again: TimerHandle | None = None
        self._looked_at = 0.0
        self._retry = FIRST_RETRY
        self._said = ""  # the problems that were told
        self._without = False
        self._limit = RateLimit()
        self._pace = RateLimit(BURST, PAUSE)

    @property
    def place(self) -> str | None:
        """Where the FIFO stands; None while there is none."""
        return None if self._places.home is None else self._places.home.path

    @property
    def remade(self) -> int:
        """How many FIFOs were made."""
        return self._places.made

    async def start(self) -> None:
        """Make the FIFO and its links, and read it on the running loop. Never fails: what cannot be is logged.

        SIGIO must be blocked or caught by then: it tells of changes, and ends a process that does neither.
        """
        self._loop = asyncio.get_running_loop()
        self._looked_at = self._loop.time()
        self._places.look()
        self._go_on(self._loop)

    def fifo_fd(self) -> int:
        """The FIFO's descriptor, for one that follows; -1 while there is none."""
        return self._fd

    def variables(self) -> dict[str, str]:
        """What requests have set, for one that follows."""
        return self._variables.as_dict()

    def look(self) -> None:
        """See that FIFO and links stand, soon: at SIGIO, or when somebody asks for it."""
        if self._loop is not None:
            self._look_at(self._loop, max(self._loop.time(), self._looked_at + LOOK_PAUSE))

    def close(self) -> None:
        """Take away what was made. Requests that were written by now are acted on first."""
        if self._loop is None:
            return
        self.stop()
        for problem in self._places.remove():
            self._say(log.info, f"cannot remove {problem}")

    def stop(self) -> Places:
        """Act on the requests that were written by now, and take none any more: where the FIFO is left, and its links,
        to be removed or left.
        """
        self._stop_reading()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._looking is not None:
            self._looking.cancel()
        self._loop = None
        return self._places

    # the places

    def _look_at(self, loop: AbstractEventLoop, when: float) -> None:
        """Have one look pending, the earliest that was asked for."""
        if self._again is not None:
            if self._again.when() <= when:
                return
            self._again.cancel()
        self._again = loop.call_at(when, self._look, loop)

    def _look(self, loop: AbstractEventLoop) -> None:
        self._again = None
        self._looked_at = loop.time()
        if self._elsewhere is None:
            self._places.look()
            self._go_on(loop)
        elif self._looking is None:
            self._looking = loop.create_task(self._look_elsewhere(loop, self._elsewhere))
        else:
            self._look_again = True

    async def _look_elsewhere(self, loop: AbstractEventLoop, elsewhere: Elsewhere) -> None:
        self._places.watch()
        try:
            found, handed = await elsewhere("initctl", *self._places.order())
            if self._places.take(found, handed):
                self._look_again = True  # what is new was not watched while it was made
            self._go_on(loop)
        except (LcinitError, OSError) as error:
            self._say(log.warning, f"initctl: {error}")
            self._try_later(loop)
        finally:
            self._looking = None
        if self._look_again:
            self._look_again = False
            self.look()

    def _go_on(self, loop: AbstractEventLoop) -> None:
        """After a look."""
        if self._places.home is None:
            self._try_later(loop)
        else:
            self._retry = FIRST_RETRY
        self._tell()

    def _try_later(self, loop: AbstractEventLoop) -> None:
        self._look_at(loop, loop.time() + self._retry)
        self._retry = min(self._retry * 2, LAST_RETRY)

    def _begin(self, fd: int) -> bool:
        """Read this FIFO from now on; false where the kernel has no room for another watched one."""
        loop = asyncio.get_running_loop()
        taken_over, self._fd = fd == self._fd, fd
        try:
            loop.add_reader(fd, self._ready, loop)
        except OSError as error:
            self._give_up(error)
            return False
        if not taken_over:
            if self._places.made:
                self._say(log.info, f"{self.place} was replaced; made it again")
            self._frames = FrameReader()
        return True

    def _give_up(self, error: OSError) -> None:
        """Leave no FIFO behind that nobody reads: its writers would wait."""
        self._read()
        self._fd = -1
        if self._elsewhere is None or self._loop is None:
            self._places.withdraw(error)
            return
        order, descriptors = self._places.order()
        descriptors = [os.dup(fd) for fd in descriptors]
        self._places.leave(error)
        self._removing = self._loop.create_task(self._remove_elsewhere(self._elsewhere, order, descriptors))

    async def _remove_elsewhere(self, elsewhere: Elsewhere, order: dict[str, Any], descriptors: list[int]) -> None:
        try:
            await elsewhere("remove-initctl", order, descriptors)
        except LcinitError as error:
            self._say(log.warning, f"initctl: {error}")
        finally:
            for fd in descriptors:
                os.close(fd)

    def _tell(self) -> None:
        """Say what is missing, once for each change of it."""
        problems = ", ".join(self._places.problems())
        if problems == self._said:
            return
        was_without, self._without = self._without, self.place is None
        self._said = problems
        if self.place is None:
            log.warning(f"no request can come over initctl: cannot make {problems}; going on without")
        elif was_without:
            log.info(f"requests can come over {self.place} now")
        elif problems:
            log.debug(f"initctl is at {self.place} alone: cannot make {problems}")

    # the FIFO

    def _ready(self, loop: AbstractEventLoop) -> None:
        """One read, and a pause when there were many: writers that flood wait for the pipe, not PID 1 for them."""
        if not self._pace.take(loop.time()):
            loop.remove_reader(self._fd)
            self._rest = loop.call_later(PAUSE, self._rested, loop)
        self._read()

    def _rested(self, loop: AbstractEventLoop) -> None:
        self._rest = None
        try:
            loop.add_reader(self._fd, self._ready, loop)
        except OSError as error:
            self._give_up(error)
            self._tell()
            self._look_at(loop, loop.time() + self._retry)

    def _stop_reading(self) -> None:
        """Take what was written, then leave the loop; the descriptor may be closed afterwards."""
        if self._fd < 0 or self._loop is None:
            return
        self._loop.remove_reader(self._fd)
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._read()
        self._fd = -1

    def _read(self) -> None:
        try:
            received = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        for request in self._frames.feed(received):
            self._take(request)

    def _take(self, request: Request) -> None:
        """Act on one request, and whatever comes of it, go on with the next."""
        self.taken += 1
        try:
            meant = answer(request, self._variables, runlevels=self._runlevel is not None)
            if meant.remark:
                self._say(log.info, f"initctl: {meant.remark}")
            if meant.word is not None:
                self._request(meant.word, "initctl")
            if meant.runlevel is not None and self._runlevel is not None:
                self._runlevel(meant.runlevel, "initctl")
        except LcinitError as error:
            self._say(log.warning, f"initctl: {error}")
        except Exception as error:  # the requests behind this one were accepted too
            self._say(log.error, f"initctl: unexpected {type(error).__name__}: {error}")

    def _say(self, write: Callable[[str], None], text: str) -> None:
        """Write one line, or count it where there were too many lately."""
        if self._limit.take(asyncio.get_running_loop().time()):
            more = self._limit.left_out()
            write(f"{text} ({more} more left out)" if more else text)
