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
from lcinit.control.fifo import GuardedFifo, GuardedLink
from lcinit.control.initctl import FrameReader, InitVariables, Request, answer
from lcinit.control.ratelimit import RateLimit
from lcinit.errors import LcinitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable, Mapping, Sequence

PLACES = ("/run/initctl", "/dev/initctl")
READ_SIZE = 64 * 1024  # a pipe's capacity: one read empties it
BURST = 64  # reads without a pause: more than ten thousand requests
PAUSE = 0.02  # seconds between two reads from then on: a flood is read at 3 MiB, or 8,500 requests, a second
LOOK_PAUSE = 0.1  # seconds between two looks at the places
FIRST_RETRY, LAST_RETRY = 5.0, 600.0  # seconds until a FIFO that cannot be made is tried again: doubled each time


class _Place:
    """A path where the FIFO or a link to it may stand, and a handle of its directory."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problem = ""
        self._parent, self._name = os.path.split(path)
        self._handle = -1
        self._entry: GuardedFifo | GuardedLink | None = None

    def enter(self) -> bool:
        """Hold the directory that is there now; false, with `problem` set, where none is."""
        self.problem = ""
        if self._is_there():
            return True
        self.leave()
        try:
            self._handle = os.open(self._parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self.failed(error)
            return False
        return True

    def holds(self) -> bool:
        """Whether what was made here still stands at the path; if so, its directory is watched again."""
        try:
            if self._entry is None or not self._is_there():
                return False
            self._entry.watch()  # first: no change slips between
            return self._entry.stands()
        except OSError:
            return False

    def make_fifo(self) -> int:
        """Make it here; its descriptor. Raises OSError."""
        entry = self._fifo()
        entry.ensure()
        return entry.fd

    def adopt_fifo(self, fd: int) -> bool:
        """Take the FIFO that is read already, if it stands here. Raises OSError."""
        return self._fifo().adopt(fd)

    def _fifo(self) -> GuardedFifo:
        if not isinstance(self._entry, GuardedFifo):
            self._forget()
            self._entry = GuardedFifo(self._handle, (os.geteuid(), os.getegid()), self._name)
        self._entry.watch()
        return self._entry

    def make_link(self, target: str) -> None:
        """Make it here. Raises OSError."""
        if not isinstance(self._entry, GuardedLink) or self._entry.target != target:
            self._forget()
            self._entry = GuardedLink(self._handle, target, self._name)
        self._entry.watch()
        self._entry.ensure()

    def is_at(self, other: _Place) -> bool:
        """Whether both are one and the same name, because one directory is a link to the other."""
        try:
            return self._name == other._name and os.path.samestat(os.fstat(self._handle), os.fstat(other._handle))
        except OSError:
            return False

    def failed(self, error: OSError) -> None:
        """Note why nothing of ours stands here."""
        self.problem = f"{self.path}: {error.strerror or error}"

    def withdraw(self) -> None:
        """Take away what was made here, and keep watching. Raises OSError."""
        if self._entry is not None and self._is_there():
            self._entry.remove()

    def remove(self) -> None:
        """Take away what was made here and let go. Raises OSError."""
        try:
            self.withdraw()
        finally:
            self.leave()

    def leave(self) -> None:
        """Let go of the directory, and leave what stands there."""
        self._forget()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _is_there(self) -> bool:
        """Whether the directory is the one held: something may have been mounted over it."""
        try:
            return self._handle >= 0 and os.path.samestat(os.stat(self._parent), os.fstat(self._handle))
        except OSError:
            return False

    def _forget(self) -> None:
        if self._entry is not None:
            self._entry.unwatch()
            if isinstance(self._entry, GuardedFifo):
                self._entry.close()
            self._entry = None


class InitctlService:
    """Takes requests for `request(word, origin)`: poweroff, halt, reboot or reexec. With `runlevel`, which is called as
    `runlevel(level, origin)` for 1 to 5 and S, also reload.

    What they refuse with LcinitError is logged. `remade` counts the FIFOs that were made, `taken` the requests.
    One that follows another in the same process, over an exec, gets the FIFO's descriptor to `adopt`, and `variables`.
    """

    def __init__(
        self,
        request: Callable[[str, str], None],
        *,
        places: Sequence[str] = PLACES,
        adopt: int = -1,
        variables: Mapping[str, str] | None = None,
        runlevel: Callable[[str, str], None] | None = None,
    ) -> None:
        self.remade = 0
        self.taken = 0
        self._request = request
        self._runlevel = runlevel
        self._places = [_Place(path) for path in places]
        self._loop: AbstractEventLoop | None = None
        self._home: _Place | None = None
        self._fd = -1
        self._frames = FrameReader()
        self._adopt = adopt
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
        return None if self._home is None else self._home.path

    async def start(self) -> None:
        """Make the FIFO and its links, and read it on the running loop. Never fails: what cannot be is logged.

        SIGIO must be blocked or caught by then: it tells of changes, and ends a process that does neither.
        """
        self._loop = asyncio.get_running_loop()
        self._look(self._loop)

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
        self._stop_reading(self._loop)
        if self._again is not None:
            self._again.cancel()
            self._again = None
        for place in self._places:
            try:
                place.remove()
            except OSError as error:
                self._say(log.info, f"cannot remove {place.path}: {error.strerror or error}")
        self._home = self._loop = None

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
        if self._home is not None and not self._home.holds():
            self._stop_reading(loop)
            self._home = None
        usable = [place for place in self._places if place.enter()]
        if self._home is None:
            self._make(loop, usable)
        if self._home is None:
            self._look_at(loop, self._looked_at + self._retry)
            self._retry = min(self._retry * 2, LAST_RETRY)
        else:
            self._retry = FIRST_RETRY
            self._link(self._home, usable)
        self._tell()

    def _make(self, loop: AbstractEventLoop, usable: Sequence[_Place]) -> None:
        """Make the FIFO at the first place where that can be, and read it."""
        if self._adopt >= 0 and self._take_over(loop, usable):
            return
        for place in usable:
            try:
                self._fd = place.make_fifo()
            except OSError as error:
                place.failed(error)
                continue
            if self._begin(loop, place):
                if self.remade:
                    self._say(log.info, f"{place.path} was replaced; made it again")
                self.remade += 1
                self._frames = FrameReader()
                return

    def _take_over(self, loop: AbstractEventLoop, usable: Sequence[_Place]) -> bool:
        """Go on with the FIFO of the one before, where it stands; otherwise take what was written to it."""
        self._fd, self._adopt = self._adopt, -1
        for place in usable:
            try:
                stands = place.adopt_fifo(self._fd)
            except OSError as error:
                place.failed(error)
                continue
            if stands:
                return self._begin(loop, place)
        self._read()
        os.close(self._fd)
        self._fd = -1
        return False

    def _begin(self, loop: AbstractEventLoop, place: _Place) -> bool:
        """Read the FIFO of this place from now on; false where the kernel has no room for another watched one."""
        try:
            loop.add_reader(self._fd, self._ready, loop)
        except OSError as error:
            self._give_up(place, error)
            return False
        self._home = place
        return True

    def _give_up(self, place: _Place, error: OSError) -> None:
        """Leave no FIFO behind that nobody reads: its writers would wait."""
        self._read()
        self._fd, self._home = -1, None
        try:
            place.withdraw()
        except OSError as second:
            error = second
        place.failed(error)

    def _link(self, home: _Place, usable: Sequence[_Place]) -> None:
        for place in usable:
            if not place.is_at(home):
                try:
                    place.make_link(home.path)
                except OSError as error:
                    place.failed(error)

    def _tell(self) -> None:
        """Say what is missing, once for each change of it."""
        problems = ", ".join(place.problem for place in self._places if place.problem)
        if problems == self._said:
            return
        was_without, self._without = self._without, self._home is None
        self._said = problems
        if self._home is None:
            log.warning(f"no request can come over initctl: cannot make {problems}; going on without")
        elif was_without:
            log.info(f"requests can come over {self._home.path} now")
        elif problems:
            log.debug(f"initctl is at {self._home.path} alone: cannot make {problems}")

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
            if self._home is not None:
                self._give_up(self._home, error)
            self._tell()
            self._look_at(loop, loop.time() + self._retry)

    def _stop_reading(self, loop: AbstractEventLoop) -> None:
        """Take what was written, then leave the loop; the descriptor may be closed afterwards."""
        if self._fd < 0:
            return
        loop.remove_reader(self._fd)
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
